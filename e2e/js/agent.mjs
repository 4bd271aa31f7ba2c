// The agent of a Go test: it drives clients of the JavaScript SDK, in Node or in a
// page. The test sends commands through a WebSocket, one in each message, and the
// agent answers each and reports the clients' events. What is published and answered
// is text in JSON on this side, and what the SDK's format wants on the other.
export function serve(socket, { Centrifuge, protobuf, options }) {
  const bytes = new TextEncoder();
  const text = new TextDecoder();
  const encode = (data) => (protobuf ? bytes.encode(data) : JSON.parse(data));
  const decode = (data) => {
    if (data === undefined) return "";
    return protobuf ? text.decode(data) : JSON.stringify(data);
  };

  const person = (info) => info && { user: info.user, client: info.client, connInfo: decode(info.connInfo) };
  const publication = ({ channel, data, offset, tags, info }) => ({
    type: "publication", channel, data: decode(data), offset: Number(offset ?? 0), tags, info: person(info),
  });
  const subscribed = ({ channel, wasRecovering, recovered, recoverable, streamPosition }) => ({
    type: "subscribed", channel, wasRecovering, recovered, recoverable,
    offset: Number(streamPosition?.offset ?? 0), epoch: streamPosition?.epoch,
  });

  // source gives the SDK a token of the list for each time that it asks.
  const source = (report, list, channel) => list?.length ? async () => {
    report({ type: "token", channel });
    if (!list.length) throw new Centrifuge.UnauthorizedError("there is no other token");
    return list.shift();
  } : null;

  const open = (report, { endpoints, emulation, token, tokens, pingDelay, timeout, minDelay, maxDelay }) => {
    const client = new Centrifuge(endpoints.length === 1 && endpoints[0].transport === "websocket" ? endpoints[0].endpoint : endpoints, {
      ...options, token, getToken: source(report, tokens), emulationEndpoint: emulation,
      minReconnectDelay: minDelay, maxReconnectDelay: maxDelay, timeout, ...(pingDelay && { maxServerPingDelay: pingDelay }),
    });
    client.delays = { minResubscribeDelay: minDelay, maxResubscribeDelay: maxDelay };
    client.report = report;
    client.on("connecting", ({ code, reason }) => report({ type: "connecting", code, reason }));
    client.on("connected", (e) => report({ type: "connected", client: e.client, transport: e.transport, data: decode(e.data) }));
    client.on("disconnected", ({ code, reason }) => report({ type: "disconnected", code, reason }));
    client.on("error", ({ type, error }) => report({ type: "error", code: error.code, reason: `${type}: ${error.message}` }));
    client.on("message", ({ data }) => report({ type: "message", data: decode(data) }));
    client.on("subscribed", (e) => report({ ...subscribed(e), server: true }));
    client.on("unsubscribed", ({ channel }) => report({ type: "unsubscribed", channel, server: true }));
    client.on("publication", (e) => report({ ...publication(e), server: true }));
    return client;
  };

  const subscribe = (client, channel, { token, tokens, data, joinLeave }) => {
    const { report } = client;
    let sub = client.getSubscription(channel);
    if (!sub) {
      sub = client.newSubscription(channel, {
        ...client.delays, token, getToken: source(report, tokens, channel), joinLeave, ...(data && { data: encode(data) }),
      });
      sub.on("subscribing", ({ code, reason }) => report({ type: "subscribing", channel, code, reason }));
      sub.on("subscribed", (e) => report(subscribed(e)));
      sub.on("unsubscribed", ({ code, reason }) => report({ type: "unsubscribed", channel, code, reason }));
      sub.on("error", ({ type, error }) => report({ type: "error", channel, code: error.code, reason: `${type}: ${error.message}` }));
      sub.on("publication", (e) => report(publication(e)));
      sub.on("join", ({ info }) => report({ type: "join", channel, info: person(info) }));
      sub.on("leave", ({ info }) => report({ type: "leave", channel, info: person(info) }));
    }
    sub.subscribe();
  };

  const commands = {
    connect: (client) => client.connect(),
    disconnect: (client) => client.disconnect(),
    subscribe: (client, { channel, interest }) => subscribe(client, channel, interest),
    unsubscribe: (client, { channel }) => client.getSubscription(channel)?.unsubscribe(),
    publish: (client, { channel, data }) => client.publish(channel, encode(data)),
    rpc: async (client, { method, data }) => decode((await client.rpc(method, encode(data))).data),
    send: (client, { data }) => client.send(encode(data)),
    presence: async (client, { channel }) => {
      const { clients: all } = await client.presence(channel);
      return Object.fromEntries(Object.entries(all).map(([id, info]) => [id, person(info)]));
    },
    presenceStats: (client, { channel }) => client.presenceStats(channel),
    history: async (client, { channel, page: { limit, since, reverse } }) => {
      const { publications, offset, epoch } = await client.history(channel, { limit, reverse, ...(since && { since }) });
      return { publications: publications.map((p) => publication({ channel, ...p })), offset: Number(offset), epoch };
    },
    close: (client) => client.disconnect(),
  };

  answer(socket, open, commands);
}

// answer opens clients, and carries out commands for them until the socket ends.
export function answer(socket, open, commands) {
  const clients = new Map();
  const tell = (message) => socket.send(JSON.stringify(message));
  const run = async ({ id, client, command, ...parameters }) => {
    try {
      if (command === "open") {
        clients.set(client, open((event) => tell({ client, event }), parameters));
        return tell({ id, result: null });
      }
      const result = await commands[command](clients.get(client), parameters);
      if (command === "close") clients.delete(client);
      tell({ id, result: result ?? null });
    } catch (error) {
      tell({ id, error: { code: Number(error.code) || 0, message: error.message ?? String(error) } });
    }
  };
  socket.onmessage = ({ data }) => run(JSON.parse(data));
}
