// The agent in Node: it connects to the test that has started it, and ends with it.
import WebSocket from "ws";

const { url, sdk } = JSON.parse(process.argv[2]);
const open = () => {
  const socket = new WebSocket(url);
  socket.onclose = () => process.exit();
  return socket;
};
if (sdk === "channels.js") {
  const { serve } = await import("./agent-channels.mjs");
  const { connect } = await import("../../client/js/channels.js");
  serve(open(), { connect, options: { WebSocket } });
} else {
  const { serve } = await import("./agent.mjs");
  const protobuf = sdk === "centrifuge.protobuf.js";
  const { Centrifuge } = await import(protobuf ? "centrifuge/build/protobuf" : "centrifuge");
  serve(open(), { Centrifuge, protobuf, options: { websocket: WebSocket } });
}
