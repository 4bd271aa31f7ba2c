// Outbox keeps messages until the server has them. It sends one at a time, so
// that they arrive in order. It survives a reload of the page.
//
// Each message has a key. The server publishes a key once, and pages show it
// once, so a message without an answer may be sent again.

const RETRY_MIN = 500, RETRY_MAX = 10_000; // ms between attempts; grows
const PATIENCE = 15_000; // ms to wait for an answer

export class Outbox {
  #name; // in the browser's storage
  #on;
  #entries; // {key, to, text, state, error}
  #busy = false;
  #attempts = 0;
  #timer;
  #closed = false;

  // The state of an entry is "waiting", "failed", or "sent" until the message
  // itself arrives. on has the functions
  //   changed()    the entries have changed
  //   signedOut()  the session has ended
  constructor(name, on) {
    this.#name = name;
    this.#on = on;
    this.#entries = JSON.parse(sessionStorage.getItem(name) ?? "[]");
    this.wake();
  }

  // to returns the messages to a user that have not arrived.
  to(user) {
    return this.#entries.filter((m) => m.to === user);
  }

  add(to, text) {
    const key = crypto.getRandomValues(new Uint32Array(4)).join("-"); // randomUUID needs HTTPS
    this.#entries.push({ key, to, text, state: "waiting" });
    this.#changed();
    this.wake();
  }

  // resend sends a failed message again. remove deletes it.
  resend(key) {
    this.#entries.find((m) => m.key === key).state = "waiting";
    this.#changed();
    this.wake();
  }

  remove(key) {
    this.#entries = this.#entries.filter((m) => m.key !== key);
    this.#changed();
  }

  // arrived reports that the message with this key is in the inbox. settle reports that
  // everything in the inbox comes next: a sent message that is not there is gone.
  arrived(key) {
    const before = this.#entries.length;
    this.#entries = this.#entries.filter((m) => m.key !== key);
    if (this.#entries.length !== before) this.#changed();
  }

  settle() {
    this.#entries = this.#entries.filter((m) => m.state !== "sent");
    this.#changed();
  }

  // wake sends at once what waits.
  wake() {
    clearTimeout(this.#timer);
    this.#run();
  }

  // close ends the outbox. forget also deletes its messages.
  close() {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  forget() {
    this.close();
    sessionStorage.removeItem(this.#name);
  }

  async #run() {
    if (this.#busy) return;
    this.#busy = true;
    let next;
    while (!this.#closed && (next = this.#entries.find((m) => m.state === "waiting"))) {
      const wait = await this.#post(next);
      if (wait) {
        this.#timer = setTimeout(() => this.#run(), wait);
        break;
      }
    }
    this.#busy = false;
  }

  // post sends one message. It returns after how many ms to try again, or 0.
  async #post(m) {
    const { key, to, text } = m;
    let res, reason;
    try {
      res = await fetch("messages", { method: "POST", body: JSON.stringify({ key, to, text }), signal: AbortSignal.timeout(PATIENCE) });
      reason = (await res.text()).trim();
    } catch {
      // no answer
    }
    if (this.#closed) return 0;
    const passes = !res || res.status >= 500 || res.status === 429;
    if (passes) {
      m.tried = true;
      this.#changed();
      const told = Number(res?.headers.get("Retry-After") ?? 0) * 1000;
      return Math.max(told, Math.min(RETRY_MAX, RETRY_MIN * 2 ** this.#attempts++) * (0.5 + Math.random() / 2));
    }
    this.#attempts = 0;
    if (res.status === 401) {
      this.close();
      this.#on.signedOut();
      return 0;
    }
    if (res.ok) m.state = "sent";
    else Object.assign(m, { state: "failed", error: reason.startsWith("{") ? "the server did not take it" : reason }); // JSON is for programs
    this.#changed();
    return 0;
  }

  #changed() {
    sessionStorage.setItem(this.#name, JSON.stringify(this.#entries));
    this.#on.changed();
  }
}
