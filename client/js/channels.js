// The client of a hub, for pages and programs. channels.d.ts is its reference. It
// speaks JSON in the client protocol over a WebSocket, or over a stream with
// requests beside it where no WebSocket gets through.
//
//   Client        connects and comes back, and keeps what waits to be published
//   Subscription  one channel of the server's: its position, and how it resumes
//   Channel       what a page has of a subscription; several may share one
//   Feed          an iteration over a channel's messages
//   Token         a token, and when to ask for another
//   Link          one connection, from its opening to its end

const STEADY = 10_000; // ms; after a connection that has lasted this long, the next attempt is at once
const KEY_LIFE = 240_000; // ms; the server knows a key for 5 minutes
const MOST_QUEUED = 8 << 20; // characters that wait to be published
const MOST_FED = 16 << 20; // characters that wait for an iteration
const MOST_WORK = 32 << 20; // characters that have come and wait for their turn
const MOST_IN_FRAME = 128 << 10, MOST_COMMANDS = 500; // characters and commands of a frame
const SLICE = 25; // ms for which much that comes may keep a page from doing anything else
const PROBE = 3_000; // ms in which a connection has to show that it works, if that is in doubt
const LATE = 2_000; // ms; a timer that is so late was asleep
const UNKNOWN = "the connection was lost before the answer";
const LONGEST = 2 ** 31 - 1; // ms; a longer timer would fire at once

const now = () => performance.now(); // does not jump
const report = globalThis.reportError ?? console.error;
const text = JSON.stringify;

// later runs f as a task of its own. A timer would be late, above all in the background.
const later = globalThis.setImmediate ?? (() => {
  const { port1, port2 } = new MessageChannel(), turns = [];
  port1.onmessage = () => turns.shift()();
  return (f) => { turns.push(f); port2.postMessage(0); };
})();

// backoff is how long to wait before an attempt: not at all before the first, and
// then a random part of a time that doubles.
const backoff = (n, { minDelay, maxDelay }) => n && Math.random() * Math.min(maxDelay, minDelay * 2 ** n);

const person = (i) => ({ id: i.client, user: i.user, info: i.conn_info });

const messageOf = ({ data, offset, tags, info, time }, channel, epoch) => ({
  channel: tags?.channel ?? channel, header: tags?.header ?? "message", body: data, time, offset, epoch: offset && epoch,
  ...(info && { user: info.user, client: info.client, info: info.conn_info }),
});

// isNewer reports whether a message comes after another one. What was read from the
// history may also come live.
const isNewer = (m, last) => !(m.epoch === last?.epoch && m.offset <= last?.offset);

export class ChannelsError extends Error {
  constructor(code, message, more) {
    super(message);
    Object.assign(this, { name: "ChannelsError", code, temporary: false, ...more });
  }
}

const passing = { temporary: true };
const lost = (message, more) => new ChannelsError("lost", message, more);
const late = () => new ChannelsError("timeout", "there was no answer in time", passing);

export const connect = (options) => new Client(options);

// check throws at what is none of the names: a typo would do nothing, and say nothing.
const check = (name, names) => {
  if (!names.includes(name)) throw new TypeError(`${name} is none of ${names}`);
};

class Emitter {
  #all = {};

