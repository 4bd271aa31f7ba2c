// As agent.mjs, for channels.js.
import { answer } from "./agent.mjs";

const json = (value) => (value === undefined ? "" : JSON.stringify(value));
const person = ({ user, client, info }) => (client === undefined ? undefined : { user, client, connInfo: json(info) });
const reason = (why) => ({ code: Number(why?.code) || 0, reason: why?.message ?? "" });
const begun = ({ recoverable, recovered, epoch, offset }) => ({
  wasRecovering: recoverable && recovered !== undefined, recovered: !!recovered, recoverable, epoch, offset,
});
const publication = (name, { channel, header, body, offset, ...who }) => ({
  type: "publication", channel: name, data: json(body), offset, info: person(who),
  tags: { ...(header !== "message" && { header }), ...(channel !== name && { channel }) },
});

export function serve(socket, { connect, options }) {
  // source returns the first token, and those of the list for each time that one is asked for.
  const source = (report, token, list, channel) => {
    if (!list?.length) return token;
    return async () => {
      if (token) return [token, (token = "")][0];
      if (list.length) report({ type: "token", channel });
      return list.shift();
    };
  };

  const open = (report, { endpoints: [first, ...others], token, tokens, timeout, minDelay, maxDelay }) => {
    const join = (c, channel) => {
      const { token, tokens, data, joinLeave } = client.interests.get(channel);
      const since = client.left.get(channel); // the scenarios go on where they were
      const room = c.channel(channel, { since, token: source(report, token, tokens, channel), ...(data && JSON.parse(data)) });
      room.on("state", (state, why) => {
        if (state === "live") report({ type: "subscribed", channel, ...begun(why) });
        else report({ type: state === "closed" ? "unsubscribed" : "subscribing", channel, ...reason(why) });
      });
      if (joinLeave) room.on("presence", ({ event, member: { id, user, info } }) => report({ type: event, channel, info: person({ user, client: id, info }) }));
      room.on("message", (m) => {
        client.left.set(channel, m.offset ? m : undefined);
        report(publication(channel, m));
      });
      client.rooms.set(channel, room);
    };
    const client = {
      interests: new Map(), rooms: new Map(), left: new Map(), join,
      connect() {
        const c = client.c = connect({
          url: new URL("/", first.endpoint), transport: others.length ? undefined : first.transport,
          token: source(report, token, tokens), timeout, minDelay, maxDelay, ...options,
        });
        let before;
        c.on("state", (state, why) => {
          if (state === "live") report({ type: "connected", client: c.client, transport: c.transport });
          else if (state === "closed") report({ type: "disconnected", ...reason(why) });
          else if (state === "offline") report({ type: before === "live" ? "connecting" : "error", ...reason(why) });
          else if (!before) report({ type: "connecting" });
          before = state;
        });
        c.on("error", (e) => report({ type: "error", ...reason(e) }));
        c.on("subscription", (channel, state, why) => {
          report(state === "live" ? { type: "subscribed", channel, ...begun(why), server: true } : { type: "unsubscribed", channel, server: true });
        });
        c.on("message", (m) => report({ ...publication(m.channel, m), server: true }));
        for (const channel of client.interests.keys()) join(c, channel);
      },
    };
    return client;
  };

  answer(socket, open, {
    connect: (client) => client.connect(),
    disconnect: ({ c }) => c.close(),
    subscribe(client, { channel, interest }) {
      client.interests.set(channel, interest);
      if (client.c) client.join(client.c, channel);
    },
    unsubscribe(client, { channel }) {
      client.interests.delete(channel);
      client.rooms.get(channel).close();
    },
    publish: ({ c }, { channel, data }) => c.publish(channel, "message", JSON.parse(data)),
    rpc: async ({ c }, { method, data }) => json(await c.call(method, JSON.parse(data))),
    send: ({ c }, { data }) => c.send(JSON.parse(data)),
    async presence({ c }, { channel }) {
      const all = await c.channel(channel).members();
      return Object.fromEntries(all.map(({ id, user, info }) => [id, person({ user, client: id, info })]));
    },
    async presenceStats({ c }, { channel }) {
      const { num_clients, num_users } = await c.command("presence_stats", { channel });
      return { numClients: num_clients, numUsers: num_users };
    },
    async history({ c }, { channel, page: { limit, since, reverse } }) {
      const { publications, offset, epoch } = await c.command("history", { channel, limit, since, reverse });
      return { publications: publications.map((p) => publication(channel, { channel, header: "message", body: p.data, offset: p.offset })), offset, epoch };
    },
    close: ({ c }) => c?.close(),
  });
}
