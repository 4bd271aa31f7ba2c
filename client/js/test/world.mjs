// What the tests put in the place of the world around the module: a clock, a page, and
// a small hub. Nothing waits for real time.
import { setImmediate as turn } from "node:timers";

// settled waits until everything that waits for nothing else is done.
export const settled = async () => { for (let i = 0; i < 10; i++) await new Promise((f) => turn(f)); };

// clock is the time of the module. It stands still until it is advanced.
export const clock = {
  now: 1000,
  timers: new Map(),
  async advance(ms) {
    for (const until = this.now + ms; ;) {
      await settled();
      const next = [...this.timers].sort(([, a], [, b]) => a.at - b.at)[0];
      if (!next || next[1].at > until) return void (this.now = until);
      this.timers.delete(next[0]);
      this.now = Math.max(this.now, next[1].at);
      next[1].f();
    }
  },
};
let timers = 0;
globalThis.setTimeout = (f, ms = 0) => {
  if (!(ms >= 0 && ms < 2 ** 31)) throw new Error(`a timer of ${ms} ms`);
  clock.timers.set(++timers, { f, at: clock.now + ms });
  return timers;
};
globalThis.clearTimeout = (id) => { clock.timers.delete(id); };
performance.now = () => clock.now;
Date.now = () => 1.7e12 + clock.now;

// luck is what Math.random returns.
export const luck = { value: 0.5 };
Math.random = () => luck.value;

// page is the window and the document.
export const page = {
  listeners: 0,
  reported: [],
  target: new EventTarget(),
  fire(type, more) { this.target.dispatchEvent(Object.assign(new Event(type), more)); },
};
const listen = (type, f, { signal }) => {
  page.listeners++;
  signal.addEventListener("abort", () => page.listeners--);
  page.target.addEventListener(type, f, { signal });
};
globalThis.addEventListener = listen;
globalThis.document = { addEventListener: listen, visibilityState: "visible", baseURI: "http://app.example/" };
globalThis.reportError = (e) => page.reported.push(e.message);

// A Hub answers what clients send, as far as the tests need it. Channels that begin with
// "h" keep a history.
export class Hub {
  sockets = []; // all there ever were
  posts = []; // requests for a stream, with what they were answered
  commands = []; // all that have come
  channels = {};
  mode = "well"; // "refuses", "silent": what becomes of a new WebSocket
  streams = "well"; // the same of streams
  ping = 25;
  answer = () => {}; // may answer a command itself: {reply}, or null for nothing

  constructor() {
    const hub = this;
    this.WebSocket = class {
      state = "connecting";
      constructor(url) {
        Object.assign(this, { url, at: clock.now, subs: new Map(), said: [] });
        hub.sockets.push(this);
        queueMicrotask(() => {
          if (this.state === "closed") return;
          if (hub.mode === "refuses") return this.drop(1006, "");
          this.state = "open";
          this.onopen?.();
        });
      }
      send(frame) { hub.take(this, frame); }
      close() { this.state = "closed"; }
      push(...lines) { if (this.state !== "closed") this.onmessage?.({ data: lines.map((l) => (typeof l === "string" ? l : JSON.stringify(l))).join("\n") }); }
      drop(code, reason = "") {
        this.state = "closed";
        this.onclose?.({ code, reason });
      }
    };
    this.fetch = async (url, { body, signal }) => {
      if (this.streams === "refuses") throw new TypeError("fetch failed");
      if (this.streams !== "well") return new Response(JSON.stringify({ error: { code: "x", message: "no" } }), { status: this.streams, headers: { "Retry-After": "7" } });
      if (url.pathname.endsWith("/emulation")) {
        const { session, data } = JSON.parse(body);
        this.take(this.posts[session], data);
        return new Response(null, { status: 204 });
      }
      const link = { state: "open", subs: new Map(), said: [], session: String(this.posts.length) };
      this.posts.push(link);
      signal.addEventListener("abort", () => { if (link.state === "open") link.out.error(signal.reason); link.state = "closed"; });
      const stream = new ReadableStream({ start: (out) => { link.out = out; } });
      link.push = (...lines) => link.state === "open" && link.out.enqueue(new TextEncoder().encode(lines.map((l) => JSON.stringify(l) + "\n").join("")));
      link.drop = () => { link.state = "closed"; link.out.close(); };
      queueMicrotask(() => this.take(link, body));
      return new Response(stream);
    };
  }

