// Inbox is the user's inbox: what it keeps, then new messages, with no gap and no
// duplicate. If some that were missed are no longer kept, it begins anew.

import { connect } from "/channels.js";

const AGAIN = 2_000; // ms before another attempt after a refusal
const PATIENCE = 10_000; // ms to wait for an answer from the server
const PAGE = 500; // messages per request

export class Inbox {
  state = "connecting"; // or "online", "offline"
  #channel;
  #on;
  #client;
  #closed = false;

  // on has the functions
  //   begin(epoch)       what is kept follows; a message of another epoch is gone
  //   message(message)   one more message
  //   state(state)       the state has changed
  //   signedOut()        the session has ended
  constructor(user, on) {
    this.#channel = `@user:${user}`; // the user's own
    this.#on = on;
    this.#connect();
  }

  close() {
    this.#closed = true;
    this.#client.close();
  }

  #connect() {
    const client = this.#client = connect();
    let inbox;
    const changed = () => {
      const state = client.state === "live" && inbox.state !== "live" ? "connecting" : client.state;
      this.state = state === "live" ? "online" : state === "closed" ? "offline" : state;
      this.#on.state(this.state);
    };
    const open = () => {
      const own = inbox = client.channel(this.#channel);
      let held = []; // what comes while the history is read
      own.on("message", (m) => held ? held.push(m) : this.#on.message(m));
      own.on("reset", () => {
        inbox = null;
        own.close();
        open();
      });
      own.on("state", async (state, why) => {
        if (own !== inbox) return;
        changed();
        if (state === "closed") return this.#refused(client);
        if (state !== "live" || !held) return;
        const kept = await everything(own, why).catch(() => null);
        if (own !== inbox || !held) return;
        if (!kept) return this.#refused(client);
        this.#on.begin(why.epoch);
        for (const m of [...kept, ...held]) this.#on.message(m);
        held = null;
      });
    };
    open();
    client.on("state", changed);
  }

  // refused looks whether the session has ended, and tries again otherwise.
  async #refused(client) {
    client.close();
    const error = await get("me").then(() => null, (err) => err);
    if (this.#closed || client !== this.#client) return;
    if (error?.status === 401) return this.#on.signedOut();
    setTimeout(() => this.#closed || this.#connect(), AGAIN);
  }
}

// everything returns what a channel keeps, oldest first, up to where it has begun.
async function everything(channel, { epoch, offset }) {
  const all = [];
  for (let before = { epoch, offset: offset + 1 }; ; [before] = all) {
    const page = await channel.history({ limit: 1000, before });
    if (!page.length) return all;
    all.unshift(...page);
  }
}

// readHistory reads a channel's messages after a position, page by page. If
// position is null, or if some messages after it are gone, it reads all that
// are kept. The result's position is that of the last message.
export async function readHistory(channel, position) {
  let from = position, messages = [];
  for (;;) {
    const since = from ? `${from.epoch}:${from.offset}` : ":0";
    const page = await get(`v1/channel/${channel}/history?limit=${PAGE}&since=${since}`);
    if (from && page.missed) { // trimmed since the last answer
      from = null;
      messages = [];
      position = null;
      continue;
    }
    messages.push(...page.data);
    const last = page.data.at(-1);
    if (!last || last.offset >= page.offset) {
      return { messages, position: { epoch: page.epoch, offset: page.offset }, whole: !position };
    }
    from = { epoch: page.epoch, offset: last.offset };
  }
}

// get returns the server's answer. An error has its status.
export async function get(path) {
  const res = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (!res.ok) throw Object.assign(new Error(res.statusText), { status: res.status });
  return res.json();
}
