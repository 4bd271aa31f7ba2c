// Room is the connection to one room: its history, then new messages, with no
// gap and no duplicate, however often the connection breaks.
//
// It loads the history once and then keeps the position of the last message
// that it has passed on. Each connection asks for the messages after that
// position, and resends those without an answer. The server publishes each key
// only once.

const RETRY_MIN = 500, RETRY_MAX = 10_000; // ms between attempts; grows
const STEADY = 5_000; // ms; a connection that lasts this long resets RETRY
const PATIENCE = 10_000; // ms to wait for an answer from the server
const KEY_LIFE = 4 * 60_000; // ms; the server remembers keys for 5 minutes
const AGAIN = 2_000; // ms before resending a message that was refused for the moment
const PAGE = 50; // messages of history per request

// What the server's error codes mean for the reader of the page. The server's
// own messages are for programs, except those with the code "refused", which
// are this app's.
const SOON = new Set(["store_unavailable", "mesh_unavailable", "rate_limited", "overloaded", "too_many_channels", "internal", "draining", "closed"]);
const ROOM_REFUSED = {
  bad_channel: "No room can have this name: it is too long or has invalid characters.",
  forbidden: "You are not allowed to enter it.",
  bad_origin: "The server does not accept pages from this address.",
  expired: "Your session has expired.",
};
const TEXT_REFUSED = {
  too_large: "it is too long: make it shorter",
  bad_message: "it is too long, or has characters that cannot be sent: change it",
  bad_utf8: "it has characters that cannot be sent: change it",
  forbidden: "you are not allowed to write here",
};

export class Room {
  #user;
  #outbox;
  #on;
  #position = null; // of the last message passed on; null until the history has been
  #held = []; // arrived and not passed on yet: a history, messages
  #members = new Map();
  #moves = null; // joins and leaves while the members are being loaded
  #socket = null;
  #openedAt = Infinity;
  #shut = false; // the last attempt to connect was refused or failed
  #turn = 0; // of connect: an earlier call that still waits gives up
  #attempts = 0;
  #due = null; // when to connect next, if the server has said so
  #timer;
  #ended = new AbortController();

  // outbox is a Map that outlives the Room: key → {text, state, error, sentAt,
  // …}. The state is "waiting" for a connection, "sent", "failed", or "done"
  // until the message itself arrives. sentAt is set while there is no answer. A
  // "failed" entry with refused set would be refused again: its text must change.
  // on has the functions
  //   history(messages, more)  show only these messages; more: there are older
  //                      ones
  //   message(message)   show one more message
  //   outbox()           the outbox has changed
  //   people(members)    these members are connected
  //   state(state, why)  "online", "connecting", "offline", or "refused"
  constructor(name, user, outbox, on) {
    this.name = name;
    this.#user = user;
    this.#outbox = outbox;
    this.#on = on;
    this.#connect();
  }

  close() {
    this.#ended.abort();
    this.#drop();
  }

  // send adds a text to the outbox and sends it once there is a connection.
  send(text) {
    const key = crypto.getRandomValues(new Uint32Array(4)).join("-"); // randomUUID needs HTTPS
    this.#outbox.set(key, { text, state: "waiting" });
    this.#flush();
  }

