'use strict';
// The standard interop cases on grpc-js: `client.js HOST PORT CASE`, plaintext. Exit code 0 if the case passed.
// Retries are off: a retry would hide a fault of what stands in between.
// The client_compressed cases are those without the feature probe, which none of the servers would answer.

const assert = require('node:assert/strict');
const { grpc, TestService, ECHO_INITIAL, ECHO_TRAILING, zeros } = require('./service');

const { status } = grpc;
const NO_COMPRESS = 2; // the write flag; grpc-js does not export its name
const REQUEST_SIZES = [27182, 8, 1828, 45904];
const RESPONSE_SIZES = [31415, 9, 2653, 58979];
const LARGE_REQUEST = 271828;
const LARGE_RESPONSE = 314159;
const INITIAL_VALUE = 'test_initial_metadata_value';
const TRAILING_VALUE = Buffer.from('ababab', 'hex');
const SPECIAL_MESSAGE = '\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n';
const LIMIT = 20000; // milliseconds a call may take

const CASES = {
  async empty_unary(client) {
    const { reply } = await unary(client, 'EmptyCall', {});
    assert.deepEqual({ ...reply }, {});
  },

  async large_unary(client) {
    const { reply } = await unary(client, 'UnaryCall', largeRequest());
    checkPayload(reply, LARGE_RESPONSE);
  },

  async client_compressed_unary(client, connect) {
    const compressing = connect({ 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip });
    const compressed = await unary(compressing, 'UnaryCall', largeRequest({ expect_compressed: { value: true } }));
    checkPayload(compressed.reply, LARGE_RESPONSE);
    const plain = await unary(client, 'UnaryCall', largeRequest({ expect_compressed: { value: false } }));
    checkPayload(plain.reply, LARGE_RESPONSE);
  },

  async client_compressed_streaming(client, connect) {
    const compressing = connect({ 'grpc.default_compression_algorithm': grpc.compressionAlgorithms.gzip });
    const { call, done } = streamingInput(compressing);
    await new Promise((resolve) => call.write({ payload: zeros(27182), expect_compressed: { value: true } }, resolve));
    await writeUncompressed(call, { payload: zeros(45904), expect_compressed: { value: false } });
    call.end();
    assert.equal((await done).aggregated_payload_size, 73086);
  },

  async client_streaming(client) {
    const { call, done } = streamingInput(client);
    for (const size of REQUEST_SIZES) call.write({ payload: zeros(size) });
    call.end();
    assert.equal((await done).aggregated_payload_size, 74922);
  },

  async server_streaming(client) {
    const call = client.StreamingOutputCall({ response_parameters: RESPONSE_SIZES.map((size) => ({ size })) }, options());
    const replies = await call.toArray();
    assert.equal(replies.length, RESPONSE_SIZES.length);
    replies.forEach((reply, index) => checkPayload(reply, RESPONSE_SIZES[index]));
  },

  async ping_pong(client) {
    const { call, end, next } = duplex(client);
    for (let index = 0; index < REQUEST_SIZES.length; index += 1) {
      call.write(duplexRequest(REQUEST_SIZES[index], RESPONSE_SIZES[index]));
      checkPayload(await next(), RESPONSE_SIZES[index]);
    }
    call.end();
    assert.equal(await next(), undefined);
    assert.equal((await end).code, status.OK);
  },

  async empty_stream(client) {
    const { call, end, next } = duplex(client);
    call.end();
    assert.equal(await next(), undefined);
    assert.equal((await end).code, status.OK);
  },

  async custom_metadata(client) {
    const metadata = new grpc.Metadata();
    metadata.set(ECHO_INITIAL, INITIAL_VALUE);
    metadata.set(ECHO_TRAILING, TRAILING_VALUE);
    const answer = await unary(client, 'UnaryCall', largeRequest(), metadata);
    checkPayload(answer.reply, LARGE_RESPONSE);
    checkMetadata(answer.initial, answer.end.metadata);
    const { call, initial, end, next } = duplex(client, metadata);
    call.write(duplexRequest(LARGE_REQUEST, LARGE_RESPONSE));
    checkPayload(await next(), LARGE_RESPONSE);
    call.end();
    assert.equal(await next(), undefined);
    checkMetadata(await initial, (await end).metadata);
  },

  async status_code_and_message(client) {
    const response_status = { code: 2, message: 'test status message' };
    await fails(status.UNKNOWN, response_status.message, unary(client, 'UnaryCall', { response_status }));
    const { call, next } = duplex(client);
    call.write({ response_status });
    call.end();
    await fails(status.UNKNOWN, response_status.message, next());
  },

  async special_status_message(client) {
    const response_status = { code: 2, message: SPECIAL_MESSAGE };
    await fails(status.UNKNOWN, SPECIAL_MESSAGE, unary(client, 'UnaryCall', { response_status }));
  },

  async unimplemented_method(client) {
    await failsAsUnimplemented(client, '/grpc.testing.TestService/UnimplementedCall');
  },

  async unimplemented_service(client) {
    await failsAsUnimplemented(client, '/grpc.testing.UnimplementedService/UnimplementedCall');
  },

  async cancel_after_begin(client) {
    await CASES.empty_unary(client); // connects: a call cancelled before there is a connection never reaches the wire
    const { call, done } = streamingInput(client);
    await new Promise((resolve) => setTimeout(resolve, 50)); // nothing tells when the request's headers have left
    call.cancel();
    await fails(status.CANCELLED, null, done);
    await CASES.empty_unary(client); // the connection is still good
  },

  async cancel_after_first_response(client) {
    const { call, next } = duplex(client);
    call.write(duplexRequest(REQUEST_SIZES[0], RESPONSE_SIZES[0]));
    checkPayload(await next(), RESPONSE_SIZES[0]);
    call.cancel();
    await fails(status.CANCELLED, null, next());
    await CASES.empty_unary(client);
  },

  async timeout_on_sleeping_server(client) {
    await CASES.empty_unary(client); // connects, so that the deadline covers the call alone
    const { call, next } = duplex(client, new grpc.Metadata(), 1);
    call.write({ payload: zeros(REQUEST_SIZES[0]) });
    await fails(status.DEADLINE_EXCEEDED, null, next());
    await CASES.empty_unary(client);
  },
};