  on(event, f) {
    check(event, ["message", "reset", "presence", "state", "error", "subscription"]);
    const one = { f };
    (this.#all[event] ??= new Set()).add(one);
    return () => { this.#all[event].delete(one); };
  }

  // _emit calls the listeners. It reports one that throws, and calls the others.
  _emit(event, ...values) {
    for (const { f } of [...this.#all[event] ?? []]) {
      try { f(...values); } catch (e) { report(e); }
    }
  }

  _hears(event) { return this.#all[event]?.size > 0; }

  _set(state, why) {
    if (this.state === "closed") return;
    Object.assign(this, { state, why });
    this._emit("state", state, why);
  }
}

class Client extends Emitter {
  state = "connecting";
  #o;
  #base;
  #token;
  #link; // the connection, or the last attempt at one
  #trial; // an attempt at a WebSocket beside a stream
  #subs = new Map(); // by channel
  #queue = new Map(); // what is to be published, by key, in order
  #queued = 0; // characters
  #keyless = new Set(); // channels without a history, which take no keys
  #asked = new Set(); // commands without an answer
  #tries = 0; // in a row, without a connection that has lasted
  #misses = 0; // the same of WebSockets only
  #proven = false; // whether a WebSocket has ever worked
  #tried; // when a WebSocket was tried last
  #period; // ms until a WebSocket is tried again
  #timers = {};
  #deaf = new AbortController(); // ends the listeners

  constructor(options) {
    super();
    const o = this.#o = {
      timeout: 10_000, minDelay: 500, maxDelay: 20_000, maxQueued: 10_000, retryWebSocket: 60_000,
      WebSocket: globalThis.WebSocket, fetch: globalThis.fetch, ...options,
    };
    this.#base = baseOf(o.url);
    this.#token = new Token(o.token, o.timeout);
    this.#period = o.retryWebSocket / 2;
    const page = globalThis.document, wake = () => this.#wake();
    const listen = (on, event, f) => on?.addEventListener?.(event, f, { signal: this.#deaf.signal });
    listen(globalThis, "online", wake);
    listen(globalThis, "pagehide", (e) => e.persisted && this.#park());
    listen(globalThis, "pageshow", (e) => e.persisted && wake());
    listen(page, "resume", wake);
    listen(page, "visibilitychange", () => page.visibilityState === "visible" && wake());
    queueMicrotask(() => this.state === "connecting" && this.#attempt()); // when the page listens
  }

  channel(name, options = {}) {
    return new Channel(name, options, this);
  }

  async publish(channel, header, body = null, { key = randomKey() } = {}) {
    this.#check();
    const data = text(body) ?? "null", size = data.length + 200;
    if (this.#queue.has(key)) throw new ChannelsError("key", "a message with this key waits");
    if (this.#queue.size >= this.#o.maxQueued || (this.#queued && this.#queued + size > MOST_QUEUED)) {
      throw new ChannelsError("full", "too many messages wait", passing);
    }
    return new Promise((yes, no) => {
      const end = (f) => (v) => {
        clearTimeout(p.timer);
        if (!this.#queue.delete(key)) return;
        this.#queued -= size;
        f(v);
      };
      const p = { channel, header, data, key, tries: 0, done: end(yes), failed: end(no) };
      this.#queue.set(key, p);
      this.#queued += size;
      if (this.state === "live") this.#send(p);
    });
  }

  async call(method, data = null) { return (await this.command("rpc", { method, data })).data; }

  send(data = null) {
    if (this.state !== "live") throw lost("there is no connection", passing);
    this.#link.tell(text({ send: { data } }));
  }

  async command(name, request) {
    this.#check();
    return new Promise((yes, no) => {
      const one = { name, request, done: (result, error) => {
        clearTimeout(timer);
        this.#asked.delete(one);
        if (error) no(error); else yes(result);
      } };
      const timer = setTimeout(() => one.done(null, late()), this.#o.timeout);
      this.#asked.add(one);
      if (this.state === "live") this.#ask(one);
    });
  }

  close() { this.#end(new ChannelsError("closed", "it was closed here")); }

  #check() {
    if (this.state === "closed") throw new ChannelsError("closed", `the client is closed: ${this.why.message}`);
  }

  #ask(one) {
    one.sent = true;
    this.#link.ask(one.name, one.request, one.done);
  }

  #after(name, ms, f) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(f, ms);
  }

  // newLink makes a connection, as a WebSocket or a stream. Only the current one is heard.
  #newLink(ws) {
    const link = new Link(ws, this.#base, this.#o, {
      live: (reply) => this.#live(link, reply),
      push: (push, size) => link === this.#link && this.#push(push, size),
      end: (why) => {
        if (link === this.#link) this.#lost(why);
        else if (link === this.#trial) this.#failed();
      },
    });
    return link;
  }

  async #attempt() {
    clearTimeout(this.#timers.retry);
    const { timeout, transport } = this.#o, ws = !this.#stream(), link = this.#link = this.#newLink(ws);
    if (ws) this.#tried = now();
    this._set("connecting", this.why);
    try {
      await this.#token.get();
    } catch (e) {
      return link.end(e);
    }
    // A WebSocket that opens and stays silent should not keep a page waiting for long.
    link.open(this.#hello(), ws && !transport && !this.#proven ? timeout / 2 : timeout);
  }

  #hello() {
    const ofApp = [...this.#subs.values()].filter((s) => s.ofApp);
    return { token: this.#token.value || undefined, data: this.#o.data, subs: Object.fromEntries(ofApp.map((s) => [s.name, s.resume()])) };
  }

  // stream says whether the next attempt does without a WebSocket. If WebSockets come
  // to nothing, it is every other one; and a stream that has worked is taken again,
  // until it is time to try a WebSocket.
  #stream() {
    const { WebSocket, transport } = this.#o, last = this.#link;
    if (transport || !WebSocket) return transport !== "websocket";
    if (this.#misses < (this.#proven ? 3 : 1)) return false;
    return last.ws || (last.liveAt && now() - this.#tried < this.#period);
  }

  #live(link, reply) {
    const before = this.#link, subs = reply.subs ?? {};
    if (link !== before) { // a WebSocket takes a stream's place
      this.#link = link;
      this.#trial = null;
      before.end();
      this.#fell();
    }
    Object.assign(this, { client: reply.client, transport: link.ws ? "websocket" : "http_stream" });
    if (link.ws) this.#proven = true;
    else if (!this.#o.transport && this.#o.WebSocket) this.#after("upgrade", this.#period, () => this.#upgrade());
    this.#token.renew(reply, async (token) => token && this.command("refresh", { token }), (e) => this._emit("error", e));
    this._set("live");
    if (link !== this.#link || this.state !== "live") return; // a listener has closed it
    for (const [name, sub] of this.#subs) {
      if (!subs[name]) sub.disowned();
      sub.start();
    }
    for (const [name, result] of Object.entries(subs)) this.#ofApp(name, result, true);
    for (const one of [...this.#asked]) this.#ask(one);
    for (const p of [...this.#queue.values()]) this.#send(p);
  }

  // upgrade tries a WebSocket. The stream goes on until that has connected.
  #upgrade() {
    this.#tried = now();
    this.#trial = this.#newLink(true);
    this.#trial.open(this.#hello(), this.#o.timeout);
  }

  #longer() { return Math.min(2 * this.#period, 32 * this.#o.retryWebSocket); }

  #failed() {
    this.#trial = null;
    this.#period = this.#longer();
    this.#after("upgrade", this.#period, () => this.#upgrade());
  }

  // lost deals with the end of the connection, or of an attempt.
  #lost(why) {
    const link = this.#link, steady = link.liveAt && now() - link.liveAt > STEADY;
    if (steady) this.#tries = 0;
    if (link.ws) {
      const bad = !steady && !(why.code >= 3000);
      this.#misses = bad ? this.#misses + 1 : 0;
      this.#period = bad ? this.#longer() : this.#o.retryWebSocket;
    }
    const again = [109, 3005].includes(why.code) && this.#token.forget();
    this.#fell();
    if (why.final && !again) return this.#end(why);
    const wait = Math.max(backoff(this.#tries++, this.#o), why.wait ?? 0);
    this.#after("retry", wait, () => this.#attempt());
    this._set("offline", why);
  }

  // fell stops what belongs to the connection that has ended.
  #fell() {
    for (const t of Object.values(this.#timers)) clearTimeout(t);
    this.#token.stop();
    this.#trial?.end();
    this.#trial = null;
    for (const sub of this.#subs.values()) sub.fell();
    for (const p of [...this.#queue.values()]) if (p.sent && !p.keyed) p.failed(lost(UNKNOWN));
    for (const { name, sent, done } of [...this.#asked]) { // what only reads is asked again
      if (sent && !/^(history|presence)/.test(name)) done(null, lost(UNKNOWN));
    }
  }

  #end(why) {
    if (this.state === "closed") return;
    this.#fell();
    this.#link?.end();
    this.#deaf.abort();
    this._set("closed", why);
    for (const sub of [...this.#subs.values()]) sub.ended(why);
    for (const p of [...this.#queue.values()]) p.failed(why);
    for (const one of [...this.#asked]) one.done(null, why);
  }

  // wake makes sure of the connection, or connects, without waiting.
  #wake() {
    this.#tries = 0;
    if (this.state === "live") this.#link.probe();
    else if (this.state === "offline") this.#attempt();
  }

  // park does without a connection until wake: a page that the user has left may come back.
  #park() {
    this.#link?.end();
    this.#fell();
    this._set("offline", lost("the page was left"));
  }

  // send publishes a message. With a key, it may do so again for some minutes.
  #send(p) {
    const old = Math.max(Date.now() - p.sent, now() - p.at) > KEY_LIFE;
    if (p.sent && (p.tries > 9 || old)) return p.failed(lost(UNKNOWN));
    if (!p.sent) {
      p.keyed = !this.#keyless.has(p.channel) && this.#subs.get(p.channel)?.recoverable !== false;
      Object.assign(p, { sent: Date.now(), at: now() });
    }
    p.tries++;
    const { channel, header, key, data, keyed } = p, link = this.#link;
    const more = text({ channel, header, key: keyed ? key : undefined });
    link.ask("rpc", `{"method":"publish","data":${more.slice(0, -1)},"body":${data}}}`, (result, error) => {
      if (!error) return p.done(result.data);
      if (error.code === 108 && keyed) { // the channel has no history
        this.#keyless.add(channel);
        p.sent = 0;
        return this.#send(p);
      }
      if (p.tries > 9 || !error.temporary || (!keyed && error.code !== 111)) return p.failed(error);
      if (!keyed) p.sent = 0; // it was not published
      p.timer = setTimeout(() => link === this.#link && this.#send(p), backoff(p.tries, this.#o));
    });
  }

  // _sub returns the subscription to a channel.
  _sub(name) {
    if (!this.#subs.has(name)) this.#subs.set(name, new Subscription(name, this, this.#o));
    return this.#subs.get(name);
  }

  _over(sub) { if (this.#subs.get(sub.name) === sub) this.#subs.delete(sub.name); }

  // _link returns the connection if it is live.
  get _link() { return this.state === "live" ? this.#link : undefined; }

  #ofApp(name, result, connecting) {
    const sub = this._sub(name);
    sub.ofApp = true;
    sub.begun(result, connecting && sub.at);
  }

  #push(push, size) {
    const { channel, pub, join, leave } = push, sub = this.#subs.get(channel);
    if (push.subscribe) this.#ofApp(channel, push.subscribe);
    else if (!sub?.live) return; // it is about a subscription that is over
    else if (pub) sub.publication(pub, size, push.only);
    else if (join) sub.tell("presence", { channel, event: "join", member: person(join.info) });
    else if (leave) sub.tell("presence", { channel, event: "leave", member: person(leave.info) });
    else if (push.unsubscribe) sub.dropped(push.unsubscribe);
  }
}

// baseOf is where the hub is mounted, with a slash at the end.
function baseOf(url = /[/]channels.js([?]|$)/.test(import.meta.url) ? new URL(".", import.meta.url) : "/") {
  const base = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  if (!/^(http|ws)/.test(base.protocol)) throw new TypeError("connect needs a url");
  base.protocol = base.protocol.replace("ws", "http");
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return base;
}

// placeOf is the position of a message, or one that may be text.
const placeOf = (at) => {
  const [, epoch = at?.epoch, offset = at?.offset] = /(.*):(.*)/.exec(at) ?? [];
  return at && { epoch, offset: +offset };
};

const randomKey = () => crypto.getRandomValues(new Uint32Array(4)).join("-"); // also without TLS, unlike randomUUID

class Subscription {
  channels = new Set();
  live = false;
  ofApp = false; // whether the app has asked for it
  recoverable; // whether the channel keeps a history, once that is known
  at = null; // the position
  #o;
  #client;
  #asked = false;
  #begun = false; // whether it has ever been live
  #liveAt;
  #cut = false; // whether it was since
  #joins; // whether it is told who joins and leaves
  #first; // the channel whose options it has begun with
  #token;
  #tries = 0;
  #retry;

  constructor(name, client, options) {
    this.name = name;
    this.#client = client;
    this.#o = options;
  }

  join(channel) {
    const { token } = channel.options;
    this.channels.add(channel);
    if (token) this.#token ??= new Token(token, this.#o.timeout);
    if (!this.live) {
      channel._set("subscribing");
      queueMicrotask(() => this.start()); // with what else the page asks for in one go
    } else {
      if (channel.state === "idle") queueMicrotask(() => this.live && channel._set("live", { recoverable: this.recoverable, ...this.at }));
      channel._begin(this.at, true);
      this.#again();
    }
  }

  leave(channel) {
    if (!this.channels.delete(channel) || this.channels.size || this.ofApp) return;
    if (this.live || this.#asked) this.#client._link?.ask("unsubscribe", { channel: this.name });
    this.ended();
  }

  // resume says from where to go on.
  resume() { return this.at ? { recover: true, ...this.at } : {}; }

  async start() {
    const link = this.#client._link;
    if (!link || this.live || this.#asked || this.ofApp || !this.channels.size) return;
    this.#asked = true;
    clearTimeout(this.#retry);
    if (!this.#begun) this.#first = [...this.channels].find((c) => c._wants);
    const { last, since } = this.#first?.options ?? {};
    try {
      if (this.#token) await this.#token.get(this.name);
    } catch (e) {
      return this.#client._link === link && this.#refused(e, true);
    }
    if (this.#client._link !== link || !this.channels.size) return;
    this.#joins = [...this.channels].some((c) => c._hears("presence"));
    const from = this.at ? this.resume() : since ? { recover: true, ...since } : last && { data: { last } };
    link.ask("subscribe", { channel: this.name, token: this.#token?.value, join_leave: this.#joins, ...from }, (result, error) => {
      if (!this.channels.size || error?.code === 105) return; // 105: the app has subscribed it, and its push has come or will
      this.#asked = false;
      if (error) this.#refused(error, error.temporary);
      else this.begun(result, from?.recover);
    });
  }

  // again subscribes anew if somebody wants to be told who joins and leaves, and nobody did.
  #again() {
    if (this.ofApp || this.#joins || ![...this.channels].some((c) => c._hears("presence"))) return;
    this.#client._link?.ask("unsubscribe", { channel: this.name });
    this.live = false;
    this.start();
  }

  #refused(error, temporary) {
    this.#asked = false;
    if (error.code === 109 && this.#token?.forget()) this.#later(this.#tries++);
    else if (temporary) this.#later(++this.#tries);
    else this.ended(error);
  }

  #later(tries) { this.#retry = setTimeout(() => this.start(), backoff(tries, this.#o)); }

  // begun takes the reply to a subscribe, or what the app has asked for; resumed
  // says that it had a position.
  begun(result, resumed) {
    const { recoverable = false, recovered = false, epoch = "", offset = 0, publications = [] } = result, { name } = this, link = this.#client._link;
    const reason = !recoverable ? "no_history" : this.at && this.at.epoch !== epoch ? "epoch" : "trimmed";
    const missed = resumed ? !recovered : this.#cut && !recoverable, only = this.#begun ? null : this.#first;
    Object.assign(this, { live: true, recoverable, at: recoverable ? { epoch, offset: publications.length ? publications[0].offset - 1 : offset } : null });
    this.#begun = true;
    this.#cut = false;
    this.#liveAt = now();
    this.#token?.renew(result, (token) => this.#client.command("sub_refresh", { channel: name, token }), (e) => this.#client._emit("error", e), name);
    link?.put(publications.map((pub) => ({ push: { channel: name, pub, only } }))); // they come next
    this.#say("live", { recovered: resumed ? recovered : undefined, recoverable, epoch, offset });
    const reset = missed && { channel: name, reason, ...this.at };
    if (reset && this.ofApp) this.#client._emit("reset", reset);
    for (const c of this.channels) c._begin(this.at, c !== only, reset);
    this.#again();
  }

  // disowned ends what the app had asked for, and no longer does.
  disowned() {
    if (!this.ofApp) return;
    this.ofApp = false;
    if (!this.channels.size) this.ended();
  }

  // dropped is the server's end of the subscription.
  dropped({ code, reason }) {
    if (this.ofApp || code < 2500) return this.ended(new ChannelsError(code, reason));
    this.fell();
    if (code === 2501) this.#token?.forget();
    if (now() - this.#liveAt > STEADY) this.#tries = 0;
    this.#later(this.#tries++);
  }

  // fell notes that it has ended, or its connection.
  fell() {
    if (this.live) for (const c of this.channels) c._set("subscribing");
    this.#cut ||= this.live;
    this.live = this.#asked = false;
    this.#token?.stop();
    clearTimeout(this.#retry);
  }

  ended(why) {
    this.#say("closed", why);
    for (const c of this.channels) c._over(why);
    this.channels.clear();
    this.fell();
    this.#client._over(this);
  }

  publication(pub, size, only) {
    const { at } = this, m = messageOf(pub, this.name, at?.epoch);
    if (at && m.offset <= at.offset) return; // it has come already
    if (at && m.offset) at.offset = m.offset; // one that stayed on its replica has none
    if (only) only._take(m, size);
    else this.tell("message", m, size);
  }

  #say(state, why) {
    if (this.ofApp) this.#client._emit("subscription", this.name, state, why);
    for (const c of this.channels) c._set(state, why);
  }

  tell(event, value, size) {
    if (this.ofApp) this.#client._emit(event, value);
    for (const c of this.channels) {
      if (event === "message") c._take(value, size);
      else c._emit(event, value);
    }
  }
}

class Channel extends Emitter {
  state = "idle";
  #client;
  #sub;
  #begun = false;
  _behind = false; // whether it still reads the history
  #last; // the newest message that it has told
  #feeds = new Set();

  constructor(name, options, client) {
    super();
    for (const option in options) check(option, ["last", "since", "token"]);
    Object.assign(this, { name, options: { ...options, since: placeOf(options.since) } });
    this.#client = client;
  }

  on(event, f) {
    const off = super.on(event, f);
    if (event === "message" || event === "presence") this.#join();
    return off;
  }

  [Symbol.asyncIterator]() {
    const feed = new Feed(this, () => this.#feeds.delete(feed));
    this.#feeds.add(feed);
    this.#join();
    if (this.state === "closed") feed.end(this.why);
    return feed;
  }

  publish(header, body, options) { return this.#client.publish(this.name, header, body, options); }

  async members() {
    const { presence } = await this.#client.command("presence", { channel: this.name });
    return Object.values(presence).map(person);
  }

  async history({ limit = 100, before, since } = {}) {
    const { publications, epoch } = await this.#client.command("history", {
      channel: this.name, limit, reverse: !since, since: placeOf(before ?? since),
    });
    const all = publications.map((p) => messageOf(p, this.name, epoch));
    return since ? all : all.reverse();
  }

  close() {
    this.#sub?.leave(this);
    this._over();
  }

  #join() {
    if (this.state === "closed") return;
    if (this.#client.state === "closed") return this._over(this.#client.why);
    this.#sub ??= this.#client._sub(this.name);
    this.#sub.join(this);
  }

  // _over ends the channel. Without a why, or after close, iterations simply end. A
  // refusal that nobody would hear of is logged.
  _over(why) {
    const refused = why?.code !== "closed" && why;
    if (refused && !this.#feeds.size && !this._hears("state")) console.warn(this.name, refused);
    this._set("closed", why);
    for (const f of [...this.#feeds]) f.end(refused);
  }

  // _wants is whether somebody takes the messages.
  get _wants() { return this._hears("message") || this.#feeds.size > 0; }

  // _begin begins with what the options say, once somebody takes it. The subscription
  // does not bring it if it was live before, or has begun with another channel's options.
  _begin(at, late, reset) {
    const { last, since } = this.options;
    if (this.#begun || !this._wants) return reset && this._emit("reset", reset);
    this.#begun = true;
    if (late && at && (last || since)) this.#catchUp(since ? { since } : { limit: last });
  }

  // catchUp reads the history up to what comes live.
  async #catchUp(query) {
    for (this._behind = true; this._behind && this.state !== "closed"; query = { since: this.#last }) await this._read(query, this);
  }

  // _read gives a reader a part of the history, and says at once whether more has come since.
  async _read(query, reader) {
    try {
      const all = await this.history({ limit: 1000, ...query }), { epoch, offset } = all.at(-1) ?? {}, { at } = this.#sub;
      for (const m of all) reader._add(m, 0);
      reader._behind = offset && at && (at.epoch !== epoch || at.offset > offset);
    } catch (e) {
      reader._behind = false;
      if (this.state !== "closed") this._reset(e.code === 112 ? "trimmed" : "failed");
    }
  }

  _reset(reason) { this._emit("reset", { channel: this.name, reason, ...this.#sub.at }); }

  _take(m, size) { if (!this._behind && this.state !== "closed" && isNewer(m, this.#last)) this._add(m, size); }

  _add(m, size) {
    if (m.offset) this.#last = m;
    this._emit("message", m);
    for (const f of this.#feeds) f.put(m, size);
  }
}

// A Feed keeps what its loop has not taken yet. If that becomes too much, it reads the
// rest from the history, once the loop has come so far.
class Feed {
  #channel;
  #gone; // to be called at the end
  #in = []; // [message, characters]
  #out = []; // what came before that, the newest first
  #size = 0; // characters
  #calls = []; // of next, without an answer
  #last; // the newest message that it was given, if the channel has a history
  _behind = false; // whether it has to read the history
  #reading;
  #over = false;
  #why;

  constructor(channel, gone) {
    this.#channel = channel;
    this.#gone = gone;
  }

  put(m, size) {
    if (this._behind || !isNewer(m, this.#last)) return;
    if (this.#size > MOST_FED) {
      if (this.#last) {
        this._behind = true;
        return;
      }
      this.#drop();
      this.#channel._reset("slow");
    }
    this._add(m, size);
  }

  _add(m, size) {
    if (m.offset) this.#last = m;
    if (this.#calls.length) return this.#calls.shift().yes({ value: m, done: false });
    this.#size += size + 200;
    this.#in.push([m, size + 200]);
  }

  #drop() {
    this.#in = [];
    this.#out = [];
    this.#size = 0;
  }

  async next() {
    for (;;) {
      if (!this.#out.length) [this.#out, this.#in] = [this.#in.reverse(), []];
      if (this.#out.length) {
        const [value, size] = this.#out.pop();
        this.#size -= size;
        return { value, done: false };
      }
      if (this.#over) {
        const why = this.#why;
        this.#why = undefined; // it is told once
        if (why) throw why;
        return { value: undefined, done: true };
      }
      if (!this._behind) return new Promise((yes, no) => this.#calls.push({ yes, no }));
      await (this.#reading ??= this.#read());
    }
  }

  async #read() {
    await this.#channel._read({ since: this.#last }, this);
    this.#reading = undefined;
  }

  async return(value) {
    this.end();
    return { value, done: true };
  }

  // end ends the loop: at once, or after what it has not taken with a why.
  end(why) {
    if (this.#over) return;
    this.#over = true;
    this.#gone();
    if (!why) this.#drop();
    else if (!this.#calls.length) this.#why = why;
    for (const { yes, no } of this.#calls.splice(0)) {
      if (why) no(why);
      else yes({ value: undefined, done: true });
    }
  }

  [Symbol.asyncIterator]() { return this; }
}

class Token {
  value;
  #source; // the function that returns tokens, if they are no string
  #ms;
  #bound; // of the function's time
  #timer;

  constructor(source, ms) {
    if (typeof source === "function") this.#source = source;
    else this.value = source;
    this.#ms = ms;
  }

  // get makes sure that there is a value.
  async get(channel) { if (this.#source && !this.value) this.value = await this.#ask(channel); }

  // forget reports whether another token may be had for the one that has ended.
  forget() {
    if (this.#source) this.value = undefined;
    return !!this.#source;
  }

  async #ask(channel) {
    try {
      return await new Promise((yes, no) => {
        this.#bound = setTimeout(() => no(late()), this.#ms);
        Promise.resolve(this.#source(channel)).then(yes, no);
      });
    } catch (cause) {
      throw new ChannelsError("token", `the token function has failed: ${cause?.message ?? cause}`, { ...passing, cause });
    } finally {
      clearTimeout(this.#bound);
    }
  }

  // renew shows another token before this one ends, until stop. The ttl is in seconds.
  renew({ expires, ttl }, show, failed, channel) {
    this.stop();
    if (!expires || !this.#source) return;
    const ms = Math.min(LONGEST, Math.max(ttl * 800, (ttl - 60 - Math.random() * 30) * 1000));
    const turn = this.#timer = setTimeout(async () => {
      let next = { expires, ttl: 5 + Math.random() * 5 };
      try {
        const token = await this.#ask(channel);
        if (turn !== this.#timer) return;
        next = await show(token) ?? {};
        this.value = token;
      } catch (e) {
        if (turn === this.#timer) failed(e);
      }
      if (turn === this.#timer) this.renew(next, show, failed, channel);
    }, ms);
  }

  stop() {
    clearTimeout(this.#bound);
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}

// A Link calls on.live with the reply to connect, on.push, and at last on.end. What is
// asked and has no answer then gets none.
class Link {
  liveAt; // when it was connected
  #base;
  #o;
  #on;
  #wire; // what carries it
  #id = 0; // of the last command
  #answers = new Map(); // by id, with the times: [name, answer, time]
  #lines = []; // for the next frame
  #sending = false;
  #work = []; // what has come: lines, pushes, and an error for the end
  #next = 0; // of work
  #held = 0; // characters of work
  #turn = false; // whether a turn at work is due
  #heard; // when something came
  #patience; // ms without a sign of life
  #timer;
  #probing = false;
  #over = false;

  constructor(ws, base, o, on) {
    this.ws = ws;
    this.#base = base;
    this.#o = o;
    this.#on = on;
  }

  open(hello, ms) {
    if (this.#over) return;
    this.#heard = now();
    this.#patience = ms;
    this.#expect(ms);
    const first = this.#line("connect", hello, (result, error) => {
      if (error) return this.end(Object.assign(error, { final: !error.temporary }));
      const period = (result.ping || LONGEST) * 1000;
      this.#patience = period + Math.min(period, 10_000);
      this.liveAt = now();
      this.#wire.session = result;
      this.#on.live(result);
    });
    try {
      this.#wire = (this.ws ? socket : stream)(this.#base, this.#o, first, (all) => this.#take(all), (why) => {
        this.#work.push(why);
        this.#run();
      });
    } catch (e) {
      this.end(e);
    }
  }

  end(why) {
    if (this.#over) return;
    this.#over = true;
    clearTimeout(this.#timer);
    this.#wire?.close();
    if (why) this.#on.end(why);
  }

  // ask sends a command, whose request may be JSON already.
  ask(name, request, answer = () => {}) { this.tell(this.#line(name, request, answer)); }

  #line(name, request, answer) {
    this.#answers.set(++this.#id, [name, answer, now()]);
    return `{"id":${this.#id},"${name}":${typeof request === "string" ? request : text(request)}}`;
  }

  // tell sends a line, in one frame with what else is said in one go.
  async tell(line) {
    this.#lines.push(line);
    if (this.#sending) return;
    this.#sending = true;
    await null;
    while (this.#lines.length && !this.#over) {
      let n = 0, size = 0;
      while (n < Math.min(this.#lines.length, MOST_COMMANDS) && (!n || size + this.#lines[n].length < MOST_IN_FRAME)) size += this.#lines[n++].length;
      try {
        await this.#wire.send(this.#lines.splice(0, n).join("\n"));
      } catch (e) {
        this.end(e);
      }
    }
    this.#sending = false;
  }

  // probe has the connection end soon if nothing comes on it.
  probe() {
    if (this.#probing) return;
    this.#probing = true;
    const before = this.#heard;
    this.ask("unsubscribe", { channel: "" }); // which does nothing
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#probing = false;
      if (this.#heard > before) this.#expect(this.#patience);
      else this.#silent();
    }, PROBE);
  }

  #silent() { this.end(lost("the server is silent")); }

  // expect ends the connection if nothing comes for too long, or a command gets no answer.
  #expect(ms) {
    const due = now() + Math.min(ms, this.#o.timeout);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const t = now(), left = this.#heard + this.#patience - t, [oldest] = this.#answers.values();
      if (this.liveAt && t - due > LATE) this.probe(); // what has come may wait behind this timer
      else if (left <= 0 || (this.liveAt && oldest && t - oldest[2] > 3 * this.#o.timeout)) this.#silent();
      else this.#expect(left);
    }, due - now());
  }

  // put has pushes handled next.
  put(pushes) { this.#work.splice(this.#next, 0, ...pushes); }

  #take(all) {
    this.#heard = now();
    this.#held += all.length;
    for (const line of all.split("\n")) if (line) this.#work.push(line);
    if (!this.#turn || this.#held > MOST_WORK) this.#run();
  }

  // run handles what has come, and lets the page do other things in between. If too much
  // waits, it does not: then the browser reads no more, and the server notices.
  #run() {
    const until = now() + SLICE;
    while (this.#next < this.#work.length && !this.#over) {
      const one = this.#work[this.#next++];
      if (typeof one === "string") this.#held -= one.length;
      this.#handle(one);
      if (now() > until && this.#held < MOST_WORK) {
        if (!this.#turn) later(() => { this.#turn = false; this.#run(); });
        this.#turn = true;
        if (this.#next > 10_000) this.#work.splice(0, this.#next), this.#next = 0;
        return;
      }
    }
    this.#work = [];
    this.#next = this.#held = 0;
  }

  #handle(one) {
    if (one instanceof Error) return this.end(one);
    let reply = one;
    try {
      if (typeof one === "string") reply = JSON.parse(one);
    } catch (e) {
      return this.end(e);
    }
    const { id, push, error } = reply;
    if (push?.disconnect) return this.end(closing(push.disconnect));
    if (push) return this.#on.push(push, one.length ?? 0);
    if (!id) return this.tell("{}"); // a ping
    const [name, answer] = this.#answers.get(id) ?? [];
    this.#answers.delete(id);
    answer?.(reply[name] ?? {}, error && new ChannelsError(error.code, error.message, error));
  }
}

// closing says why a connection has ended, and whether for good.
const closing = ({ code, reason }) => new ChannelsError(code, reason || `the connection was lost (${code})`, {
  final: code >= 3500 && code % 1000 >= 500,
});

// socket and stream carry a Link. They send its first line, and call take with whole
// lines, and at last over with a reason.

function socket(base, { WebSocket }, first, take, over) {
  const ws = new WebSocket(String(new URL("connection/websocket?lines=many", base)).replace("http", "ws"));
  ws.onopen = () => ws.send(first);
  ws.onmessage = (e) => take(e.data);
  ws.onclose = (e) => over(closing(e));
  ws.onerror = () => {}; // onclose follows
  return {
    send: (frame) => ws.send(frame),
    close() {
      ws.onopen = ws.onmessage = ws.onclose = null;
      ws.close();
    },
  };
}

function stream(base, { fetch, credentials, timeout }, first, take, over) {
  const stop = new AbortController();
  const post = async (path, body, signal) => {
    const r = await fetch(new URL(path, base), { method: "POST", body, signal, credentials, headers: { "Content-Type": "application/json" } });
    if (r.ok) return r;
    const said = (await r.json().catch(() => null))?.error;
    throw new ChannelsError(r.status, said?.message ?? `the server answers ${r.status}`, {
      final: said && [401, 403].includes(r.status), wait: Math.min(1000 * parseInt(r.headers.get("Retry-After")) || 0, 300_000),
    });
  };
  const read = async () => {
    const reader = (await post("connection/http_stream", first, stop.signal)).body.getReader(), decoder = new TextDecoder();
    for (let rest = "", r; !(r = await reader.read()).done;) {
      const piece = decoder.decode(r.value, { stream: true }), end = piece.lastIndexOf("\n");
      if (end >= 0) take(rest + piece.slice(0, end));
      rest = end >= 0 ? piece.slice(end + 1) : rest + piece;
    }
    throw lost("the stream has ended");
  };
  read().catch(over);
  return {
    async send(data) {
      const timer = setTimeout(() => over(late()), timeout);
      try {
        const { session, node } = this.session;
        await post("emulation", text({ session, node, data }), stop.signal);
      } finally {
        clearTimeout(timer);
      }
    },
    close: () => stop.abort(),
  };
}
