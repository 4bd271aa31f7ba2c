// The page: the people and their messages. inbox.js receives, outbox.js sends.

import { Inbox, get, readHistory } from "./inbox.js";
import { Outbox } from "./outbox.js";

const $ = (id) => document.getElementById(id);
const LOOK = 3_000; // ms between requests for the list of people
const ALIVE = 15 * 60_000; // ms between calls that keep the session alive
const AGAIN = 1_000; // ms before another attempt to start

const users = new Map(); // by id: {id, name, gone, messages, unread}
const shown = new Set(); // sender and key of each message, so that each is shown once
let me, inbox, outbox;
let read; // by user: the position of the last message seen
let listed = null; // the position in the list of users
let connected = null; // the ids of connected users; null while unknown
let painted = {}; // the conversation on the page: {id, messages, count}

// --- the session

async function start() {
  try {
    me = await get("me");
  } catch (err) {
    if (err.status !== 401) return setTimeout(start, AGAIN); // the app is down and will return
    $("login").hidden = false;
    return $("name").focus();
  }
  $("login").hidden = true;
  $("app").hidden = false;
  $("me").textContent = me.name;
  read = JSON.parse(localStorage.getItem(`read ${me.id}`) ?? "{}");
  outbox = new Outbox(`outbox ${me.id}`, { changed: draw, signedOut });
  inbox = new Inbox(me.id, { begin, message: take, state: showState, signedOut });
  choose();
}

// signedOut starts over. Nothing of the former user stays on the page.
function signedOut() {
  location.hash = "";
  location.reload();
}

$("login").onsubmit = async (e) => {
  e.preventDefault();
  await once($("login").querySelector("button"), async () => {
    const trouble = await signIn().catch(() => "The app cannot be reached. Try again in a moment.");
    $("login-trouble").hidden = !trouble;
    $("login-trouble").textContent = trouble;
    if (!trouble) start();
  });
};

// once has a button do nothing while it is at work. It is not disabled: browsers take the
// focus from what is.
async function once(button, work) {
  if (button.ariaDisabled) return;
  button.ariaDisabled = "true";
  try {
    await work();
  } finally {
    button.ariaDisabled = null;
  }
}

// signIn returns why it was refused, or "".
async function signIn() {
  const res = await fetch("login", { method: "POST", body: JSON.stringify({ name: $("name").value }) });
  if (res.ok) return "";
  if (res.status === 429) return `Too many people have signed in from your network. Try again in ${res.headers.get("Retry-After")} seconds.`;
  if (res.status >= 500) return "The app is not working. Try again in a moment.";
  return (await res.text()).trim();
}

$("logout").onclick = () => once($("logout"), async () => {
  const res = await fetch("logout", { method: "POST" }).catch(() => null);
  if (!res?.ok) return showState("offline"); // still signed in
  outbox.forget();
  localStorage.removeItem(`read ${me.id}`);
  signedOut();
});

// --- receiving

function user(id) {
  if (!users.has(id)) users.set(id, { id, name: "", gone: false, messages: [], unread: false });
  return users.get(id);
}

// begin keeps what is on the page, except what is gone with another epoch. What the inbox
// keeps comes next, and is shown once.
function begin(epoch) {
  for (const u of users.values()) u.messages = u.messages.filter((m) => m.epoch === epoch);
  shown.clear();
  for (const u of users.values()) u.messages.forEach((m) => shown.add(m.id));
  outbox.settle();
  draw();
}

function take(m) {
  put(m);
  outbox.arrived(m.body.key);
  draw();
}

function put({ header, body, epoch, offset }) {
  if (header !== "message") return;
  const { from, to, text, key } = body, mine = from === me.id;
  const id = key ? `${from} ${key}` : `${epoch}:${offset}`;
  if (shown.has(id)) return;
  shown.add(id);
  const other = user(mine ? to : from);
  other.messages.push({ id, text, mine, epoch, offset });
  const seen = read[other.id];
  if (!mine && !(seen?.epoch === epoch && offset <= seen.offset)) other.unread = true;
}

// see marks messages as read, also for the next visit.
function see(u) {
  const last = u.messages.at(-1);
  if (!last || (!u.unread && read[u.id]?.offset === last.offset)) return;
  u.unread = false;
  read[u.id] = { epoch: last.epoch, offset: last.offset };
  localStorage.setItem(`read ${me.id}`, JSON.stringify(read));
}

// --- people: the list is polled, so that a tab needs no second connection; a
// browser has six for all tabs of a website

let looking = false;
async function look() {
  if (looking || !inbox || (document.hidden && listed)) return;
  looking = true;
  try {
    const [list, there] = await Promise.all([readHistory("users", listed), get("connected")]);
    if (list.whole) users.forEach((u) => (u.gone = true)); // this page has missed who signed out
    for (const { header, body } of list.messages) {
      if (header === "user") Object.assign(user(body.id), { name: body.name, gone: false });
      if (header === "gone") user(body.id).gone = true;
    }
    listed = list.position;
    connected = inbox.state === "online" ? new Set(there.data) : null;
  } catch {
    connected = null;
  }
  looking = false;
  draw();
}

function showState(state) {
  $("state").dataset.state = state;
  $("state").textContent = { online: "Connected", connecting: "Connecting…", offline: "Not connected, trying again…" }[state];
  if (state === "online") {
    outbox.wake();
    look();
  } else {
    connected = null;
  }
  draw();
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  look();
  draw();
});
setInterval(look, LOOK);
setInterval(() => me && get("me").catch((err) => err.status === 401 && signedOut()), ALIVE);

// --- drawing

const scroll = $("scroll");
let following = true; // at the bottom, unless the reader has scrolled up
let lastTop = 0; // the reader's last known position
scroll.onscroll = noteTop;

