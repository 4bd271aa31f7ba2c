// The page: its replica, the state of all replicas, and a room whose messages
// go through the replica that the balancer chose.

const $ = (id) => document.getElementById(id);
const ROOM = "lobby";
const RETRY_MIN = 250, RETRY_MAX = 5_000; // ms between attempts; grows
const PATIENCE = 8_000; // ms to wait for an answer; longer than replicas wait for their store
const PAST = `/v1/channel/${ROOM}/history?limit=50`;
const AGAIN = 2_000; // ms between checks for a store that is down, and before resending a refused message
const KEY_LIFE = 4 * 60_000; // ms; the replicas remember keys for 5 minutes
const SHOWN = 300; // messages that stay on the page

const page = String(crypto.getRandomValues(new Uint32Array(1))[0]); // distinguishes this page from others with the same name
let user = sessionStorage.getItem("name") ?? `Guest ${100 + Math.floor(Math.random() * 900)}`;
let history = null; // whether the replicas keep one; null until they have told
let position = null; // of the last message shown, if there is a history
let away = false; // the store was down when it was last asked
let here = ""; // the replica that this page is on, or was last on
let on = false; // the page is connected to it
let dead = false; // all replicas are dead
let socket = null;
let turn = 0; // of connect: an earlier call that still waits gives up
let attempts = 0;
let timer;

// Messages without an answer: key → {text, state, error, sentAt}. The state is
// "waiting", "sent" or "failed". They survive a reload of the page.
const outbox = new Map(JSON.parse(sessionStorage.getItem("outbox") ?? "[]"));

// What the replicas' error codes mean for the reader of the page.
const SOON = new Set(["store_unavailable", "mesh_unavailable", "overloaded", "too_many_channels", "rate_limited", "internal", "draining", "closed"]);
const REFUSED = {
  too_large: "it is too long: make it shorter",
  bad_message: "it is too long, or has characters that cannot be sent: change it",
  bad_utf8: "it has characters that cannot be sent: change it",
  forbidden: "you are not allowed to write here",
};

// --- the connection

async function connect() {
  const own = ++turn;
  drop();
  if (!away && !dead) show("connecting", "Connecting…");
  try {
    if (history === null) await look();
    if (history && (!position || attempts > 1)) { // also after failed attempts, to learn why
      const past = await get(PAST);
      if (own !== turn) return;
      away = false;
      if (!position) {
        past.data.forEach(message);
        position = past;
      }
    }
  } catch (e) {
    if (own !== turn) return;
    away = e.code === "store_unavailable";
    if (!away) return later();
    // A replica answers. It accepts this page if it has other subscribers in
    // the room.
  }
  if (own !== turn) return;
  const url = new URL(`/channel/${ROOM}/`, location.origin.replace("http", "ws"));
  url.searchParams.set("name", user);
  url.searchParams.set("page", page);
  if (position) url.searchParams.set("since", `${position.epoch}:${position.offset}`);
  const s = socket = new WebSocket(url);
  timer = setTimeout(() => lost(s), PATIENCE);
  s.onclose = () => lost(s);
  s.onmessage = (e) => received(s, JSON.parse(e.data));
}

function lost(s) {
  if (s !== socket) return;
  drop();
  later();
}

function drop() {
  clearTimeout(timer);
  const s = socket;
  socket = null;
  if (!s) return;
  s.onclose = s.onmessage = null;
  s.close();
  on = false;
  unsend();
  showOutbox();
}

// later connects after a delay that grows and is random, so that the pages do
// not all return at once.
function later() {
  showLost();
  const wait = Math.min(RETRY_MAX, RETRY_MIN * 2 ** attempts++) * (0.5 + Math.random() / 2);
  timer = setTimeout(connect, wait);
}

function showLost() {
  if (dead) show("offline", "All replicas are dead: start one");
  else if (away) show("away", "The store is away: the room opens when it is back");
  else show("offline", "Looking for another replica…");
  $("here").textContent = here ? "no replica" : "no replica yet";
}

function received(s, m) {
  switch (m.header) {
    case "presence": { // the page's own join tells which replica this is
      const { node, page: who } = m.body.member.info ?? {};
      if (m.body.event === "join" && who === page) arrived(node);
      return;
    }
    case "exchange":
    case "error":
      return answered(m);
    case "reconnect": // the replica ends soon, and closes this connection itself
      return;
    case "reset":
      position = null;
      if (history) $("messages").replaceChildren();
      return lost(s);
  }
  if (history) position = { epoch: m.epoch, offset: m.offset };
  message(m);
}

function arrived(node) {
  clearTimeout(timer);
  attempts = 0;
  if (here && here !== node) news(`You have moved from ${here} to ${node}`);
  here = node;
  on = true;
  dead = false;
  $("here").textContent = node;
  if (!history || position) {
    show("online", "Live");
  } else {
    show("away", "The store is away: no history for now");
    timer = setTimeout(back, AGAIN, socket);
  }
  flush();
  look().catch(unknown);
}