  get last() { return this.sockets.at(-1); }

  take(link, frame) {
    link.said.push(frame);
    for (const line of frame.split("\n")) {
      const c = JSON.parse(line);
      this.commands.push(c);
      if (this.mode === "silent" && link instanceof this.WebSocket) continue;
      const own = this.answer(c, link), reply = own === undefined ? this.reply(c, link) : own;
      if (reply) link.push({ id: c.id, ...reply });
    }
  }

  channel(name) { return (this.channels[name] ??= { epoch: "e1", messages: [], first: 1 }); }

  reply(c, link) {
    if (!c.id) return;
    if (c.connect) return { connect: { client: "c" + this.commands.length, ping: this.ping, pong: true, session: link.session, node: "n" } };
    if (c.subscribe) {
      const { channel, recover, epoch, offset, data } = c.subscribe;
      link.subs.set(channel, true);
      if (channel[0] !== "h") return { subscribe: {} };
      const ch = this.channel(channel), top = ch.messages.length, result = { recoverable: true, positioned: true, epoch: ch.epoch, offset: top };
      if (recover && epoch === ch.epoch && offset >= ch.first - 1) Object.assign(result, { recovered: true, publications: ch.messages.slice(offset) });
      if (data) result.publications = ch.messages.slice(-data.last);
      return { subscribe: result };
    }
    if (c.unsubscribe) return link.subs.delete(c.unsubscribe.channel), { unsubscribe: {} };
    if (c.rpc?.method === "publish") {
      const { channel, header, body, key } = c.rpc.data;
      if (channel[0] !== "h") return key ? { error: { code: 108, message: "no history" } } : (this.say(channel, body, header), { rpc: { data: {} } });
      const ch = this.channel(channel), seen = ch.messages.find((m) => key && m.key === key);
      const m = seen ?? this.say(channel, body, header, key);
      return { rpc: { data: { offset: m.offset, epoch: ch.epoch, ...(seen && { duplicate: true }) } } };
    }
    if (c.history) {
      const { channel, limit, since, reverse } = c.history, ch = this.channel(channel);
      if (since && (since.epoch !== ch.epoch || (!reverse && since.offset < ch.first - 1))) return { error: { code: 112, message: "unrecoverable" } };
      const all = reverse ? ch.messages.filter((m) => !since || m.offset < since.offset).reverse() : ch.messages.filter((m) => !since || m.offset > since.offset);
      return { history: { publications: all.slice(0, limit), epoch: ch.epoch, offset: ch.messages.length } };
    }
    if (c.refresh) return { refresh: { expires: true, ttl: 600 } };
    if (c.sub_refresh) return { sub_refresh: {} };
    if (c.presence) return { presence: { presence: { a: { client: "a", user: "ann", conn_info: 1 } } } };
    return { error: { code: 104, message: "no method" } };
  }

  // say publishes a message, and pushes it to all that have subscribed.
  say(channel, data, header = "message", key) {
    const m = { data, key, ...(header !== "message" && { tags: { header } }) };
    if (channel[0] === "h") m.offset = this.channel(channel).messages.push(m);
    for (const link of [...this.sockets, ...this.posts]) {
      if (link.state === "open" && link.subs.get(channel)) link.push({ push: { channel, pub: m } });
    }
    return m;
  }

  // asked are the requests of one kind.
  asked(kind) { return this.commands.filter((c) => c[kind]).map((c) => c[kind]); }
}