function noteTop() {
  lastTop = scroll.scrollTop;
  following = scroll.scrollHeight - lastTop - scroll.clientHeight < 80;
}

// toBottom keeps the last line visible, unless the reader has scrolled up,
// which the scroll event may report later.
function toBottom() {
  if (scroll.scrollTop < lastTop) noteTop();
  if (following) scroll.scrollTop = scroll.scrollHeight;
  lastTop = scroll.scrollTop;
}

let drawing = false;
function draw() { // once for many messages; a background tab has no frames, but a title
  if (!drawing) setTimeout(paint, 16);
  drawing = true;
}

function paint() {
  drawing = false;
  if (!inbox) return;
  const current = chosen();
  if (current && !document.hidden) see(current);
  paintList(current);
  paintConversation(current);
  const unread = [...users.values()].filter((u) => u.unread).length;
  document.title = `${unread ? `(${unread}) ` : ""}${current ? `${nameOf(current)} · ` : ""}Private messages`;
}

// nameOf does not know users who are no longer on the list.
const nameOf = (u) => u.name || (listed ? "Somebody" : "…");
const left = (u) => u.gone || (listed && !u.name && !connected?.has(u.id));

function presenceOf(u) {
  if (left(u)) return ["false", "has signed out"];
  if (!connected) return ["unknown", "connected or not: unknown until this page is connected again"];
  return connected.has(u.id) ? ["true", "connected"] : ["false", "not connected"];
}

function paintList(current) {
  const others = [...users.values()]
    .filter((u) => u.id !== me.id && ((u.name && !u.gone) || u.messages.length || outbox.to(u.id).length))
    .sort((a, b) => nameOf(a).localeCompare(nameOf(b)) || (a.id < b.id ? -1 : 1));
  $("nobody").hidden = !listed || others.length > 0;
  const list = $("users");
  const focused = list.contains(document.activeElement) && document.activeElement.closest("li").dataset.user;
  const before = new Map([...list.children].map((li) => [li.dataset.user, li]));
  list.replaceChildren(...others.map((u) => {
    const li = before.get(u.id) ?? userItem(u.id);
    const button = li.firstChild, [state, words] = presenceOf(u);
    li.dataset.connected = state;
    button.title = words;
    button.setAttribute("aria-current", u === current);
    li.querySelector(".name").textContent = nameOf(u);
    li.querySelector(".new")?.remove();
    if (u.unread) button.append(element("span", "new", "new"));
    return li;
  }));
  if (focused) before.get(focused)?.firstChild.focus(); // moving the item took away the focus
}

function userItem(id) {
  const li = document.createElement("li"), button = document.createElement("button");
  li.dataset.user = id;
  button.append(element("span", "name", ""));
  button.onclick = () => (location.hash = id);
  li.append(button);
  return li;
}

function paintConversation(current) {
  $("hint").hidden = Boolean(current?.messages.length || (current && (!listed || outbox.to(current.id).length)));
  $("hint").textContent = !current ? "Choose someone to write to" : left(current) ? "" : "Nothing was written in the last 24 hours";
  $("header").hidden = !current;
  $("write").hidden = !current || left(current);
  if (!current) return;
  const list = $("messages");
  if (scroll.scrollTop < lastTop) noteTop();
  if (painted.id !== current.id) {
    following = true;
    lastTop = 0;
  }
  if (painted.id !== current.id || painted.messages !== current.messages) {
    list.replaceChildren();
    painted = { id: current.id, messages: current.messages, count: 0 };
  }
  list.append(...current.messages.slice(painted.count).map((m) => element("li", m.mine ? "mine" : "", m.text)));
  painted.count = current.messages.length;
  $("outbox").replaceChildren(...outbox.to(current.id).map(unsent));
  $("with").textContent = nameOf(current);
  const [state, words] = presenceOf(current);
  $("presence").textContent = inbox.state === "online" ? (state === "unknown" ? "" : words) : "you are not connected";
  toBottom();
}

function unsent(m) {
  const li = element("li", "", "");
  li.dataset.state = m.state;
  li.append(element("span", "text", m.text));
  if (m.state === "waiting" && m.tried) li.append(element("p", "fate", "Not sent yet, trying again…"));
  if (m.state !== "failed") return li;
  const fate = element("p", "fate", `Not sent: ${m.error} `);
  fate.append(action("Try again", () => outbox.resend(m.key)), action("Remove", () => outbox.remove(m.key)));
  li.append(fate);
  return li;
}

// element makes an element. Its text is inserted as text, never as HTML.
function element(tag, className, text) {
  const e = document.createElement(tag);
  e.className = className;
  e.textContent = text;
  return e;
}

function action(label, onclick) {
  const b = element("button", "", label);
  b.type = "button";
  b.onclick = onclick;
  return b;
}

// --- the conversation is in the address, so that it survives a reload

const chosen = () => (me && location.hash.length > 1 ? user(location.hash.slice(1)) : null);

function choose() {
  if (location.hash.length > 1 && !/^#[a-z2-7]{16}$/.test(location.hash)) location.hash = ""; // not a user's id
  $("app").classList.toggle("chosen", location.hash.length > 1);
  draw();
  if (location.hash.length > 1 && matchMedia("(hover: hover)").matches) requestAnimationFrame(() => $("text").focus()); // on touch screens, it would open the keyboard
}

addEventListener("hashchange", () => me && choose());
$("back").onclick = () => (location.hash = "");

$("write").onsubmit = (e) => {
  e.preventDefault();
  const text = $("text").value.trim(), current = chosen();
  if (!text || !current) return;
  $("text").value = "";
  following = true;
  outbox.add(current.id, text);
};

new ResizeObserver(toBottom).observe(scroll); // a keyboard may open
start();
