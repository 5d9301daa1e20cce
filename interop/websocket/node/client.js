// node client.js PORT: every case on ws; a JSON object of outcomes, "" for a good one.
const assert = require("assert");
const crypto = require("crypto");
const { once } = require("events");
const WebSocket = require("ws");

const [TEXT, BIG, MANY, CODE] = ["hällo, wörld ☃", 1 << 20, 200, 4001];

// Messages that came, in order; next() waits for one.
function inbox(ws) {
  const got = [], waiting = [];
  ws.on("message", (data, binary) => {
    const message = binary ? data : data.toString();
    if (waiting.length) waiting.shift()(message);
    else got.push(message);
  });
  return () => (got.length ? Promise.resolve(got.shift()) : new Promise((resolve) => waiting.push(resolve)));
}

const cases = {
  async text(ws, next) {
    ws.send(TEXT);
    assert.equal(await next(), TEXT);
  },
  async binary(ws, next) {
    const data = crypto.randomBytes(BIG);
    ws.send(data);
    assert(data.equals(await next()));
  },
  async fragmented(ws, next) {
    ws.send("one, ", { fin: false });
    ws.send("two, ", { fin: false });
    ws.send("three", { fin: true });
    assert.equal(await next(), "one, two, three");
  },
  async many(ws, next) {
    for (let number = 0; number < MANY; number++) ws.send(String(number));
    for (let number = 0; number < MANY; number++) assert.equal(await next(), String(number));
  },
  async ping(ws) {
    const pong = once(ws, "pong");
    ws.ping("are you there?");
    assert.equal((await pong)[0].toString(), "are you there?");
  },
  async deflate(ws, next) {
    assert(ws.extensions.includes("permessage-deflate"), "not agreed on");
    ws.send("x".repeat(BIG));
    assert.equal(await next(), "x".repeat(BIG));
  },
  async close(ws) {
    const closed = once(ws, "close");
    ws.send(`close ${CODE}`);
    assert.equal((await closed)[0], CODE);
  },
};

function late() {
  return new Promise((_, reject) => setTimeout(() => reject(new Error("nothing for 10 s")), 10000).unref());
}

async function main() {
  const outcomes = {};
  for (const [name, one] of Object.entries(cases)) {
    const ws = new WebSocket(`ws://127.0.0.1:${process.argv[2]}/echo`, { perMessageDeflate: true });
    try {
      const next = inbox(ws);
      await Promise.race([once(ws, "open"), late()]);
      await Promise.race([one(ws, next), late()]);
      outcomes[name] = "";
    } catch (error) {
      outcomes[name] = String(error.message);
    }
    ws.on("error", () => {});
    ws.terminate();
  }
  console.log(JSON.stringify(outcomes));
  process.exit(0);
}

main();
