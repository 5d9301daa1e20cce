'use strict';
// What the client and the server share: the service definition, the metadata keys, payloads.

const grpc = require('@grpc/grpc-js');
const protoLoader = require('@grpc/proto-loader');
const path = require('node:path');

const definition = protoLoader.loadSync('test.proto', {
  keepCase: true,
  defaults: true,
  includeDirs: [path.join(__dirname, '..', 'proto')],
});

/** The constructor of clients; its property `service` is what a server adds. */
const TestService = grpc.loadPackageDefinition(definition).grpc.testing.TestService;

const ECHO_INITIAL = 'x-grpc-test-echo-initial';
const ECHO_TRAILING = 'x-grpc-test-echo-trailing-bin';

function zeros(size) {
  return { body: Buffer.alloc(size) };
}

module.exports = { grpc, TestService, ECHO_INITIAL, ECHO_TRAILING, zeros };
