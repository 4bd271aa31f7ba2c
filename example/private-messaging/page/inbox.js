// Inbox is the connection to one's inbox: all that it keeps, then what comes,
// with no gap and nothing twice, however often the connection breaks.
//
// It reads the history once, page by page, and then keeps the position of the
// last message that it has passed on. Each connection asks for what came since.
// Where that is no longer kept, the history is read anew.

const RETRY_MIN = 500, RETRY_MAX = 10_000; // ms between attempts, growing
const STEADY = 5_000; // a connection that lasts this long starts them anew
const PATIENCE = 10_000; // with whatever the server is to answer
const PAGE = 500; // messages read at once

export class Inbox {
  #channel;
  #on;
  #position = null; // of the last message passed on; null until the history is read
  #socket = null;
  #openedAt = Infinity;
  #turn = 0; // of connect: an earlier one that still waits for an answer gives up
  #attempts = 0;
  #due = null; // when to connect next, where the server has said it
  #timer;
  #ended = new AbortController();

  // on has the functions
  //   history({messages, epoch, first})  these are all that is kept
  //   message(message)                   one more
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

  // wake connects at once instead of after the usual wait.
  wake() {
    if (this.state === "offline" && !this.#ended.signal.aborted) this.#connect();
  }

  // cut gives up the connection: one that has outlived its network is dead
  // and would not notice for minutes.
  cut() {
    this.#lost(this.#socket);
  }

  // pause ends the connection until wake: a browser may keep a page that was
  // left, with its connection.
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
      await get("me", this.#ended.signal); // a refused WebSocket would not say why
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
      case "reset": // what was missed is read as history
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

  // drop forgets the socket without waiting for the other side to agree.
  #drop() {
    clearTimeout(this.#timer);
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

  #set(state) {
    this.state = state;
    this.#on.state(state);
  }
}

// readHistory reads a channel's messages after a position, page by page; all
// that are kept where it is null, or where some after it are gone. The answer's
// position is that of the last one, from which a connection goes on.
export async function readHistory(channel, position, signal) {
  let from = position, messages = [];
  for (;;) {
    const since = from ? `${from.epoch}:${from.offset}` : ":0";
    const page = await get(`v1/channel/${channel}/history?limit=${PAGE}&since=${since}`, signal);
    if (from && page.missed) { // since the last answer, too
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

// get returns what the server answers; an error has its status.
export async function get(path, signal) {
  const timeout = AbortSignal.timeout(PATIENCE);
  const res = await fetch(path, { cache: "no-store", signal: signal ? AbortSignal.any([signal, timeout]) : timeout });
  if (!res.ok) throw Object.assign(new Error(res.statusText), { status: res.status });
  return res.json();
}