// back starts over with the history when the store answers.
async function back(s) {
  try {
    await get(PAST);
  } catch {
    if (s === socket) timer = setTimeout(back, AGAIN, s);
    return;
  }
  if (s !== socket) return;
  away = false;
  position = null;
  $("messages").replaceChildren();
  connect();
}

// --- sending: messages wait while there is no replica

// flush sends what waits, for the first time or again. With a key, the replicas
// publish it once.
function flush() {
  for (const [key, m] of outbox) {
    if (!on || m.state !== "waiting") continue;
    m.sentAt ??= Date.now();
    if (Date.now() - m.sentAt > KEY_LIFE) { // its key may be forgotten, so it could be said twice
      Object.assign(m, { state: "failed", error: "No answer came; it may have been sent.", sentAt: null });
      continue;
    }
    m.state = "sent";
    const message = { header: "say", body: { text: m.text }, id: key };
    if (history) message.key = key;
    socket.send(JSON.stringify(message));
  }
  showOutbox();
}

function answered({ header, body, id }) {
  const m = outbox.get(id);
  if (!m) return;
  if (header === "exchange") {
    outbox.delete(id);
  } else if (SOON.has(body.code)) { // with a history, it may have been said
    Object.assign(m, { state: "waiting", error: "Not sent yet, trying again…", sentAt: history ? m.sentAt : null });
    setTimeout(flush, AGAIN);
  } else {
    const why = REFUSED[body.code] ?? (body.code === "refused" ? body.msg : "the replica did not take it"); // "refused" is this app's own code
    Object.assign(m, { state: "failed", refused: true, error: `Not sent: ${why}.`, sentAt: null });
  }
  showOutbox();
}

// unsend handles messages that will get no answer any more. Without a history,
// a duplicate would go unnoticed, so the author decides.
function unsend() {
  for (const m of outbox.values()) {
    if (m.state !== "sent") continue;
    if (history) m.state = "waiting";
    else Object.assign(m, { state: "failed", error: "No answer came; it may have been sent.", sentAt: null });
  }
}

function showOutbox() {
  sessionStorage.setItem("outbox", JSON.stringify([...outbox]));
  $("outbox").replaceChildren(...[...outbox].filter(([, m]) => m.state !== "sent").map(([key, m]) => {
    const li = document.createElement("li"), text = document.createElement("p"), fate = document.createElement("p");
    li.dataset.state = m.state;
    text.className = "text";
    text.textContent = m.text;
    fate.className = "fate";
    fate.textContent = m.error ?? "Waiting for a replica";
    if (m.state === "failed") {
      fate.append(m.refused ? button("Edit", () => edit(key)) : button("Try again", () => again(key)), button("Remove", () => forget(key)));
    }
    li.append(text, fate);
    return li;
  }));
  toBottom();
  showHint();
}

function button(label, onclick) {
  const b = document.createElement("button");
  b.type = "button";
  b.textContent = label;
  b.onclick = onclick;
  return b;
}

function again(key) {
  Object.assign(outbox.get(key), { state: "waiting", error: null });
  flush();
}

function forget(key) {
  outbox.delete(key);
  showOutbox();
}

