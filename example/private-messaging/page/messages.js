// The page: who is there, and what they wrote. Both come as streams of events,
// which the browser resumes by itself where they were cut.

const $ = (id) => document.getElementById(id);
const users = new Map(); // by id: { id, name, connected, messages, unread }
let me, current;

async function start() {
  const res = await fetch("me");
  if (res.status === 401) {
    $("login").hidden = false;
    $("name").focus();
    return;
  }
  if (!res.ok) return setTimeout(start, 1000); // the store is away; it comes back
  me = await res.json();
  $("login").hidden = true;
  $("app").hidden = false;
  $("me").textContent = me.name;
  follow("users", (m) => {
    if (m.header === "user") Object.assign(user(m.body.id), m.body);
    if (m.header === "presence") presence();
  });
  follow("inbox." + me.id, (m) => {
    if (m.header !== "message") return;
    const { from, to } = m.body;
    const other = user(from === me.id ? to : from);
    other.messages.push({ text: m.body.text, mine: from === me.id });
    if (from !== me.id && current !== other.id) other.unread = true;
  });
  presence();
  setInterval(presence, 5000); // those on other replicas
  setInterval(alive, 15 * 60_000);
}

// alive keeps the session from ending, which it does 24 h after the last time.
async function alive() {
  const res = await fetch("me").catch(() => null);
  if (res?.status === 401) location.reload(); // it has ended: sign in again
}

// follow hands over all messages of a channel, those of the last 24 h first.
function follow(channel, take) {
  const events = new EventSource(`channel/${channel}/?since=:0`);
  addEventListener("pagehide", () => events.close()); // a browser may keep a page that was left
  events.onerror = () => events.readyState === EventSource.CLOSED && alive(); // it was refused for good
  events.onmessage = (e) => {
    const m = JSON.parse(e.data);
    if (m.header === "reset") return location.reload(); // what was missed is read anew
    take(m);
    draw();
  };
}

function user(id) {
  if (!users.has(id)) users.set(id, { id, name: "…", connected: false, messages: [], unread: false });
  return users.get(id);
}

async function presence() {
  const res = await fetch("v1/channel/users/presence").catch(() => null);
  if (!res?.ok) return;
  const there = new Set((await res.json()).data.map((m) => m.user));
  for (const u of users.values()) u.connected = there.has(u.id);
  draw();
}

let drawing = false;
function draw() { // once for many messages
  if (!drawing) requestAnimationFrame(paint);
  drawing = true;
}

function paint() {
  drawing = false;
  const others = [...users.values()].filter((u) => u.id !== me.id).sort((a, b) => a.name.localeCompare(b.name) || (a.id < b.id ? -1 : 1));
  $("nobody").hidden = others.length > 0;
  const focused = document.activeElement?.closest?.("#users li")?.dataset.user;
  $("users").replaceChildren(...others.map((u) => {
    const li = document.createElement("li"), button = document.createElement("button"), name = document.createElement("span");
    li.dataset.user = u.id;
    li.dataset.connected = u.connected;
    name.textContent = u.name;
    name.className = "name";
    button.setAttribute("aria-current", u.id === current);
    button.title = u.connected ? "connected" : "not connected";
    button.append(name);
    if (u.unread) {
      const fresh = document.createElement("span");
      fresh.className = "new";
      fresh.textContent = "new";
      button.append(fresh);
    }
    button.onclick = () => choose(u.id);
    li.append(button);
    return li;
  }));
  if (focused) document.querySelector(`#users li[data-user="${focused}"] button`)?.focus();
  const u = users.get(current);
  if (!u) return;
  $("with").textContent = u.name;
  const list = $("messages");
  for (const m of u.messages.slice(list.children.length)) {
    const li = document.createElement("li");
    li.textContent = m.text;
    li.className = m.mine ? "mine" : "";
    list.append(li);
    li.scrollIntoView();
  }
}

function choose(id) {
  current = id;
  user(id).unread = false;
  $("messages").replaceChildren();
  $("write").hidden = false;
  $("text").focus();
  draw();
}

$("login").onsubmit = async (e) => {
  e.preventDefault();
  const res = await fetch("login", { method: "POST", body: JSON.stringify({ name: $("name").value }) });
  if (res.ok) return start();
  $("name").setCustomValidity((await res.text()).trim());
  $("name").reportValidity();
  $("name").oninput = () => $("name").setCustomValidity("");
};

$("write").onsubmit = (e) => {
  e.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  send({ to: current, text, key: crypto.getRandomValues(new Uint32Array(4)).join("-") });
};

// send tries until the server has it; the key keeps it from arriving twice.
async function send(message) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 5000)) {
    const res = await fetch("messages", { method: "POST", body: JSON.stringify(message) }).catch(() => null);
    const refused = res && res.status < 500 && !res.ok;
    $("trouble").hidden = Boolean(res?.ok);
    if (refused) $("trouble").textContent = await res.text();
    if (res?.ok || refused) return;
    $("trouble").textContent = "Not sent yet; trying again…";
    await new Promise((done) => setTimeout(done, wait));
  }
}

addEventListener("pageshow", (e) => e.persisted && location.reload()); // it came back from there
start();
