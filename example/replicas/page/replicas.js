// The page: which replica it is on, how they all are, and a room whose
// messages go through whichever replica the balancer has chosen.

const $ = (id) => document.getElementById(id);
const ROOM = "lobby";
const RETRY_MIN = 250, RETRY_MAX = 5_000; // ms between attempts, growing
const PATIENCE = 8_000; // with an answer; longer than replicas wait for their store
const PAST = `/v1/channel/${ROOM}/history?limit=50`;
const AGAIN = 2_000; // ms between looks for a store that is away
const SHOWN = 300; // messages that stay on the page

const page = String(crypto.getRandomValues(new Uint32Array(1))[0]); // tells this page from others of the same name
let user = sessionStorage.getItem("name") ?? `Guest ${100 + Math.floor(Math.random() * 900)}`;
let history = null; // whether the replicas keep one; null until they have said so
let position = null; // of the last message shown, where there is a history
let away = false; // the store, when it was last asked
let here = ""; // the replica that this page is on, or was last
let socket = null;
let turn = 0; // of connect: an earlier one that still waits for an answer gives up
let attempts = 0;
let timer;
const unanswered = new Map(); // key → text

// --- the connection

async function connect() {
  const own = ++turn;
  drop();
  if (!away) show("connecting", "Connecting…");
  try {
    if (history === null) await look();
    if (history && (!position || attempts > 1)) { // a page that finds no way in, too, wants to know why
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
    // A replica answers. It lets this page in where it has others in the room.
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
  if (!history && unanswered.size) { // nothing would notice that it is said twice
    unanswered.clear();
    news("No answer came to your last message: it may not have been said");
  }
  later();
}

function drop() {
  clearTimeout(timer);
  const s = socket;
  socket = null;
  if (!s) return;
  s.onclose = s.onmessage = null;
  s.close();
}

// later connects after a wait that grows and differs from page to page, so
// that they do not all come back at once.
function later() {
  if (away) show("away", "The store is away: the room opens when it is back");
  else show("offline", "Looking for another replica…");
  if (!here) $("here").textContent = "no replica yet";
  const wait = Math.min(RETRY_MAX, RETRY_MIN * 2 ** attempts++) * (0.5 + Math.random() / 2);
  timer = setTimeout(connect, wait);
}

function received(s, m) {
  switch (m.header) {
    case "presence": { // the own arrival tells which replica this is
      const { node, page: who } = m.body.member.info ?? {};
      if (m.body.event === "join" && who === page) arrived(node);
      return;
    }
    case "exchange":
      unanswered.delete(m.id);
      return;
    case "error":
      unanswered.delete(m.id);
      return news(`Not said: ${m.body.msg}`);
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
  $("here").textContent = node;
  if (!history || position) {
    show("online", "Live");
  } else {
    show("away", "The store is away: no history for now");
    timer = setTimeout(back, AGAIN, socket);
  }
  for (const [key, text] of unanswered) send(key, text); // with a key, the replicas say it once
  look();
}

// back starts again, with the history, when the store answers.
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

function send(key, text) {
  const m = { header: "say", body: { text }, id: key };
  if (history) m.key = key;
  unanswered.set(key, text);
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(m));
}

function show(state, text) {
  $("state").dataset.state = state;
  $("state").textContent = text;
}

// --- messages: text goes in as text, never as HTML

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

// news is a line between messages about what has happened to this page.
function news(text) {
  const li = document.createElement("li");
  li.className = "news";
  li.textContent = text;
  add(li);
}

function add(li) {
  const scroll = $("scroll");
  const following = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 80;
  $("messages").append(li);
  while ($("messages").children.length > SHOWN) $("messages").firstChild.remove();
  if (following) scroll.scrollTop = scroll.scrollHeight;
}

$("composer").onsubmit = (e) => {
  e.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  send(crypto.getRandomValues(new Uint32Array(4)).join("-"), text);
};

$("name").value = user;
$("name").onchange = () => {
  const name = $("name").value.replace(/\s+/g, " ").trim();
  $("name").value = name || user;
  if (!name || name === user) return;
  sessionStorage.setItem("name", user = name);
  connect();
};

// --- the replicas: what the balancer knows of its processes, and what the
// replicas know of each other

async function look() {
  const processes = await get("/replicas");
  if (history === null) mode(history = processes.history);
  let nodes = [];
  try {
    nodes = (await get("/v1/nodes")).data;
  } catch {
    // none is running
  }
  processes.data.forEach((p, i) => replica(i, p, nodes.find((n) => n.node === p.node)));
}

function replica(i, { node, pid, ready }, known) {
  let li = $("replicas").children[i];
  if (!li) {
    li = $("replica-template").content.firstElementChild.cloneNode(true);
    li.querySelector(".node span").textContent = node;
    li.querySelector("button").onclick = () => act(li, i + 1);
    $("replicas").append(li);
  }
  const status = known?.status ?? "unknown";
  li.dataset.light = pid ? status : "red";
  li.ariaCurrent = node === here ? "true" : null;
  // What the replicas tell of each other is some seconds old: not that of this page.
  const n = Math.max(known?.connections ?? 0, node === here && socket ? 1 : 0);
  const how = {
    green: ready ? `pid ${pid}, ${n} ${n === 1 ? "connection" : "connections"}` : "starting",
    unknown: "starting",
  }[status] ?? known.reasons.join(", ");
  const rumour = { green: "the others have not noticed yet", unknown: "the others have forgotten it" }[status] ?? `the others say: ${known?.reasons.join(", ")}`;
  li.querySelector(".how").textContent = pid ? how : `killed; ${rumour}`;
  const button = li.querySelector("button");
  button.dataset.does = pid ? "kill" : "start";
  button.textContent = pid ? "Kill" : "Start";
  button.ariaLabel = `${button.textContent} ${node}`;
}

async function act(li, n) {
  const button = li.querySelector("button");
  button.disabled = true;
  try {
    const res = await fetch(`/replicas/${n}/${button.dataset.does}`, { method: "POST" });
    if (!res.ok) news(await res.text());
    await look();
  } catch {
    // the program has ended, which the connection shows
  }
  button.disabled = false;
}

function mode(history) {
  $("mode").textContent = history
    ? "The replicas share a Redis: the room has a history, and a page that moves misses nothing."
    : "The replicas share no store: what is said while a page moves passes it by. With -redis nothing would.";
}

async function get(path) {
  const res = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (!res.ok) {
    const refusal = await res.json().catch(() => null); // the balancer's own is none
    throw Object.assign(new Error(res.statusText), { code: refusal?.error?.code });
  }
  return res.json();
}

setInterval(() => document.hidden || look().catch(() => {}), 1_000);
addEventListener("pageshow", (e) => e.persisted && connect());
connect();
