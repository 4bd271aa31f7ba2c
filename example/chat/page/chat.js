// The page: what is seen and typed. The server's own channels.js connects it, for all
// its rooms at once, and room.js has what a room adds to a channel.

import { connect } from "/channels.js";
import { Room } from "./room.js";

const $ = (id) => document.getElementById(id);
const SHOWN = 500; // messages that stay on the page
const PAUSE = 5 * 60_000; // after a pause this long, the author is named again

let user = localStorage.getItem("name") ?? "";
let last = null; // the last message shown: {from, at}
let here = null; // the one of these that is shown:
let client; // of channels.js
const joined = new Map(); // name → {room, messages, more, people, unread, outbox, draft}; messages is null until there are some to show

// signIn connects as the user, or again as another one, who is in the same rooms.
function signIn() {
  client?.close();
  client = connect({ data: { name: user } });
  client.on("state", () => joined.forEach(({ room }) => room.changed()));
  for (const r of joined.values()) r.room = room(r);
}

// --- messages

const clock = new Intl.DateTimeFormat([], { hour: "numeric", minute: "2-digit" });
const calendar = new Intl.DateTimeFormat([], { weekday: "long", day: "numeric", month: "long" });

// item makes the element for a message. Text is inserted as text, never as
// HTML.
function item({ from, text, at, generic }, previous) {
  const li = $("message-template").content.firstElementChild.cloneNode(true);
  const part = (name) => li.querySelector(name);
  const follows = previous?.from === from && at - previous.at < PAUSE && at.toDateString() === previous.at.toDateString();
  li.classList.toggle("mine", from === user && !generic);
  li.classList.toggle("generic", !!generic);
  li.classList.toggle("follows", follows);
  part("time").hidden = from === user && previous && clock.format(at) === clock.format(previous.at);
  face(part(".avatar"), generic ? "" : from);
  part(".from").textContent = from;
  part("time").textContent = clock.format(at);
  part("time").dateTime = at.toISOString();
  part("time").title = at.toLocaleString();
  if (generic) part(".text").textContent = text;
  else part(".text").append(...linked(text));
  return li;
}

// read converts a message for display. The hub says who published it: what comes from
// nobody, or is no chat message, comes from a program.
function read({ header, body, user, time }) {
  const at = new Date(time);
  if (header === "say" && user) return { from: user, text: body.text, at };
  const text = header === "say" ? body.text : `${header} ${JSON.stringify(body)}`.slice(0, 2000);
  return { from: "server", text, at, generic: true };
}

// linked splits a text into strings and links. Only http and https become
// links.
function linked(text) {
  return text.split(/(https?:\/\/[^\s<>"]+[^\s<>"'.,:;!?)\]])/).map((piece, i) => {
    if (i % 2 === 0 || !URL.canParse(piece)) return piece;
    const a = document.createElement("a");
    a.href = piece;
    a.target = "_blank";
    a.rel = "noopener noreferrer nofollow";
    a.textContent = piece;
    return a;
  });
}

// show adds a message at the end.
function show(m) {
  const view = read(m);
  const list = $("messages");
  if (last?.at.toDateString() !== view.at.toDateString()) list.append(day(view.at));
  const li = item(view, last);
  li.dataset.offset = m.offset;
  list.append(li);
  last = view;
  $("empty").hidden = true;
}

function showAll() {
  scroll.ariaBusy = "true"; // screen readers read new messages, not the whole history
  requestAnimationFrame(() => (scroll.ariaBusy = "false"));
  $("messages").replaceChildren();
  last = null;
  $("older").hidden = !here.more;
  here.messages?.forEach(show);
  showOutbox();
}

// trim forgets the oldest messages if there are too many, unless the reader has
// scrolled up to them.
function trim(r) {
  if (r.messages.length <= SHOWN || (r === here && !following)) return;
  r.messages.splice(0, r.messages.length - SHOWN);
  r.more = true;
  if (r !== here) return;
  const list = $("messages");
  while (list.querySelectorAll("[data-offset]").length > SHOWN) list.firstChild.remove();
  $("older").hidden = false;
}

// Older messages are added above; those on the screen stay where they are. The button is
// not disabled meanwhile: browsers take the focus from what is.
$("older").onclick = async () => {
  const r = here, oldest = r.messages[0];
  if (!oldest || $("older").ariaDisabled) return;
  $("older").ariaDisabled = "true";
  try {
    const { messages, more } = await r.room.older(oldest);
    if (oldest !== r.messages[0]) return; // it has begun anew
    r.messages.unshift(...messages);
    r.more = more;
    if (r !== here) return;
    const below = scroll.scrollHeight - scroll.scrollTop;
    following = false;
    if (!more && document.activeElement === $("older")) scroll.focus(); // the button goes
    showAll();
    scroll.scrollTop = scroll.scrollHeight - below;
    look();
  } catch {
    // the button is still there to try again
  } finally {
    $("older").ariaDisabled = null;
  }
};

function day(at) {
  const li = document.createElement("li");
  li.className = "day";
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(at).setHours(0, 0, 0, 0)) / 86_400_000);
  li.textContent = ["Today", "Yesterday"][days] ?? calendar.format(at);
  return li;
}

