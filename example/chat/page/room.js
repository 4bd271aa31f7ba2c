// Room is a channel with what a chat adds to it: who is here, and the texts that were
// written here and have not arrived yet.
//
// Each text has a key. The server publishes a key once, so a text without an answer may
// be sent again, even after a reload. The message has the key, too: when it arrives, the
// text is no longer needed.

const PAGE = 50; // messages of history per request
const KEY_LIFE = 4 * 60_000; // ms; the server remembers keys for 5 minutes
const FORBIDDEN = 103, LIMIT = 106, BAD_REQUEST = 107, BAD_TOKEN = 3500, RESUBSCRIBE = 2500; // codes of docs/protocol.md

const CANNOT_JOIN = {
  [FORBIDDEN]: "You are not allowed to enter it.",
  [LIMIT]: "You are in too many rooms: leave one.",
  [BAD_REQUEST]: "No room can have this name: it is too long or has invalid characters.",
  [BAD_TOKEN]: "Your name was not accepted: it must have 1 to 40 characters, all of them visible.",
};

export class Room {
  state; // "online", "connecting", "offline" or "refused"
  reason; // why it is refused
  #client;
  #channel;
  #outbox;
  #on;
  #begun; // the offset up to which messages are older than this page
  #members = new Map();
  #moves = null; // joins and leaves while the members are being loaded

  // outbox is a Map that outlives the Room: key → {text, state, error, refused, sentAt}.
  // The state is "waiting" for a connection, "sent", "failed", or "done" until the
  // message itself arrives. sentAt is when it was sent first. A "failed" entry with
  // refused set would be refused again: its text must change. on has the functions
  //   begin()             forget all messages: others follow
  //   message(m, old)     one more message; old: it was there before this page
  //   outbox()            the outbox has changed
  //   people(members)     these members are connected
  //   state()             the state has changed
  constructor(name, client, outbox, on) {
    this.name = name;
    this.#client = client;
    this.#outbox = outbox;
    this.#on = on;
    this.open();
    for (const [key, m] of outbox) if (m.state === "waiting") this.#deliver(key, m);
  }

  // open begins with the newest messages. If some that were missed are no longer kept,
  // it begins anew.
  open() {
    const channel = this.#channel = this.#client.channel(this.name, { last: PAGE });
    this.#begun = undefined;
    channel.on("state", (state, why) => {
      if (channel !== this.#channel) return;
      if (state === "live" && this.#begun === undefined) {
        this.#begun = why.offset;
        this.#on.begin();
      }
      this.changed();
      this.refreshPeople();
    });
    channel.on("reset", () => {
      this.#channel = null;
      channel.close();
      this.open();
    });
    channel.on("message", (m) => {
      if (m.user && this.#outbox.delete(m.body.key)) this.#on.outbox();
      this.#on.message(m, m.offset <= this.#begun);
    });
    channel.on("presence", (move) => {
      this.#moves?.push(move);
      this.#moved(move);
      this.#on.people([...this.#members.values()]);
    });
    this.changed();
  }

  leave() {
    this.#channel.close();
  }

  // changed notes the state of the channel and of the connection.
  changed() {
    const { state, why } = this.#client.state === "live" ? this.#channel : this.#client;
    this.state = { live: "online", offline: "offline", closed: "refused" }[state] ?? "connecting";
    this.reason = state === "closed" && why ? CANNOT_JOIN[why.code] ?? (why.code < RESUBSCRIBE ? "You were sent out of it." : why.message) : null;
    const connected = this.#client.state === "live";
    for (const m of this.#outbox.values()) {
      if (m.state !== "waiting" && m.state !== "sent") continue;
      m.state = connected ? "sent" : "waiting";
      if (connected) m.sentAt ??= Date.now();
    }
    this.#on.state();
    this.#on.outbox();
  }

  // send sends a text, once there is a connection.
  send(text) {
    const key = crypto.getRandomValues(new Uint32Array(4)).join("-"); // randomUUID needs HTTPS
    this.#outbox.set(key, { text });
    this.resend(key);
  }

  // resend sends a failed text again. forget removes it from the outbox.
  resend(key) {
    const m = this.#outbox.get(key);
    Object.assign(m, { state: "waiting", error: null, sentAt: null });
    this.#deliver(key, m);
    this.changed();
  }

  forget(key) {
    this.#outbox.delete(key);
    this.#on.outbox();
  }

  async #deliver(key, m) {
    try {
      if (m.sentAt && Date.now() - m.sentAt > KEY_LIFE) throw { code: "lost" }; // its key may be forgotten, so it could be said twice
      await this.#channel.publish("say", { text: m.text, key }, { key });
      m.state = "done";
    } catch ({ code, message }) {
      if (code === "closed") return; // the next connection sends it
      const error = code === "lost" ? "No answer came; it may have been sent." : `Not sent: ${whyRefused(code, message)}.`;
      Object.assign(m, { state: "failed", error, refused: code !== "lost" });
    }
    this.#on.outbox();
  }

  // older returns messages before one, and whether there may be more.
  async older(before) {
    const messages = await this.#channel.history({ limit: PAGE, before });
    return { messages, more: messages.length === PAGE && messages[0].offset > 1 };
  }

  // refreshPeople asks who is connected. The server announces everyone who
  // joins or leaves, but not those who vanish with a killed replica.
  async refreshPeople() {
    if (this.state !== "online" || this.#moves) return;
    const moves = this.#moves = [];
    try {
      this.#members = new Map((await this.#channel.members()).map((m) => [m.id, m]));
      moves.forEach((m) => this.#moved(m));
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
}

function whyRefused(code, message) {
  return { [FORBIDDEN]: "you are not allowed to write here", [BAD_REQUEST]: message }[code] ?? "the server did not take it";
}
