// What the page asks the replica that serves it.

const csrf = document.querySelector('meta[name="csrf"]').content;

// patience is how long an answer may take, in milliseconds.
const patience = 5000;

// A Refusal is an answer that says why not.
export class Refusal extends Error {}

// Unreached says that there was no answer, or none of ours.
export class Unreached extends Error {}

async function call(path, options) {
  const [answer, body] = await ask(path, options);
  if (!answer.ok) throw new Refusal(body?.error?.message ?? "status " + answer.status);
  return body;
}

async function ask(path, options) {
  try {
    const answer = await fetch("api/" + path, { ...options, signal: AbortSignal.timeout(patience), cache: "no-store" });
    if (answer.status !== 401) return [answer, await answer.json()];
  } catch (e) {
    throw new Unreached("no answer came", { cause: e });
  }
  location.reload(); // the session has ended: the form comes
  return new Promise(() => {});
}

export function get(path, query = {}) {
  const q = new URLSearchParams(Object.entries(query).filter(([, v]) => v !== "" && v !== undefined));
  return call(q.size ? `${path}?${q}` : path);
}

// post does something. body is an object, or JSON.
export const post = (path, body) =>
  call(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRF-Token": csrf },
    body: typeof body === "string" ? body : JSON.stringify(body),
  });
