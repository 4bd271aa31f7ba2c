// Room is one room's connection: what was said, then what is being said, with
// no gap and nothing twice, however often the connection breaks.
//
// It loads the history once and then keeps the position of the last message
// it has passed on. Each connection asks for what came since that position.
// What cannot be sent waits in the outbox for the next connection.

const RETRY_MIN = 500, RETRY_MAX = 10_000; // ms between attempts, growing
const STEADY = 5_000; // a connection that lasts this long starts them anew
const PATIENCE = 10_000; // with whatever the server is to answer

export class Room {
  #user;
  #outbox;
  #on;
  #position = null; // of the last message passed on; null until the history is loaded
  #keys = new Set(); // of the messages passed on
  #held = null; // what arrives while the history is being loaded again
  #members = new Map();
  #moves = null; // who comes and goes while the members are being loaded
  #socket = null;
  #openedAt = Infinity;
  #attempts = 0;
  #due = null; // when to connect next, where the server has said it
  #timer;
  #ended = new AbortController();
  #ids = 0;

  // outbox is an array that outlives the Room. Its entries are {key, text,
  // state, error}; their state is "waiting", "sent", "unsure" (the connection
  // broke before the answer), "done" or "failed". on has the functions
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
    const key = crypto.getRandomValues(new Uint32Array(4)).join("-");
    this.#outbox.push({ key, text, state: "waiting" });
    this.#flush();
  }

  // resend sends what was refused, forget takes it out of the outbox.
  resend(entry) {
    entry.state = "waiting";
    this.#flush();
  }

  forget(entry) {
    clearTimeout(entry.timer);
    const i = this.#outbox.indexOf(entry);
    if (i >= 0) this.#outbox.splice(i, 1);
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
      if (!this.#position) await this.#load();
    } catch (err) {
      if (this.#ended.signal.aborted) return;
      if (err.refused) this.#set("offline", err.message); // asking again would not help
      else this.#retry();
      return;
    }
    const url = new URL(`/channel/${encodeURIComponent(this.name)}/`, location.origin.replace("http", "ws"));
    url.searchParams.set("since", `${this.#position.epoch}:${this.#position.offset}`);
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
    for (const m of this.#outbox) {
      clearTimeout(m.timer);
      if (m.state === "sent") m.state = "unsure";
    }
    const socket = this.#socket;
    this.#socket = this.#held = null;
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
        return this.#answered(m.id);
      case "error":
        return this.#answered(m.id, m.body);
      case "presence":
        this.#moves?.push(m.body);
        this.#moved(m.body);
        return this.#on.people([...this.#members.values()]);
      case "reconnect": // the server closes the connection at that time
        this.#due = Date.now() + m.body.after_ms;
        return;
      case "reset": // what was missed can no longer be had one by one
        return this.#reset();
    }
    if (this.#held) this.#held.push(m);
    else this.#arrived(m);
  }

  #arrived(m) {
    const p = this.#position;
    if (m.epoch === p.epoch && m.offset <= p.offset) return;
    this.#position = { epoch: m.epoch, offset: m.offset };
    if (this.#isNew(m)) this.#on.message(m);
  }

  // isNew says whether a message is to be shown, and takes it out of the
  // outbox. One that was sent again because its answer got lost can be in the
  // log twice, with the same key.
  #isNew({ header, body }) {
    if (header !== "say" || !body.key) return true;
    const mine = this.#outbox.find((m) => m.key === body.key);
    if (mine) this.forget(mine);
    const key = `${body.key} ${body.from}`;
    return !this.#keys.has(key) && !!this.#keys.add(key);
  }

  async #load() {
    const socket = this.#socket;
    const h = await this.#get("history?limit=50");
    if (socket !== this.#socket) return; // the next connection begins where this one did
    this.#position = { epoch: h.epoch, offset: h.offset };
    this.#keys.clear();
    this.#on.history(h.data.filter((m) => this.#isNew(m)));
    this.#outbox.filter((m) => m.state === "done").forEach((m) => this.forget(m));
  }

  async #reset() {
    const socket = this.#socket;
    this.#held = [];
    try {
      await this.#load();
    } catch {
      if (socket === this.#socket) this.#position = null;
      return this.#lost(socket);
    }
    if (socket !== this.#socket) return;
    const held = this.#held;
    this.#held = null;
    held.forEach((m) => this.#arrived(m));
  }

  // flush sends what waits in the outbox. What was on its way when the
  // connection broke may have arrived: it looks before it says that again.
  async #flush() {
    const socket = this.#socket;
    if (socket?.readyState !== WebSocket.OPEN) return this.#on.outbox();
    const unsure = this.#outbox.filter((m) => m.state === "unsure");
    if (unsure.length) {
      let said;
      try {
        said = await this.#get("history?limit=200");
      } catch {
        return this.#lost(socket);
      }
      if (socket !== this.#socket) return;
      const keys = new Set(said.data.map((m) => m.body?.key));
      for (const m of unsure) {
        if (m.state === "unsure") m.state = keys.has(m.key) ? "done" : "waiting";
      }
    }
    for (const m of this.#outbox) {
      if (m.state !== "waiting") continue;
      m.state = "sent";
      m.id = ++this.#ids;
      m.timer = setTimeout(() => this.#lost(socket), PATIENCE);
      socket.send(JSON.stringify({ header: "say", body: { text: m.text, key: m.key }, id: m.id }));
    }
    this.#on.outbox();
  }

  #answered(id, error) {
    const m = this.#outbox.find((m) => m.id === id && m.state === "sent");
    if (!m) return;
    clearTimeout(m.timer);
    m.error = error?.msg;
    m.state = !error ? "done" : error.code === "draining" ? "waiting" : "failed";
    this.#on.outbox();
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