function options(limit = LIMIT) {
  return { deadline: Date.now() + limit };
}

/** Makes a unary call; resolves to its reply, initial metadata and final status, rejects with its error. */
function unary(client, method, request, metadata = new grpc.Metadata()) {
  return new Promise((resolve, reject) => {
    const answer = {};
    const call = client[method](request, metadata, options(), (error, reply) => {
      answer.reply = reply;
      if (error) reject(error);
    });
    call.on('metadata', (initial) => { answer.initial = initial; });
    call.on('status', (end) => resolve({ ...answer, end })); // comes after the callback
  });
}

function streamingInput(client) {
  let call;
  const done = new Promise((resolve, reject) => {
    call = client.StreamingInputCall(new grpc.Metadata(), options(), (error, reply) => (error ? reject(error) : resolve(reply)));
  });
  return { call, done };
}

/** A FullDuplexCall in lock-step: `next()` resolves to the next reply, or undefined at the end, or rejects with the status. */
function duplex(client, metadata = new grpc.Metadata(), limit = LIMIT) {
  const call = client.FullDuplexCall(metadata, options(limit));
  const initial = new Promise((resolve) => call.on('metadata', resolve));
  const end = new Promise((resolve) => call.on('status', resolve));
  const replies = call[Symbol.asyncIterator]();
  return { call, initial, end, next: async () => (await replies.next()).value };
}

/** `call.write` takes a write flag where streams take an encoding, which Node refuses; this is the layer below it. */
function writeUncompressed(call, request) {
  return new Promise((resolve) => {
    call.call.sendMessageWithContext({ flags: NO_COMPRESS, callback: resolve }, request);
  });
}

function largeRequest(fields = {}) {
  return { response_size: LARGE_RESPONSE, payload: zeros(LARGE_REQUEST), ...fields };
}

function duplexRequest(requestSize, responseSize) {
  return { response_parameters: [{ size: responseSize }], payload: zeros(requestSize) };
}

function checkPayload(reply, size) {
  assert.ok(reply, 'the stream ended early');
  assert.equal(reply.payload.body.length, size);
  assert.ok(reply.payload.body.every((byte) => byte === 0));
}

function checkMetadata(initial, trailing) {
  assert.deepEqual(initial.get(ECHO_INITIAL), [INITIAL_VALUE]);
  assert.deepEqual(trailing.get(ECHO_TRAILING), [TRAILING_VALUE]);
}

/** The call must end with this status; null stands for any message. */
async function fails(code, message, call) {
  await assert.rejects(call, (error) => {
    assert.equal(error.code, code, error.stack);
    if (message !== null) assert.equal(error.details, message);
    return true;
  });
}

async function failsAsUnimplemented(client, path) {
  const nothing = () => Buffer.alloc(0);
  await fails(status.UNIMPLEMENTED, null, new Promise((resolve, reject) => {
    client.makeUnaryRequest(path, nothing, nothing, {}, options(), (error, reply) => (error ? reject(error) : resolve(reply)));
  }));
}

async function main([host, port, name]) {
  assert.ok(Object.hasOwn(CASES, name), `no case ${name}`);
  const clients = [];
  const connect = (channelOptions = {}) => {
    const client = new TestService(`${host}:${port}`, grpc.credentials.createInsecure(), { 'grpc.enable_retries': 0, ...channelOptions });
    clients.push(client);
    return client;
  };
  await CASES[name](connect(), connect);
  clients.forEach((client) => client.close());
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
