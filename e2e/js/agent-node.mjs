// The agent in Node: it connects to the test that has started it, and ends with it.
import WebSocket from "ws";
import { serve } from "./agent.mjs";

const { url, protobuf } = JSON.parse(process.argv[2]);
const { Centrifuge } = await import(protobuf ? "centrifuge/build/protobuf" : "centrifuge");
const socket = new WebSocket(url);
socket.onclose = () => process.exit();
serve(socket, { Centrifuge, protobuf, options: { websocket: WebSocket } });
