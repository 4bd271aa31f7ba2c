// Connection is one WebSocket for all rooms. It speaks the client protocol, as
// docs/protocol.md describes it: each line is JSON, a command with its reply, or
// a push.

const RETRY_MIN = 500, RETRY_MAX = 10_000; // ms between attempts; grows
const STEADY = 5_000; // ms; a connection that lasts this long resets RETRY
const PATIENCE = 10_000; // ms to wait for the server
const LOST = { lost: true };
const BAD_TOKEN = 3500; // the close code for who the server does not let in

export class Connection {
  state = "offline"; // until the next attempt; "connecting", "online", or "refused"
  reason = null; // why it is refused
  #user;
  #on;
  #socket = null;
  #asked = new Map(); // commands without a reply: id → {kind, answer, timer}
  #id = 0; // of the last command
  #lines = []; // for the next message
  #silent; // the timer that finds out that the server is silent
  #period; // ms between the server's pings
  #onlineAt = Infinity;
  #attempts = 0;
  #retry; // the timer of the next attempt

  // on has the functions
  //   state()              the state has changed
  //   push(channel, push)  something has happened in a channel
  constructor(on) {
    this.#on = on;
  }

  // open connects as a user, or again as another one.
  open(user) {
    this.#user = user;
    this.#connect();
  }

  // wake connects at once instead of waiting.
  wake() {
    if (this.state === "offline" && this.#user) this.#connect();
  }

  // cut closes the connection and connects again. A connection that has outlived
  // its network is dead, but would not notice for minutes.
  cut() {
    if (this.#socket) this.#lost();
  }

  // pause closes the connection until wake. A browser may keep a page that the
  // user has left, with its connection, and the user would still be listed.
  pause() {
    if (this.state !== "refused") this.#end("offline");
  }

  // ask sends a command, and calls answer(result, error) with what its reply says.
  // If the connection ends first, the error is {lost: true}: nobody knows whether
  // the command was carried out.
  ask(kind, request, answer = () => {}) {
    if (this.state !== "online" && kind !== "connect") return answer(null, LOST);
    const id = ++this.#id;
    this.#asked.set(id, { kind, answer, timer: setTimeout(() => this.#lost(), PATIENCE) });
    this.#send({ id, [kind]: request });
  }

  // send sends all that is said in one go as one message.
  #send(command) {
    if (this.#lines.push(JSON.stringify(command)) > 1) return;
    queueMicrotask(() => {
      if (this.#lines.length) this.#socket.send(this.#lines.splice(0).join("\n"));
    });
  }

  #connect() {
    this.#end("connecting");
    const socket = this.#socket = new WebSocket(`${location.origin.replace("http", "ws")}/connection/websocket`);
    this.#expect(PATIENCE);
    socket.onopen = () => this.ask("connect", { data: { name: this.#user } }, (result, error) => this.#connected(result, error));
    socket.onclose = (e) => this.#lost(e);
    socket.onmessage = (e) => {
      for (const line of e.data.split("\n")) {
        if (socket === this.#socket) this.#received(JSON.parse(line));
      }
      if (socket === this.#socket) this.#expect(this.#period);
    };
  }

  // expect wants the server to give a sign of life in time.
  #expect(ms) {
    clearTimeout(this.#silent);
    this.#silent = setTimeout(() => this.#lost(), ms);
  }

  #connected(result, error) {
    if (error?.lost) return;
    if (error) return this.#lost();
    this.#period = result.ping * 1000 + PATIENCE;
    this.#onlineAt = Date.now();
    this.#set("online");
  }

  #received(reply) {
    if (reply.push) return this.#on.push(reply.push.channel, reply.push);
    if (!reply.id) return this.#send({}); // a ping
    const { kind, answer, timer } = this.#asked.get(reply.id);
    clearTimeout(timer);
    this.#asked.delete(reply.id);
    if (reply.error) answer(null, reply.error);
    else answer(reply[kind] ?? {}, null);
  }

  // lost connects later, after a delay that grows and is random, so that the pages
  // do not all return at once. With some codes, it would be for nothing.
  #lost({ code = 0, reason = "" } = {}) {
    if ((code >= 3500 && code < 4000) || code >= 4500) return this.#end("refused", whyRefused(code, reason));
    if (Date.now() - this.#onlineAt > STEADY) this.#attempts = 0;
    const wait = Math.min(RETRY_MAX, RETRY_MIN * 2 ** this.#attempts++) * (0.5 + Math.random() / 2);
    this.#end("offline");
    this.#retry = setTimeout(() => this.#connect(), wait);
  }

  // end closes the socket without waiting for the server.
  #end(state, reason) {
    clearTimeout(this.#retry);
    clearTimeout(this.#silent);
    const socket = this.#socket, asked = [...this.#asked.values()];
    this.#socket = null;
    this.#period = PATIENCE;
    this.#onlineAt = Infinity;
    this.#lines = [];
    this.#asked.clear();
    if (socket) {
      socket.onopen = socket.onclose = socket.onmessage = null;
      socket.close();
    }
    this.#set(state, reason);
    for (const { answer, timer } of asked) {
      clearTimeout(timer);
      answer(null, LOST);
    }
  }

  #set(state, reason = null) {
    Object.assign(this, { state, reason });
    this.#on.state();
  }
}

function whyRefused(code, reason) {
  return code === BAD_TOKEN
    ? "Your name was not accepted: it must have 1 to 40 characters, all of them visible."
    : `The server has ended the connection: ${reason}.`;
}
