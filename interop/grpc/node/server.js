'use strict';
// grpc.testing.TestService on grpc-js: `server.js PORT`, plaintext on 127.0.0.1, until SIGTERM.
// grpc-js neither compresses responses nor shows whether a request was compressed: the compression fields are ignored.

const { setTimeout: delay } = require('node:timers/promises');
const { grpc, TestService, ECHO_INITIAL, ECHO_TRAILING, zeros } = require('./service');

function emptyCall(call, callback) {
  callback(null, {});
}

function unaryCall(call, callback) {
  const trailers = echoMetadata(call);
  const failure = failureOf(call.request.response_status, trailers);
  if (failure) callback(failure);
  else callback(null, { payload: zeros(call.request.response_size) }, trailers);
}

function streamingInputCall(call, callback) {
  let size = 0;
  call.on('data', (request) => { size += payloadSize(request); });
  call.on('end', () => callback(null, { aggregated_payload_size: size }));
}

async function streamingOutputCall(call) {
  await reply(call, call.request);
  call.end();
}

async function fullDuplexCall(call) {
  const trailers = echoMetadata(call);
  for await (const request of call.iterator({ destroyOnReturn: false })) { // the other direction is still open
    const failure = failureOf(request.response_status, trailers);
    if (failure) {
      call.emit('error', failure);
      return;
    }
    await reply(call, request);
  }
  call.end(trailers);
}

async function reply(call, request) {
  for (const each of request.response_parameters) {
    if (each.interval_us) await delay(each.interval_us / 1000);
    call.write({ payload: zeros(each.size) });
  }
}

/** Sends one well-known key back in the initial metadata; returns the trailers with the other. */
function echoMetadata(call) {
  const initial = call.metadata.get(ECHO_INITIAL);
  if (initial.length > 0) {
    const metadata = new grpc.Metadata();
    metadata.set(ECHO_INITIAL, initial[0]);
    call.sendMetadata(metadata);
  }
  const trailers = new grpc.Metadata();
  for (const value of call.metadata.get(ECHO_TRAILING)) trailers.add(ECHO_TRAILING, value);
  return trailers;
}

function failureOf(status, metadata) {
  return status && status.code ? { code: status.code, details: status.message, metadata } : null;
}

function payloadSize(request) {
  return request.payload ? request.payload.body.length : 0;
}

/** A cancelled call makes its stream throw; that ends the handler, not the server. */
function untilCancelled(handler) {
  return (call) => handler(call).catch((error) => {
    if (!call.cancelled) throw error;
  });
}

const server = new grpc.Server();
server.addService(TestService.service, {
  EmptyCall: emptyCall,
  UnaryCall: unaryCall,
  StreamingInputCall: streamingInputCall,
  StreamingOutputCall: untilCancelled(streamingOutputCall),
  FullDuplexCall: untilCancelled(fullDuplexCall),
});
server.bindAsync(`127.0.0.1:${process.argv[2]}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
process.on('SIGTERM', () => server.forceShutdown());
