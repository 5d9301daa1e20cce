// The cases, run in a browser by grpc-web, the client of gRPC's own project. Messages are bytes: what is tested is their way.
// Writes [{name, ok, why}] to where the page came from.

import { GrpcWebClientBase, MethodDescriptor, MethodType } from "grpc-web";

class Bytes {}
const raw = (value) => value;
const SERVICE = "/waypost.Echo/";
const method = (name, type = MethodType.UNARY) => new MethodDescriptor(SERVICE + name, type, Bytes, Bytes, raw, raw);

const text = (bytes) => new TextDecoder().decode(bytes);
const bytes = (value) => new TextEncoder().encode(value);

function check(good, what) {
  if (!good) throw new Error(what);
}

// One unary call: its message, its status, and all metadata, as gRPC-Web tells them.
function unary(client, base, name, message, metadata = {}, path = SERVICE) {
  return new Promise((resolve) => {
    const answer = { metadata: {} };
    const descriptor = new MethodDescriptor(path + name, MethodType.UNARY, Bytes, Bytes, raw, raw);
    const call = client.rpcCall(base + path + name, message, metadata, descriptor, (error, response) => {
      answer.error = error;
      answer.message = response;
      setTimeout(() => resolve(answer), 0); // the status comes behind the message
    });
    call.on("metadata", (given) => Object.assign(answer.metadata, given));
    call.on("status", (status) => (answer.status = status));
  });
}

function stream(client, base, name, message, onMessage) {
  const call = client.serverStreaming(base + SERVICE + name, message, {}, method(name, MethodType.SERVER_STREAMING));
  const ended = new Promise((resolve) => {
    call.on("data", onMessage);
    call.on("error", (error) => resolve(error));
    call.on("end", () => resolve(null));
  });
  return { call, ended };
}

function noise(length) {
  const made = new Uint8Array(length);
  for (let at = 0; at < length; at += 65536) crypto.getRandomValues(made.subarray(at, Math.min(at + 65536, length)));
  return made;
}

function same(a, b) {
  return a.length === b.length && a.every((value, at) => value === b[at]);
}

const CASES = {
  async empty_message({ client, base }) {
    const { error, message } = await unary(client, base, "Echo", new Uint8Array());
    check(!error && message.length === 0, `${error}`);
  },

  async unary_call({ client, base, via }) {
    for (const length of [1, 2, 3, 1000, 200000]) {
      const sent = noise(length);
      const { error, message } = await unary(client, base, "Echo", sent);
      check(!error && same(message, sent), `${length} bytes: ${error}`);
    }
    const { message } = await unary(client, base, "Via", new Uint8Array());
    check(text(message) === via, `the request came over ${text(message)}, not ${via}`);
  },

  async metadata_both_ways({ client, base }) {
    const { error, metadata, status } = await unary(client, base, "Metadata", bytes("x"), { "x-token": "t 1" });
    check(!error, `${error}`);
    check(metadata["x-echo"] === "t 1", `initial metadata ${JSON.stringify(metadata)}`);
    check(status.metadata["x-trailer"] === "t 1", `trailers ${JSON.stringify(status)}`);
  },

  async status_and_message({ client, base }) {
    const { error } = await unary(client, base, "Fail", bytes("9 größer % als\n erlaubt"));
    check(error && error.code === 9 && error.message === "größer % als\n erlaubt", JSON.stringify(error));
  },

  async unknown_service_is_answered_by_the_router({ client, base }) {
    const { error } = await unary(client, base, "Echo", bytes("x"), {}, "/no.Such/");
    check(error && error.code === 14, JSON.stringify(error));
    check(error.message.includes("/svc/no.Such"), error.message);
  },

  async deadline({ client, base }) {
    // By hand, since the client would give up by itself with its own deadline: grpc-timeout reaches the router all the same.
    const { error } = await unary(client, base, "Wait", bytes("x"), { "grpc-timeout": "100m" });
    check(error && error.code === 4, JSON.stringify(error));
  },

  async many_calls_at_once({ client, base }) {
    const answers = await Promise.all(
      [...Array(40).keys()].map((at) => unary(client, base, "Echo", bytes(`call ${at}`))),
    );
    answers.forEach(({ message }, at) => check(text(message) === `call ${at}`, `call ${at}`));
  },

  async strangers_are_refused({ client, denied }) {
    const { error } = await unary(client, denied, "Echo", bytes("x"));
    check(error && error.code !== 0, "a page of another origin was let in");
  },

  // grpc-web streams in its text form only
  async stream_arrives_as_it_is_sent({ client, base, streams }) {
    if (!streams) return "skip";
    const seen = [];
    const key = crypto.randomUUID();
    const { ended } = stream(client, base, "Gated", bytes(key), async (message) => {
      seen.push(text(message));
      await unary(client, base, "Go", bytes(key)); // the next one is sent when this one was seen
    });
    const error = await ended;
    check(!error && seen.join() === "0,1,2,3,4", `${seen}: ${error}`);
  },

  async large_stream({ client, base, streams }) {
    if (!streams) return "skip";
    let size = 0;
    const error = await stream(client, base, "Many", bytes("200 10000"), (message) => (size += message.length)).ended;
    check(!error && size === 2000000, `${size} bytes: ${error}`);
  },

  async status_behind_messages({ client, base, streams }) {
    if (!streams) return "skip";
    let count = 0;
    const error = await stream(client, base, "ManyThenFail", bytes("3 10"), () => count++).ended;
    check(count === 3 && error && error.code === 10, `${count}: ${JSON.stringify(error)}`);
  },

  async cancelling_reaches_the_backend({ client, base, streams }) {
    if (!streams) return "skip";
    const key = crypto.randomUUID();
    await new Promise((resolve) => {
      const { call } = stream(client, base, "Gated", bytes(key), () => {
        call.cancel();
        resolve();
      });
    });
    const { message, error } = await unary(client, base, "Cancelled", bytes(key)); // answers when it is
    check(!error && text(message) === "yes", JSON.stringify(error));
  },
};

async function run(ways) {
  const results = [];
  for (const way of ways) {
    for (const form of ["binary", "text"]) {
      const client = new GrpcWebClientBase({ format: form === "text" ? "text" : "binary" });
      for (const [name, each] of Object.entries(CASES)) {
        const full = `${way.name}/${form}/${name}`;
        const late = new Promise((_, reject) => setTimeout(() => reject(new Error("no end in 8 s")), 8000));
        try {
          const verdict = await Promise.race([each({ client, streams: form === "text", ...way }), late]);
          results.push({ name: full, outcome: verdict === "skip" ? "skip" : "ok", why: "" });
        } catch (error) {
          results.push({ name: full, outcome: "FAIL", why: `${error && error.message}` });
        }
      }
    }
  }
  return results;
}

async function main() {
  const ways = await (await fetch("/ways")).json();
  let results;
  try {
    results = await run(ways);
  } catch (error) {
    results = [{ name: "page", outcome: "FAIL", why: `${error}` }];
  }
  await fetch("/results", { method: "POST", body: JSON.stringify(results) });
}

main();
