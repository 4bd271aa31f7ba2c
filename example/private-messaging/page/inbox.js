// Inbox is the connection to the user's inbox: everything that it keeps, then
// new messages, with no gap and no duplicate, however often the connection
// breaks.
//
// It reads the history once, page by page, and then keeps the position of the
// last message that it has passed on. Each connection asks for what came since.
// If that is no longer kept, it reads the history again.

const RETRY_MIN = 500, RETRY_MAX = 10_000; // ms between attempts; grows
const STEADY = 5_000; // ms; a connection that lasts this long resets RETRY
const PATIENCE = 10_000; // ms to wait for an answer from the server
const PAGE = 500; // messages per request

export class Inbox {
  #channel;
  #on;
  #position = null; // of the last message passed on; null until the history is read
  #socket = null;
  #openedAt = Infinity;
  #turn = 0; // of connect: an earlier call that still waits gives up
  #attempts = 0;
  #due = null; // when to connect next, if the server has said so
  #timer;
  #ended = new AbortController();

  // on has the functions
  //   history({messages, epoch, first})  these are all that are kept
  //   message(message)                   one more message
  //   state(state)                       "online", "connecting" or "offline"
  //   signedOut()                        the session has ended
  constructor(user, on) {
    this.#channel = `inbox.${user}`;
    this.#on = on;
    this.#connect();
  }

  close() {
    this.#ended.abort();
    this.#drop();
  }

  // wake connects at once instead of waiting.
  wake() {
    if (this.state === "offline" && !this.#ended.signal.aborted) this.#connect();
  }

  // cut closes the connection. A connection that has outlived its network is
  // dead, but would not notice for minutes.
  cut() {
    this.#lost(this.#socket);
  }

  // pause closes the connection until wake. A browser may keep a page that the
  // user has left, with its connection.
  pause() {
    this.#turn++;
    this.#drop();
    this.#set("offline");
  }

  async #connect() {
    clearTimeout(this.#timer);
    const turn = ++this.#turn;
    this.#set("connecting");
    try {
      await get("me", this.#ended.signal); // a refused WebSocket does not tell why
      if (!this.#position) {
        const all = await readHistory(this.#channel, null, this.#ended.signal);
        if (turn !== this.#turn) return;
        this.#position = all.position;
        this.#on.history(all);
      }
    } catch (err) {
      if (turn !== this.#turn || this.#ended.signal.aborted) return;
      return err.status === 401 ? this.#on.signedOut() : this.#retry();
    }
    if (turn !== this.#turn) return;
    const url = new URL(`channel/${this.#channel}/`, location.href.replace(/^http/, "ws"));
    url.hash = "";
    url.searchParams.set("since", `${this.#position.epoch}:${this.#position.offset}`);
    const socket = this.#socket = new WebSocket(url);
    this.#timer = setTimeout(() => this.#lost(socket), PATIENCE);
    socket.onopen = () => {
      clearTimeout(this.#timer);
      this.#openedAt = Date.now();
      this.#set("online");
    };
    socket.onclose = () => this.#lost(socket);
    socket.onmessage = (e) => this.#received(JSON.parse(e.data));
  }

  #received(m) {
    switch (m.header) {
      case "reconnect": // the server closes the connection at that time
        this.#due = Date.now() + m.body.after_ms;
        return;
      case "reset": // read what was missed as history
        this.#position = null;
        return this.#lost(this.#socket);
    }
    const p = this.#position;
    if (!m.offset || (m.epoch === p.epoch && m.offset <= p.offset)) return;
    this.#position = { epoch: m.epoch, offset: m.offset };
    this.#on.message(m);
  }

  #lost(socket) {
    if (!socket || socket !== this.#socket) return;
    this.#drop();
    if (Date.now() - this.#openedAt > STEADY) this.#attempts = 0;
    this.#openedAt = Infinity;
    this.#retry();
  }

  // drop closes the socket without waiting for the server.
  #drop() {
    clearTimeout(this.#timer);
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

  #set(state) {
    this.state = state;
    this.#on.state(state);
  }
}

// readHistory reads a channel's messages after a position, page by page. If
// position is null, or if some messages after it are gone, it reads all that
// are kept. The result's position is that of the last message, from which a
// connection goes on.
export async function readHistory(channel, position, signal) {
  let from = position, messages = [];
  for (;;) {
    const since = from ? `${from.epoch}:${from.offset}` : ":0";
    const page = await get(`v1/channel/${channel}/history?limit=${PAGE}&since=${since}`, signal);
    if (from && page.missed) { // trimmed since the last answer
      from = null;
      messages = [];
      position = null;
      continue;
    }
    messages.push(...page.data);
    const last = page.data.at(-1);
    if (!last || last.offset >= page.offset) {
      const { epoch, offset, first } = page;
      return { messages, epoch, first, position: { epoch, offset }, whole: !position };
    }
    from = { epoch: page.epoch, offset: last.offset };
  }
}

// get returns the server's answer. An error has its status.
export async function get(path, signal) {
  const timeout = AbortSignal.timeout(PATIENCE);
  const res = await fetch(path, { cache: "no-store", signal: signal ? AbortSignal.any([signal, timeout]) : timeout });
  if (!res.ok) throw Object.assign(new Error(res.statusText), { status: res.status });
  return res.json();
}
