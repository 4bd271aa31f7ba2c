// Room is one room's connection: what was said, then what is being said, with
// no gap and nothing twice, however often the connection breaks.
//
// It loads the history once and then keeps the position of the last message
// it has passed on. Each connection asks for what came since that position,
// and repeats what was not answered on the one before: the server publishes
// the same key only once.

const RETRY_MIN = 500, RETRY_MAX = 10_000; // ms between attempts, growing
const STEADY = 5_000; // a connection that lasts this long starts them anew
const PATIENCE = 10_000; // with whatever the server is to answer
const KEY_LIFE = 4 * 60_000; // the server's memory for keys lasts 5 minutes

export class Room {
  #user;
  #outbox;
  #on;
  #position = null; // of the last message passed on; null until the history is
  #held = []; // what has arrived and is not passed on yet: a history, messages
  #members = new Map();
  #moves = null; // who comes and goes while the members are being loaded
  #socket = null;
  #openedAt = Infinity;
  #attempts = 0;
  #due = null; // when to connect next, where the server has said it
  #timer;
  #ended = new AbortController();

  // outbox is a Map that outlives the Room: key → {text, state, error, sentAt,
  // …}. The state is "waiting" for a connection, "sent", "failed", or "done"
  // until the message itself arrives; sentAt is set while there is no answer.
  // on has the functions
  //   history(messages)  show these instead of all others
  //   message(message)   show one more
  //   outbox()           the outbox has changed
  //   people(members)    these are connected
  //   state(state, why)  "online", "connecting" or "offline"
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

  // send puts a text into the outbox, and sends it once there is a connection.
  send(text) {
    const key = crypto.getRandomValues(new Uint32Array(4)).join("-"); // randomUUID needs HTTPS
    this.#outbox.set(key, { text, state: "waiting" });
    this.#flush();
  }

  // resend sends what has failed, forget takes it out of the outbox.
  resend(key) {
    this.#outbox.get(key).state = "waiting";
    this.#flush();
  }

  forget(key) {
    this.#outbox.delete(key);
    this.#on.outbox();
  }

  // wake connects at once instead of after the usual wait.
  wake() {
    if (this.state === "offline") this.#connect();
  }

  // cut gives up the connection: one that has outlived its network is dead
  // and would not notice for minutes.
  cut() {
    this.#lost(this.#socket);
  }

  async #connect() {
    clearTimeout(this.#timer);
    this.#set("connecting");
    try {
      if (!this.#position) this.#held = [await this.#get("history?limit=50")];
    } catch (err) {
      if (this.#ended.signal.aborted) return;
      if (err.refused) this.#set("offline", err.message); // asking again would not help
      else this.#retry();
      return;
    }
    this.#pass();
    const since = this.#position ?? this.#held[0];
    const url = new URL(`/channel/${encodeURIComponent(this.name)}/`, location.origin.replace("http", "ws"));
    url.searchParams.set("since", `${since.epoch}:${since.offset}`);
    url.searchParams.set("name", this.#user);
    const socket = this.#socket = new WebSocket(url);
    this.#timer = setTimeout(() => this.#lost(socket), PATIENCE);
    socket.onopen = () => this.#opened();
    socket.onclose = () => this.#lost(socket);
    socket.onmessage = (e) => this.#received(JSON.parse(e.data));
  }

  #opened() {
    clearTimeout(this.#timer);
    this.#openedAt = Date.now();
    this.#set("online");
    this.#flush();
    this.refreshPeople();
  }

  #lost(socket) {
    if (!socket || socket !== this.#socket) return;
    this.#drop();
    if (Date.now() - this.#openedAt > STEADY) this.#attempts = 0;
    this.#openedAt = Infinity;
    this.#on.outbox();
    this.#retry();
  }

  // drop forgets the socket without waiting for the other side to agree.
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

  // retry connects later: when the server said, or after a wait that grows and
  // differs from page to page, so that they do not all come back at once.
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
      case "reset": // what was missed can no longer be had one by one
        this.#position = null;
        return this.#lost(this.#socket);
    }
    this.#held.push(m);
    this.#pass();
  }

  // pass passes on what is held, unless an answer is missing: only that tells
  // which message is the one that the outbox shows already.
  #pass() {
    if ([...this.#outbox.values()].some((m) => m.sentAt)) return;
    for (const m of this.#held.splice(0)) {
      const p = this.#position;
      if (m.epoch === p?.epoch && m.offset <= p.offset) continue;
      this.#position = { epoch: m.epoch, offset: m.offset };
      if (m.data) this.#on.history(m.data);
      else this.#on.message(m);
    }
    const p = this.#position;
    for (const [key, m] of this.#outbox) { // another epoch's message was lost with it
      if (m.state === "done" && p?.epoch && (m.epoch !== p.epoch || m.offset <= p.offset)) this.forget(key);
    }
  }

  // flush sends what waits in the outbox, for the first time or again.
  #flush() {
    const socket = this.#socket;
    for (const [key, m] of this.#outbox) {
      if (m.state !== "waiting" || this.state !== "online") continue;
      m.sentAt ??= Date.now();
      if (Date.now() - m.sentAt > KEY_LIFE) { // then it could be said twice
        Object.assign(m, { state: "failed", error: "No answer came; it may have been said.", sentAt: null });
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
    m.sentAt = null;
    if (header === "exchange") Object.assign(m, { state: "done", epoch: body.epoch, offset: body.offset });
    else Object.assign(m, { state: "failed", error: `Not sent: ${body.msg}` });
    this.#on.outbox();
    this.#pass();
  }

  // refreshPeople asks who is connected. The server tells of everyone who
  // comes and goes, but not of those who vanish together with a replica.
  async refreshPeople() {
    if (this.state !== "online" || this.#moves) return;
    this.#moves = [];
    try {
      const { data } = await this.#get("presence");
      this.#members = new Map(data.map((m) => [m.id, m]));
      this.#moves.forEach((b) => this.#moved(b));
      this.#on.people([...this.#members.values()]);
    } catch {
      // the next refresh comes by itself
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
    const body = await res.json();
    if (res.ok) return body;
    throw Object.assign(new Error(body.error?.message ?? res.statusText), { refused: res.status < 500 && res.status !== 429 });
  }
}
