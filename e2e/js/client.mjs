// A WebSocket client for a Go test: it reads commands as lines of JSON from
// standard input, and reports events as lines of JSON.
import { createInterface } from "node:readline";
import WebSocket from "ws";

const { url, ca, deflate } = JSON.parse(process.argv[2]);
const tell = (event, told) => process.stdout.write(JSON.stringify(event) + "\n", told);
const end = () => process.exit(); // called once everything is written, or it would be cut off

// With compression, the client compresses everything that it sends.
const ws = new WebSocket(url, { ca, perMessageDeflate: deflate && { threshold: 0 } });
ws.on("open", () => tell({ type: "open", data: ws.extensions }));
ws.on("message", (data, binary) => tell({ type: binary ? "binary" : "message", data: data.toString() }));
ws.on("ping", (data) => tell({ type: "ping", data: data.toString() }));
ws.on("pong", (data) => tell({ type: "pong", data: data.toString() }));
ws.on("unexpected-response", (request, response) => {
  tell({ type: "refused", code: response.statusCode }, end);
});
ws.on("error", (error) => tell({ type: "error", data: error.message }));
ws.on("close", (code, reason) => {
  tell({ type: "close", code, data: reason.toString() }, end);
});

const commands = {
  send: (text) => ws.send(text),
  binary: (text) => ws.send(Buffer.from(text)),
  parts: (parts) => parts.forEach((part, i) => ws.send(part, { fin: i === parts.length - 1 })),
  ping: (data) => ws.ping(data),
  close: ([code, reason]) => ws.close(code, reason),
};
createInterface({ input: process.stdin }).on("line", (line) => {
  for (const [name, argument] of Object.entries(JSON.parse(line))) commands[name](argument);
});