function showOutbox() {
  const { room, messages, outbox } = here;
  let previous = last;
  $("outbox").replaceChildren(...[...outbox].map(([key, m]) => {
    m.at ??= new Date();
    const view = { from: user, text: m.text, at: m.at };
    const li = item(view, previous);
    const fate = li.querySelector(".fate");
    previous = view;
    li.dataset.state = m.state;
    fate.textContent = { waiting: "Waiting for the connection", failed: `${m.error} ` }[m.state] ?? "";
    fate.hidden = !fate.textContent;
    if (m.state === "failed") {
      fate.append(m.refused ? button("Edit", () => edit(key, m.text)) : button("Try again", () => room.resend(key)));
      fate.append(button("Remove", () => room.forget(key)));
    }
    return li;
  }));
  $("empty").hidden = !messages || messages.length + outbox.size > 0 || room.state === "refused";
}

function button(label, onclick) {
  const b = document.createElement("button");
  b.type = "button";
  b.textContent = label;
  b.onclick = onclick;
  return b;
}

// edit returns a refused text to the input.
function edit(key, text) {
  input.value = [input.value.trim(), text].filter(Boolean).join("\n");
  here.room.forget(key);
  typed();
  input.focus();
}

// keep stores unsent messages, so that they survive a reload.
function keep(name, outbox) {
  const entries = [...outbox].filter(([, m]) => m.state !== "done").map(([key, m]) => [key, { ...m, state: m.state === "sent" ? "waiting" : m.state }]);
  if (entries.length) sessionStorage.setItem(`outbox ${name}`, JSON.stringify(entries));
  else sessionStorage.removeItem(`outbox ${name}`);
}

function kept(name) {
  const entries = JSON.parse(sessionStorage.getItem(`outbox ${name}`) ?? "[]");
  for (const [, m] of entries) m.at = new Date(m.at ?? Date.now());
  return new Map(entries);
}

// --- scrolling: the page follows the last message, unless the reader has
// scrolled up

const scroll = $("scroll");
let following = true;
let lastTop = 0; // the reader's last known position

scroll.addEventListener("scroll", look);

function look() {
  lastTop = scroll.scrollTop;
  following = scroll.scrollHeight - lastTop - scroll.clientHeight < 48;
  if (following) $("newer").hidden = true;
}

// lookUp notices that the reader has scrolled up before the scroll event, which
// comes with the next frame. Until then, a new message would scroll back down.
function lookUp() {
  if (scroll.scrollTop < lastTop) look();
}

$("newer").onclick = () => {
  scroll.focus(); // the button goes
  toBottom();
};

function toBottom() {
  following = true;
  $("newer").hidden = true;
  scroll.scrollTop = scroll.scrollHeight;
  lastTop = scroll.scrollTop;
}

// The composer grows, keyboards open, lines wrap: keep the last line visible.
const resized = new ResizeObserver(() => {
  lookUp();
  if (following) toBottom();
});
resized.observe(scroll);
resized.observe(scroll.firstElementChild);

// --- faces and people

function face(el, name) {
  let hash = 0;
  for (const c of name) hash = (hash * 31 + c.codePointAt(0)) % 100_003;
  const initials = name.split(/\s+/).map((word) => [...word][0]);
  el.textContent = [initials[0], initials.length > 1 ? initials.at(-1) : ""].join("").toUpperCase();
  el.style.setProperty("--hue", Math.round(hash * 137.5) % 360); // steps of the golden angle give different hues
}

// showPeople shows everyone once, however many pages they have open.
function showPeople() {
  const pages = Map.groupBy(here.people, (m) => m.user || "");
  const guests = pages.get("")?.length ?? 0;
  pages.delete("");
  if (user && here.room.state === "online" && !pages.has(user)) pages.set(user, []); // the list is slightly behind
  const names = [...pages.keys()].sort((a, b) => (b === user) - (a === user) || a.localeCompare(b));
  const people = names.map((name) => person(name, name === user ? "you" : ""));
  if (guests) people.push(person(guests === 1 ? "A program" : `${guests} programs`, ""));
  $("people").replaceChildren(...people);
  $("people-count").textContent = names.length;
  $("people-toggle").setAttribute("aria-label", `${names.length} people here`);
}

