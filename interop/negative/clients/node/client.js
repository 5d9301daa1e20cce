'use strict';
// The gRPC calls of the negative suite on grpc-js: a job a line on stdin, its answers a line on stdout.

const readline = require('node:readline');
const zlib = require('node:zlib');
const grpc = require('@grpc/grpc-js');

const raw = (value) => value;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function send(stream, call, gate) {
  for (let at = 0; at < call.send && !stream.over; at++) {
    if (at && call.gap) await sleep(call.gap);
    const taken = stream.write(Buffer.alloc(call.size));
    if (!taken) await new Promise((resolve) => { stream.once('drain', resolve); stream.once('status', resolve); });
    if (call.lockstep) await gate();
  }
  if (!stream.over) stream.end();
}

function metadataOf(call) {
  const metadata = new grpc.Metadata();
  for (const [name, value] of call.headers) metadata.add(name, value);
  for (let at = 0; at < call.pad; at += 4000) metadata.add(`x-pad-${at}`, 'p'.repeat(Math.min(4000, call.pad - at)));
  return metadata;
}

function look(metadata, answer) {
  for (const [name, value] of Object.entries(metadata.getMap())) {
    if (name.startsWith('x-pad')) answer.pad += value.length;
    if (name === 'x-neg-bin') answer.extra = value.toString('hex');
  }
}

function make(client, call) {
  const began = performance.now();
  const answer = { messages: 0, size: 0, crc: 0, pad: 0, extra: '' };
  const deadline = Date.now() + call.deadline * 1000;
  const stream = client.makeBidiStreamRequest(call.path, raw, raw, metadataOf(call), { deadline });
  const waiting = [];
  let credits = 0;
  const gate = () => (credits > 0 ? Promise.resolve(credits--) : new Promise((resolve) => waiting.push(resolve)));
  stream.on('error', () => {});
  stream.on('metadata', (metadata) => look(metadata, answer));
  stream.on('data', async (message) => {
    answer.messages += 1;
    answer.size += message.length;
    answer.crc = zlib.crc32(message, answer.crc);
    if (waiting.length) waiting.shift()(); else credits += 1;
    if (call.cancel === 'message') stream.cancel();
    if (call.slow) { stream.pause(); await sleep(call.slow); stream.resume(); }
  });
  if (call.cancel === 'start') setTimeout(() => stream.cancel(), call.after);
  send(stream, call, gate);
  return new Promise((resolve) => stream.on('status', (status) => {
    stream.over = true;
    look(status.metadata, answer);
    const done = () => resolve({ ...answer, grpc: status.code, text: status.details, seconds: (performance.now() - began) / 1000 });
    if (call.slow && status.code === 0) stream.on('end', done); else done();
  }));
}

async function job(asked) {
  const options = { 'grpc.enable_retries': 0, 'grpc.max_receive_message_length': -1, 'grpc.use_local_subchannel_pool': 1 };
  const client = new grpc.Client(`127.0.0.1:${asked.port}`, grpc.credentials.createInsecure(), options);
  try {
    if (asked.parallel) return await Promise.all(asked.calls.map((call) => make(client, call)));
    const answers = [];
    for (const call of asked.calls) answers.push(await make(client, call));
    return answers;
  } finally {
    client.close();
  }
}

let last = Promise.resolve();
readline.createInterface({ input: process.stdin }).on('line', (line) => {
  last = last.then(() => job(JSON.parse(line))).then((answers) => console.log(JSON.stringify(answers)));
});
