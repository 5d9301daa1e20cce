// node server.js PORT: an echo server on ws.
const { WebSocketServer } = require("ws");

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]), perMessageDeflate: true });
server.on("connection", (ws) => {
  ws.on("error", () => {});
  ws.on("message", (data, binary) => {
    const close = !binary && /^close (\d+)$/.exec(data.toString());
    if (close) ws.close(Number(close[1]));
    else ws.send(data, { binary });
  });
});