function person(name, note) {
  const li = document.createElement("li");
  const avatar = li.appendChild(document.createElement("span"));
  avatar.className = "avatar";
  avatar.ariaHidden = "true";
  face(avatar, name);
  const label = li.appendChild(document.createElement("span"));
  label.className = "name";
  label.textContent = name;
  if (note) {
    const small = li.appendChild(document.createElement("small"));
    small.textContent = note;
  }
  return li;
}

// --- rooms

const address = (name) => `#${encodeURIComponent(name)}`;

// possible turns an input into a valid room name.
const possible = (name) => name.trim().replace(/[\s/*?]+/g, "-");

function roomInAddress() {
  try {
    return possible(decodeURIComponent(location.hash.slice(1))) || "lobby";
  } catch {
    return "lobby"; // a stray % in the address
  }
}

// listRooms asks which rooms have people, and lists them and those that this page
// has joined.
let counts = new Map(); // room → connections
async function listRooms() {
  if (document.hidden) return;
  try {
    const res = await fetch("/v1/channel?limit=100", { cache: "no-store" });
    counts = new Map((await res.json()).data.map((c) => [c.channel_name, c.cnt]));
  } catch {
    return; // keep the list as it was
  }
  showRooms();
}

function showRooms() {
  const names = [...new Set(["lobby", ...joined.keys(), ...counts.keys()])].sort((a, b) => a.localeCompare(b));
  const before = new Map([...$("rooms").children].map((li) => [li.dataset.room, li]));
  const focused = document.activeElement;
  $("rooms").replaceChildren(...names.map((name) => {
    const li = before.get(name) ?? roomItem(name);
    const n = counts.get(name) ?? 0, unread = joined.get(name)?.unread;
    li.querySelector("a").ariaCurrent = name === here?.name ? "page" : null;
    li.querySelector("b").textContent = unread || "";
    li.querySelector("b").title = `${unread} unread`;
    li.querySelector("small").textContent = n || "";
    li.querySelector("small").title = `${n} connected`;
    li.querySelector("button").hidden = !joined.has(name) || joined.size === 1;
    return li;
  }));
  if ($("rooms").contains(focused)) focused.focus(); // moving the item took away the focus
}

function roomItem(name) {
  const li = $("room-template").content.firstElementChild.cloneNode(true);
  li.dataset.room = name;
  li.querySelector("a").href = address(name);
  li.querySelector("span").textContent = name;
  li.querySelector("button").ariaLabel = `Leave ${name}`;
  li.querySelector("button").onclick = () => leave(name);
  return li;
}

$("room-form").onsubmit = (e) => {
  e.preventDefault();
  const name = possible($("room-input").value);
  if (!name) return;
  $("room-input").value = "";
  location.hash = address(name);
  if (name === here?.name) closeDrawers();
};

// enter shows the room in the address. The page stays in the one before, and hears
// what is said there.
function enter() {
  const name = roomInAddress();
  if (!location.hash) history.replaceState(null, "", address(name));
  if (here) here.draft = input.value;
  here = joined.get(name) ?? join(name);
  here.unread = 0;
  $("room-name").textContent = name;
  showAll();
  toBottom();
  showState();
  showRooms();
  listRooms();
  closeDrawers();
  showTitle();
  input.value = here.draft;
  typed();
  if (matchMedia("(hover: hover)").matches) input.focus(); // on touch screens, it would open the keyboard
}

function join(name) {
  const r = { name, messages: null, more: false, people: [], unread: 0, outbox: kept(name), draft: "" };
  joined.set(name, r);
  r.room = room(r);
  return r;
}

// room makes the Room of what is known of it.
function room(r) {
  const shown = (show) => r === here && show();
  return new Room(r.name, client, r.outbox, {
    begin() {
      Object.assign(r, { messages: [], more: false });
      shown(showAll);
    },
    message(m, old) {
      if (r.messages.push(m) === 1) r.more = m.offset > 1;
      shown(() => {
        lookUp();
        show(m);
        $("older").hidden = !r.more;
      });
      trim(r);
      if (!old && (r !== here || document.hidden)) r.unread++;
      shown(() => following ? toBottom() : ($("newer").hidden = false));
      if (old) return;
      showRooms();
      showTitle();
    },
    outbox() {
      keep(r.name, r.outbox);
      shown(() => {
        lookUp();
        showOutbox();
        if (following) toBottom();
      });
    },
    people(members) {
      r.people = members;
      shown(showPeople);
    },
    state: () => shown(showState),
  });
}

// leave leaves a room. The page goes to another one if it shows this one.
function leave(name) {
  joined.get(name).room.leave();
  joined.delete(name);
  if (here.name === name) location.hash = address(joined.keys().next().value);
  else showRooms();
}

function showTitle() {
  const unread = [...joined.values()].reduce((sum, r) => sum + r.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}#${roomInAddress()} · Chat`;
}

// --- the connection's state

function showState() {
  const { state, reason } = here.room;
  const label = { online: "Live", connecting: "Connecting…", offline: "Offline, trying again…", refused: "Not in this room" }[state];
  $("state").dataset.state = state;
  $("state").firstElementChild.textContent = label;
  $("hint").textContent = {
    online: "Enter sends, Shift + Enter begins a new line",
    refused: "Nobody would see what you write here",
  }[state] ?? "What you write now is sent as soon as the connection is back";
  $("refused").hidden = state !== "refused";
  $("why").textContent = reason ?? "";
  input.readOnly = state === "refused"; // and keeps the focus
  typed();
  showOutbox();
  showPeople();
}

$("retry").onclick = () => {
  scroll.focus(); // the button goes
  client.state === "closed" ? signIn() : here.room.open();
};
document.addEventListener("visibilitychange", () => {
  if (document.hidden || !here) return;
  here.unread = 0;
  showTitle();
  here.room.refreshPeople();
  listRooms();
});
setInterval(listRooms, 5_000);
setInterval(() => document.hidden || here?.room.refreshPeople(), 15_000);

// --- writing

const input = $("message-input");

function typed() {
  $("send").ariaDisabled = input.value.trim() && !input.readOnly ? null : "true";
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

input.addEventListener("input", typed);
input.addEventListener("keydown", (e) => {
  // isComposing: this Enter completes a syllable of Korean, it does not send.
  if (e.key !== "Enter" || e.shiftKey || e.isComposing) return;
  e.preventDefault();
  $("composer").requestSubmit();
});
$("composer").onsubmit = (e) => {
  e.preventDefault();
  const text = input.value.trim();
  if (!text || !here || input.readOnly) return;
  input.value = "";
  typed();
  following = true;
  here.room.send(text);
  input.focus();
};

// --- the name

const nameDialog = $("name-dialog");

function askName() {
  $("name-input").value = user;
  nameDialog.showModal();
  $("name-input").select();
}

$("me").onclick = askName;
nameDialog.addEventListener("cancel", (e) => user || e.preventDefault()); // a name is required
nameDialog.querySelector("form").onsubmit = (e) => {
  const name = $("name-input").value.replace(/\s+/g, " ").trim();
  $("name-input").value = name;
  if (!name) return e.preventDefault();
  nameDialog.addEventListener("close", () => input.focus(), { once: true }); // the next input is a message
  if (name === user) return;
  user = name;
  localStorage.setItem("name", name);
  showName();
  signIn();
  enter();
};

function showName() {
  face($("me").querySelector(".avatar"), user);
  $("me").querySelector(".name").textContent = user;
}

// --- drawers: on small screens the panels slide in from the sides

const drawers = [
  { toggle: $("rooms-toggle"), panel: $("rooms-panel"), narrow: matchMedia("(max-width: 719px)") },
  { toggle: $("people-toggle"), panel: $("people-panel"), narrow: matchMedia("(max-width: 1023px)") },
];

function setDrawers(opened) {
  for (const { toggle, panel, narrow } of drawers) {
    const open = panel === opened && narrow.matches;
    panel.classList.toggle("open", open);
    panel.inert = narrow.matches && !open;
    toggle.ariaExpanded = String(open);
  }
  const any = !!document.querySelector(".panel.open");
  document.body.classList.toggle("dimmed", any);
  document.querySelector("main").inert = any;
}

function closeDrawers() {
  const open = drawers.find((d) => d.panel.classList.contains("open"));
  setDrawers(null);
  open?.toggle.focus();
}

for (const { toggle, panel, narrow } of drawers) {
  toggle.onclick = () => {
    setDrawers(panel);
    panel.querySelector(".close").focus();
  };
  panel.querySelector(".close").onclick = closeDrawers;
  narrow.onchange = () => setDrawers(null);
}
$("backdrop").onclick = closeDrawers;
addEventListener("keydown", (e) => e.key === "Escape" && closeDrawers());

// --- start

addEventListener("hashchange", () => user && enter());
setDrawers(null);
showName();
if (user) {
  signIn();
  enter();
} else {
  askName();
}
