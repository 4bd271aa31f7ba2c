// What TypeScript has to allow, and after @ts-expect-error what it must not.
import { ChannelsError, connect, type Message } from "../../client/js/channels.js";

const c = connect({ url: "/rt/", token: async () => (await fetch("/token")).text(), data: { name: "Ann" } });
connect();
c.on("state", (state, why) => console.log(state === "closed" && why?.code));
c.on("message", (m: Message) => console.log(m.channel, m.user, m.time));
c.on("subscription", (channel, state) => console.log(channel.length, state));
const room = c.channel<{ text: string }>("chat.lobby", { last: 50, since: { epoch: "e", offset: 1 }, token: (channel) => channel });
const off: () => void = room.on("message", (m) => console.log(m.body.text.length));
room.on("reset", ({ reason }) => console.log(reason));
room.on("presence", ({ event, member }) => console.log(event === "join", member.user));
room.on("state", (state, why) => console.log(state, why instanceof ChannelsError ? why.temporary : why?.recovered));
export async function main() {
  for await (const m of room) console.log(m.header, m.body.text, m.offset ?? 0);
  const { offset, duplicate } = await room.publish("say", { text: "hi" });
  const [first] = await room.history({ limit: 50 });
  await room.history({ before: first });
  console.log(offset, duplicate, (await room.members()).map((m) => m.id), await c.call<number>("sum", [1, 2]));
  off();
  room.close();
  c.close();
}

// @ts-expect-error
c.on("stat", () => {});
// @ts-expect-error
connect({ tokens: "x" });
// @ts-expect-error
c.channel("a", { last: "50" });
// @ts-expect-error
room.on("message", (m) => m.body.txt);
// @ts-expect-error
c.state = "live";