  // resend sends a failed message again. forget removes it from the outbox.
  resend(key) {
    Object.assign(this.#outbox.get(key), { state: "waiting", error: null });
    this.#flush();
  }

  forget(key) {
    this.#outbox.delete(key);
    this.#on.outbox();
  }

  // wake connects at once instead of waiting.
  wake() {
    if (this.state === "offline" && !this.#ended.signal.aborted) this.#connect();
  }

  // retry tries again after the room was refused.
  retry() {
    if (this.state === "refused") this.#connect();
  }

  // pause closes the connection until wake. A browser may keep a page that the
  // user has left, with its connection, and the user would still be listed.
  pause() {
    if (this.state === "refused") return;
    this.#turn++;
    this.#drop();
    this.#set("offline");
  }

  // older returns messages before an offset, and whether there are more.
  async older(offset) {
    const past = await this.#get(`history?limit=${PAGE}&before=${offset}`);
    if (past.epoch !== this.#position?.epoch) return { messages: [], more: false }; // a reset will follow
    return { messages: past.data, more: past.data.length > 0 && past.data[0].offset > past.first };
  }

  // cut closes the connection. A connection that has outlived its network is
  // dead, but would not notice for minutes.
  cut() {
    this.#lost(this.#socket);
  }

  async #connect() {
    clearTimeout(this.#timer);
    const turn = ++this.#turn;
    this.#set("connecting");
    try {
      if (this.#shut) await this.#knock();
      if (turn === this.#turn && !this.#position) {
        const past = await this.#get(`history?limit=${PAGE}`);
        if (turn === this.#turn) this.#held = [past];
      }
    } catch (err) {
      if (turn !== this.#turn || this.#ended.signal.aborted) return;
      if (err.refused) this.#set("refused", err.message); // retrying would not help
      else this.#retry();
      return;
    }
    if (turn !== this.#turn || this.#ended.signal.aborted) return;
    this.#pass();
    const since = this.#position ?? this.#held[0];
    const url = this.#address();
    url.protocol = url.protocol.replace("http", "ws");
    url.searchParams.set("since", `${since.epoch}:${since.offset}`);
    const socket = this.#socket = new WebSocket(url);
    this.#timer = setTimeout(() => this.#lost(socket), PATIENCE);
    socket.onopen = () => this.#opened();
    socket.onclose = () => this.#lost(socket);
    socket.onmessage = (e) => this.#received(JSON.parse(e.data));
  }

  #address() {
    const url = new URL(`/channel/${encodeURIComponent(this.name)}/`, location.origin);
    url.searchParams.set("name", this.#user);
    return url;
  }

  // knock finds out why no WebSocket opens, since browsers do not tell. The
  // server refuses an event stream for the same reasons.
  async #knock() {
    const stop = new AbortController();
    const signal = AbortSignal.any([this.#ended.signal, stop.signal, AbortSignal.timeout(PATIENCE)]);
    const res = await fetch(this.#address(), { signal, cache: "no-store", headers: { Accept: "text/event-stream" } });
    if (!res.ok) throw await refusal(res);
    stop.abort(); // it works, or the problem is temporary
  }

  #opened() {
    clearTimeout(this.#timer);
    this.#shut = false;
    this.#openedAt = Date.now();
    this.#set("online");
    this.#flush();
    this.refreshPeople();
  }

  #lost(socket) {
    if (!socket || socket !== this.#socket) return;
    this.#drop();
    this.#shut = this.#openedAt === Infinity;
    if (Date.now() - this.#openedAt > STEADY) this.#attempts = 0;
    this.#openedAt = Infinity;
    this.#on.outbox();
    this.#retry();
  }

  // drop closes the socket without waiting for the server.
  #drop() {
    clearTimeout(this.#timer);
    for (const m of this.#outbox.values()) {
      if (m.state === "sent") m.state = "waiting";
    }
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onclose = socket.onmessage = null;
    socket.close();
  }

  // retry connects later: at the time that the server said, or after a delay
  // that grows and is random, so that the pages do not all return at once.
  #retry() {
    const wait = Math.min(RETRY_MAX, RETRY_MIN * 2 ** this.#attempts++) * (0.5 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#connect(), this.#due === null ? wait : this.#due - Date.now());
    this.#due = null;
    this.#set("offline");
  }

  #set(state, why) {
    this.state = state;
    this.#on.state(state, why);
  }

  #received(m) {
    switch (m.header) {
      case "exchange":
      case "error":
        return this.#answered(m);
      case "presence":
        this.#moves?.push(m.body);
        this.#moved(m.body);
        return this.#on.people([...this.#members.values()]);
      case "reconnect": // the server closes the connection at that time
        this.#due = Date.now() + m.body.after_ms;
        return;
      case "reset": // the missed messages are no longer available individually
        this.#position = null;
        return this.#lost(this.#socket);
    }
    this.#held.push(m);
    this.#pass();
  }

  // pass passes on what is held. It waits for missing answers first: only an
  // answer tells which message is already shown in the outbox.
  #pass() {
    if ([...this.#outbox.values()].some((m) => m.sentAt)) return;
    for (const m of this.#held.splice(0)) {
      const p = this.#position;
      if (m.epoch === p?.epoch && m.offset <= p.offset) continue;
      this.#position = { epoch: m.epoch, offset: m.offset };
      if (m.data) this.#on.history(m.data, m.data.length > 0 && m.data[0].offset > m.first);
      else this.#on.message(m);
    }
    const p = this.#position;
    for (const [key, m] of this.#outbox) { // a message of another epoch was lost with it
      if (m.state === "done" && p?.epoch && (m.epoch !== p.epoch || m.offset <= p.offset)) this.forget(key);
    }
  }

  // flush sends what waits in the outbox, for the first time or again.
  #flush() {
    const socket = this.#socket;
    for (const [key, m] of this.#outbox) {
      if (!socket || m.state !== "waiting" || this.state !== "online") continue;
      m.sentAt ??= Date.now();
      if (Date.now() - m.sentAt > KEY_LIFE) { // its key may be forgotten, so it could be said twice
        Object.assign(m, { state: "failed", error: "No answer came; it may have been sent.", sentAt: null });
        continue;
      }
      m.state = "sent";
      m.timer = setTimeout(() => this.#lost(socket), PATIENCE);
      socket.send(JSON.stringify({ header: "say", body: { text: m.text }, id: key, key }));
    }
    this.#on.outbox();
    this.#pass();
  }

  #answered({ header, body, id }) {
    const m = this.#outbox.get(id);
    if (!m) return;
    clearTimeout(m.timer);
    if (header === "error" && SOON.has(body.code)) { // it may have been said: keep sentAt
      Object.assign(m, { state: "waiting", error: "Not sent yet, trying again…" });
      setTimeout(() => this.#ended.signal.aborted || this.#flush(), AGAIN);
      return this.#on.outbox();
    }
    m.sentAt = null;
    if (header === "exchange") Object.assign(m, { state: "done", epoch: body.epoch, offset: body.offset });
    else Object.assign(m, { state: "failed", refused: true, error: `Not sent: ${textRefused(body)}.` });
    this.#on.outbox();
    this.#pass();
  }

  // refreshPeople asks who is connected. The server announces everyone who
  // joins or leaves, but not those who vanish with a killed replica.
  async refreshPeople() {
    if (this.state !== "online" || this.#moves) return;
    this.#moves = [];
    try {
      const { data } = await this.#get("presence");
      this.#members = new Map(data.map((m) => [m.id, m]));
      this.#moves.forEach((b) => this.#moved(b));
      this.#on.people([...this.#members.values()]);
    } catch {
      // the next refresh follows
    }
    this.#moves = null;
  }

  #moved({ event, member }) {
    if (event === "join") this.#members.set(member.id, member);
    else this.#members.delete(member.id);
  }

  async #get(path) {
    const signal = AbortSignal.any([this.#ended.signal, AbortSignal.timeout(PATIENCE)]);
    const res = await fetch(`/v1/channel/${encodeURIComponent(this.name)}/${path}`, { signal, cache: "no-store" });
    if (res.ok) return res.json();
    throw await refusal(res);
  }
}

// refusal returns an error with a reason for people. refused means that
// retrying would not help.
async function refusal(res) {
  const text = await res.text();
  let error = { message: text.trim() }; // not the hub's: this app's own text
  try {
    error = JSON.parse(text).error;
  } catch {
    // plain text
  }
  const refused = res.status >= 400 && res.status < 500 && res.status !== 429 && !SOON.has(error?.code);
  return Object.assign(new Error(ROOM_REFUSED[error?.code] ?? error?.message ?? res.statusText), { refused });
}

function textRefused({ code, msg }) {
  return TEXT_REFUSED[code] ?? (code === "refused" ? msg : "the server did not take it");
}
