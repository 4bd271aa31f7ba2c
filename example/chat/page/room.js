// Room is a channel of the connection: its newest messages, then what is said, with
// no gap and no duplicate, however often the connection breaks.
//
// It keeps the position of the last message that it has passed on. Whenever there
// is a connection, it subscribes from that position, and resends the messages
// without an answer. The server publishes each key only once.

const PAGE = 50; // messages of history per request
const KEY_LIFE = 4 * 60_000; // ms; the server remembers keys for 5 minutes
const AGAIN = 2_000; // ms before a repetition of what was refused for the moment
const FORBIDDEN = 103, LIMIT = 106, BAD_REQUEST = 107; // error codes
const RESUBSCRIBE = 2500; // the first of the codes after which one subscribes again

const ROOM_REFUSED = {
  [FORBIDDEN]: "You are not allowed to enter it.",
  [LIMIT]: "You are in too many rooms: leave one.",
  [BAD_REQUEST]: "No room can have this name: it is too long or has invalid characters.",
};

export class Room {
  state = "offline"; // like a Connection's; it is "online" when subscribed
  reason = null; // why it is refused
  #connection;
  #outbox;
  #on;
  #position = null; // of the last message passed on; null until the first have been
  #held = []; // arrived and not passed on yet: the reply to the first subscribe, messages
  #members = new Map();
  #moves = null; // joins and leaves while the members are being loaded
  #again; // the timer of the next subscribe

  // outbox is a Map that outlives the Room: key → {text, state, error, sentAt,
  // …}. The state is "waiting" for a connection, "sent", "failed", or "done"
  // until the message itself arrives. sentAt is set while there is no answer. A
  // "failed" entry with refused set would be refused again: its text must change.
  // on has the functions
  //   history(messages, more)  show only these messages; more: there may be older
  //                            ones
  //   message(message)   show one more message
  //   outbox()           the outbox has changed
  //   people(members)    these members are connected
  //   state()            the state has changed
  constructor(name, connection, outbox, on) {
    this.name = name;
    this.#connection = connection;
    this.#outbox = outbox;
    this.#on = on;
  }

  // follow does what the connection's state allows.
  follow() {
    const { state, reason } = this.#connection;
    if (state === "online") this.#subscribe();
    else this.#set(state, reason);
  }

  leave() {
    this.#ask("unsubscribe");
    this.#set("offline");
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

  // older returns messages before an offset, and whether there may be more.
  older(offset) {
    return new Promise((resolve, reject) => {
      const since = { ...this.#position, offset };
      this.#ask("history", { limit: PAGE, reverse: true, since }, ({ publications = [] }, error) => {
        if (error) reject(error);
        else resolve({ messages: publications.toReversed(), more: publications.length === PAGE && publications.at(-1).offset > 1 });
      });
    });
  }

  #ask(kind, request, answer = () => {}) {
    this.#connection.ask(kind, { channel: this.name, ...request }, (result, error) => answer(result ?? {}, error));
  }

  #subscribe() {
    const p = this.#position;
    const from = p ? { recover: true, ...p } : { data: { last: PAGE } };
    this.#set("connecting");
    this.#ask("subscribe", { join_leave: true, ...from }, (result, error) => {
      if (error) return this.#refused(error);
      if (p && !result.recovered) return this.#begin();
      const { publications = [], epoch = "", offset = 0 } = result;
      if (p) {
        this.#position = { epoch, offset: p.offset };
        this.#held.push(...publications);
      } else {
        this.#held = [{ publications, position: { epoch, offset } }];
      }
      this.#set("online");
      this.#flush();
      this.refreshPeople();
    });
  }

  // begin starts anew with the newest messages: those that were missed are no longer
  // kept.
  #begin() {
    this.#position = null;
    this.#ask("unsubscribe");
    this.#subscribe();
  }

  #refused({ lost, temporary, code, message }) {
    if (lost) return;
    if (temporary) this.#again = setTimeout(() => this.follow(), AGAIN);
    else this.#set("refused", ROOM_REFUSED[code] ?? message);
  }

  #set(state, reason = null) {
    clearTimeout(this.#again);
    Object.assign(this, { state, reason });
    this.#on.state();
  }

  // received takes what is pushed.
  received({ pub, join, leave, unsubscribe }) {
    if (pub) {
      this.#held.push(pub);
      this.#pass();
    } else if (join || leave) {
      this.#moves?.push({ join, leave });
      this.#moved({ join, leave });
      this.#on.people([...this.#members.values()]);
    } else if (unsubscribe?.code >= RESUBSCRIBE) {
      this.#subscribe();
    } else if (unsubscribe) {
      this.#set("refused", "You were sent out of it.");
    }
  }

  // pass passes on what is held. It waits for missing answers first: only an
  // answer tells which message is already shown in the outbox.
  #pass() {
    if ([...this.#outbox.values()].some((m) => m.sentAt)) return;
    for (const m of this.#held.splice(0)) {
      if (m.publications) {
        this.#position = m.position;
        this.#on.history(m.publications, m.publications.length === PAGE && m.publications[0].offset > 1);
      } else if (m.offset > this.#position?.offset) {
        this.#position.offset = m.offset;
        this.#on.message(m);
      }
    }
    const p = this.#position;
    for (const [key, m] of this.#outbox) { // a message of another epoch was lost with it
      if (m.state === "done" && p && (m.epoch !== p.epoch || m.offset <= p.offset)) this.forget(key);
    }
  }

  // flush sends what waits in the outbox, for the first time or again.
  #flush() {
    for (const [key, m] of this.#outbox) {
      if (m.state !== "waiting" || this.state !== "online") continue;
      m.sentAt ??= Date.now();
      if (Date.now() - m.sentAt > KEY_LIFE) { // its key may be forgotten, so it could be said twice
        Object.assign(m, { state: "failed", error: "No answer came; it may have been sent.", sentAt: null });
        continue;
      }
      m.state = "sent";
      const data = { channel: this.name, header: "say", body: { text: m.text }, key };
      this.#connection.ask("rpc", { method: "publish", data }, (result, error) => this.#answered(m, result?.data, error));
    }
    this.#on.outbox();
    this.#pass();
  }

  #answered(m, position, error) {
    if (error?.lost) {
      m.state = "waiting";
    } else if (error?.temporary) { // it may have been said: keep sentAt
      Object.assign(m, { state: "waiting", error: "Not sent yet, trying again…" });
      setTimeout(() => this.#flush(), AGAIN);
    } else if (error) {
      Object.assign(m, { state: "failed", refused: true, error: `Not sent: ${textRefused(error)}.`, sentAt: null });
    } else {
      Object.assign(m, { state: "done", epoch: position.epoch, offset: position.offset, sentAt: null });
    }
    this.#on.outbox();
    this.#pass();
  }

  // refreshPeople asks who is connected. The server announces everyone who
  // joins or leaves, but not those who vanish with a killed replica.
  refreshPeople() {
    if (this.state !== "online" || this.#moves) return;
    this.#moves = [];
    this.#ask("presence", {}, ({ presence }, error) => {
      const moves = this.#moves;
      this.#moves = null;
      if (error) return; // the next refresh follows
      this.#members = new Map(Object.entries(presence ?? {}));
      moves.forEach((m) => this.#moved(m));
      this.#on.people([...this.#members.values()]);
    });
  }

  #moved({ join, leave }) {
    if (join) this.#members.set(join.info.client, join.info);
    else this.#members.delete(leave.info.client);
  }
}

function textRefused({ code, message }) {
  return { [FORBIDDEN]: "you are not allowed to write here", [BAD_REQUEST]: message }[code] ?? "the server did not take it";
}