// edit returns a refused text to the input.
function edit(key) {
  $("text").value = `${$("text").value} ${outbox.get(key).text}`.trim();
  forget(key);
  $("text").focus();
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

// --- messages: text is inserted as text, never as HTML

const clock = new Intl.DateTimeFormat([], { hour: "numeric", minute: "2-digit", second: "2-digit" });

function message({ body }) {
  const li = $("message-template").content.firstElementChild.cloneNode(true);
  li.classList.toggle("mine", body.from === user);
  li.querySelector(".from").textContent = body.from;
  li.querySelector(".via").textContent = `on ${body.node}`;
  li.querySelector("time").textContent = clock.format(new Date(body.at));
  li.querySelector(".text").textContent = body.text;
  add(li);
}

// news adds a line between messages about this page.
function news(text) {
  const li = document.createElement("li");
  li.className = "news";
  li.textContent = text;
  add(li);
}

function add(li) {
  lookUp();
  $("messages").append(li);
  while (following && $("messages").children.length > SHOWN) $("messages").firstChild.remove();
  toBottom();
  showHint();
}

function showHint() {
  $("empty").hidden = $("messages").children.length + $("outbox").children.length > 0;
}

// Keep the last line visible, unless the reader has scrolled up.
const scroll = $("scroll");
let following = true;
let lastTop = 0; // the reader's last known position
scroll.onscroll = noteTop;
new ResizeObserver(toBottom).observe(scroll);

function noteTop() {
  lastTop = scroll.scrollTop;
  following = scroll.scrollHeight - lastTop - scroll.clientHeight < 80;
}

// lookUp notices that the reader has scrolled up before the scroll event.
function lookUp() {
  if (scroll.scrollTop < lastTop) noteTop();
}

function toBottom() {
  lookUp();
  if (following) scroll.scrollTop = scroll.scrollHeight;
  lastTop = scroll.scrollTop;
}

$("composer").onsubmit = (e) => {
  e.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  following = true;
  outbox.set(crypto.getRandomValues(new Uint32Array(4)).join("-"), { text, state: "waiting" });
  flush();
};

$("name").value = user;
$("name").onchange = () => {
  const name = $("name").value.replace(/\s+/g, " ").trim();
  $("name").value = name || user;
  if (!name || name === user) return;
  sessionStorage.setItem("name", user = name);
  connect();
};

// --- the replicas: what the balancer knows about its processes, and what the
// replicas know about each other

async function look() {
  const processes = await get("/replicas");
  if (history === null) {
    mode(history = processes.history);
    unsend(); // messages sent before a reload
  }
  const were = dead;
  dead = processes.data.every((p) => !p.pid);
  if (dead && !on) showLost();
  if (were && !dead && !on) {
    attempts = 0;
    connect();
  }
  let nodes = [];
  try {
    nodes = (await get("/v1/nodes")).data;
  } catch {
    // none is running
  }
  traffic(processes.load);
  for (const li of [...$("replicas").children]) {
    if (!processes.data.some((p) => p.node === li.dataset.node)) li.remove();
  }
  processes.data.forEach((p) => replica(p, nodes.find((n) => n.node === p.node), nodes.length > 0));
}

function replica({ node, number, pid, ready, leaves }, known, others) {
  let li = [...$("replicas").children].find((li) => li.dataset.node === node);
  if (!li) {
    li = $("replica-template").content.firstElementChild.cloneNode(true);
    li.dataset.node = node;
    li.querySelector(".node span").textContent = node;
    li.querySelector("button").onclick = (e) => act(e.target, `/replicas/${number}/${e.target.dataset.does}`);
    $("replicas").append(li); // a new one has the highest number
  }
  const status = known?.status ?? "unknown";
  li.dataset.light = pid ? status : "red";
  li.ariaCurrent = on && node === here ? "true" : null;
  // The replicas' data about each other is some seconds old, but not this
  // page's own connection.
  const n = Math.max(known?.connections ?? 0, on && node === here ? 1 : 0);
  const how = {
    green: ready ? `pid ${pid}, ${n} ${n === 1 ? "connection" : "connections"}` : leaves ? "ending" : "starting",
    unknown: "starting",
  }[status] ?? known.reasons.join(", ");
  const rumour = { green: "the others have not noticed yet", unknown: "the others have forgotten it" }[status] ?? `the others say: ${known?.reasons.join(", ")}`;
  li.querySelector(".how").textContent = pid ? how : others ? `killed; ${rumour}` : "killed";
  const button = li.querySelector("button");
  button.dataset.does = pid ? "kill" : "start";
  button.textContent = pid ? "Kill" : "Start";
  button.ariaLabel = `${button.textContent} ${node}`;
}

// unknown shows all replicas as unknown, if the program that starts them is
// gone.
function unknown() {
  for (const li of $("replicas").children) {
    li.dataset.light = "unknown";
    li.querySelector(".how").textContent = "unknown: the program that starts the replicas does not answer";
  }
}

// act presses a switch of the program.
async function act(button, path) {
  button.disabled = true;
  try {
    const res = await fetch(path, { method: "POST" });
    if (!res.ok) news(await res.text());
    await look();
  } catch {
    unknown();
  }
  button.disabled = false;
}

// On this machine, the program lets whoever presses the link in.
$("token").hidden = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);

$("load").onclick = (e) => act(e.target, `/load/${e.target.dataset.does}`);

function traffic({ on, clients, received, missed }) {
  const button = $("load");
  button.hidden = false;
  button.dataset.does = on ? "stop" : "start";
  button.textContent = on ? "Stop traffic" : "Start traffic";
  $("traffic").hidden = !on;
  const lost = history ? `, and missed ${missed ? missed.toLocaleString() : "none"}` : "";
  $("traffic").textContent = `${clients} more clients have got ${received.toLocaleString()} messages${lost}.`;
}

function mode(history) {
  $("mode").textContent = history
    ? "The replicas share a Redis: the room has a history, and a page that moves misses nothing."
    : "The replicas share no store: a page that moves misses what is said meanwhile. With -redis it misses nothing.";
}

async function get(path) {
  const res = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (!res.ok) {
    const refusal = await res.json().catch(() => null); // the balancer's own errors are not JSON
    throw Object.assign(new Error(res.statusText), { code: refusal?.error?.code });
  }
  return res.json();
}

setInterval(() => document.hidden || look().catch(unknown), 1_000);
addEventListener("pagehide", () => { // a browser may keep a page that was left, with its connection
  turn++;
  drop();
});
addEventListener("pageshow", (e) => e.persisted && connect());
showOutbox();
connect();
