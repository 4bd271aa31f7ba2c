// The page: its replica, the state of all replicas, and a room whose messages
// go through the replica that the balancer chose.

import { connect } from "/channels.js";

const $ = (id) => document.getElementById(id);
const ROOM = "lobby";
const PATIENCE = 8_000; // ms to wait for an answer; longer than replicas wait for their store
const SOON = 1_000; // ms in which a connected page is in the room, if the store is there
const KEY_LIFE = 4 * 60_000; // ms; the replicas remember keys for 5 minutes
const SHOWN = 300; // messages that stay on the page

let user = sessionStorage.getItem("name") ?? `Guest ${100 + Math.floor(Math.random() * 900)}`;
let history = null; // whether the replicas keep one; null until they have told
let client, room; // of channels.js
let here = ""; // the replica that this page is on, or was last on
let dead = false; // all replicas are dead
let timer;

// Messages without an answer: key → {text, state, error, sentAt}. The state is
// "waiting", "sent" or "failed". They survive a reload of the page.
const outbox = new Map(JSON.parse(sessionStorage.getItem("outbox") ?? "[]"));

// What error codes mean for the reader of the page.
const FORBIDDEN = 103, BAD_REQUEST = 107;
const LOST = "No answer came; it may have been sent.";

// --- the connection

// enter connects under the user's name.
function enter() {
  client?.close();
  client = connect({ data: { name: user }, transport: "websocket", maxDelay: 2_000 }); // the balancer passes WebSockets, and a replica comes soon
  client.on("state", async (state) => {
    changed();
    if (state === "live") arrived(await client.call("where").catch(() => here));
  });
  open();
  for (const [key, m] of outbox) if (m.state === "waiting") deliver(key, m);
}

// open begins with the newest messages, if there is a history. If some that were missed
// are no longer kept, it begins anew.
function open() {
  const own = room = client.channel(ROOM, history ? { last: 50 } : {});
  let begun = false;
  own.on("state", (state) => {
    if (own !== room) return;
    if (state === "live" && !begun && history) $("messages").replaceChildren();
    begun ||= state === "live";
    changed();
  });
  own.on("reset", () => {
    if (!history) return; // it has missed what was said, and goes on
    room = null;
    own.close();
    open();
  });
  own.on("message", message);
}

// changed shows the state of the connection.
function changed() {
  clearTimeout(timer);
  const connected = client.state === "live";
  if (connected && room.state === "live") {
    show("online", "Live");
  } else if (connected) {
    timer = setTimeout(show, SOON, "away", "The store is away: the room opens when it is back");
  } else {
    if (dead) show("offline", "All replicas are dead: start one");
    else if (here) show("offline", "Looking for another replica…");
    else show("connecting", "Connecting…");
    $("here").textContent = here ? "no replica" : "no replica yet";
  }
  for (const m of outbox.values()) {
    if (m.state !== "waiting" && m.state !== "sent") continue;
    m.state = connected ? "sent" : "waiting";
    if (connected) m.sentAt ??= Date.now();
  }
  showOutbox();
}

function arrived(node) {
  if (client.state !== "live") return; // it has gone already
  if (here && here !== node) news(`You have moved from ${here} to ${node}`);
  here = node;
  dead = false;
  $("here").textContent = node;
  look().catch(unknown);
}

// --- sending: messages wait while there is no replica. With a history, each is said
// once. Without one, a duplicate would go unnoticed, so the author decides about a
// message whose answer is lost.

function say(text) {
  const key = crypto.getRandomValues(new Uint32Array(4)).join("-"); // randomUUID needs HTTPS
  outbox.set(key, { text });
  again(key);
}

async function deliver(key, m) {
  try {
    if (m.sentAt && (!history || Date.now() - m.sentAt > KEY_LIFE)) throw { code: "lost" }; // before a reload
    await room.publish("say", { text: m.text, key }, { key });
    outbox.delete(key);
  } catch ({ code, message }) {
    if (code === "closed") return; // the next connection sends it
    const why = { [FORBIDDEN]: "you are not allowed to write here", [BAD_REQUEST]: message }[code] ?? "the replica did not take it";
    Object.assign(m, { state: "failed", refused: code === BAD_REQUEST, error: code === "lost" ? LOST : `Not sent: ${why}.` });
  }
  showOutbox();
}

function showOutbox() {
  sessionStorage.setItem("outbox", JSON.stringify([...outbox].map(([key, m]) => [key, { ...m, state: m.state === "sent" ? "waiting" : m.state }])));
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
  const m = outbox.get(key);
  Object.assign(m, { state: "waiting", error: null, sentAt: null });
  if (client) deliver(key, m);
  if (client) changed();
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
  if (outbox.delete(body.key)) showOutbox();
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
  say(text);
};

$("name").value = user;
$("name").onchange = () => {
  const name = $("name").value.replace(/\s+/g, " ").trim();
  $("name").value = name || user;
  if (!name || name === user) return;
  sessionStorage.setItem("name", user = name);
  if (client) enter();
};

// --- the replicas: what the balancer knows about its processes, and what the
// replicas know about each other

async function look() {
  const processes = await get("/replicas");
  dead = processes.data.every((p) => !p.pid);
  if (history === null) {
    mode(history = processes.history);
    enter();
  }
  if (client.state !== "live") changed();
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
  li.ariaCurrent = client.state === "live" && node === here ? "true" : null;
  // The replicas' data about each other is some seconds old, but not this
  // page's own connection.
  const n = Math.max(known?.connections ?? 0, client.state === "live" && node === here ? 1 : 0);
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

// act presses a switch of the program. The button is not disabled meanwhile: browsers
// take the focus from what is.
async function act(button, path) {
  if (button.ariaDisabled) return;
  button.ariaDisabled = "true";
  try {
    const res = await fetch(path, { method: "POST" });
    if (!res.ok) news(await res.text());
    await look();
  } catch {
    unknown();
  }
  button.ariaDisabled = null;
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
  if (!res.ok) throw new Error(res.statusText);
  return res.json();
}

setInterval(() => document.hidden || look().catch(unknown), 1_000);
showOutbox();
look().catch(unknown);
