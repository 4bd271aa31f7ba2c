// A program that says something, hears it, and ends: once its client is closed, nothing
// keeps Node running.
import WebSocket from "ws";
import { connect } from "../../client/js/channels.js";

const { url, transport } = JSON.parse(process.argv[2]);
const c = connect({ url, transport, WebSocket });
const room = c.channel("chat.lobby", { last: 1 });
await room.publish("say", { text: "from " + transport });
for await (const m of room) {
  console.log(m.body.text);
  break;
}
c.close();
