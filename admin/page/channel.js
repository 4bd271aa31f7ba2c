// One channel: its numbers, its history, who is there, and what is published now.

import { $, el, keyed, refused, said, text, usable } from "./dom.js";
import { bytes, count, number, time } from "./format.js";
import { get, post } from "./api.js";

// most bounds the messages that are kept of the live tail.
const most = 200;

let name = null;
let before = ""; // of which offset the history shows the messages; empty: the newest
let stream = null;
let paused = false;
let waiting = []; // what came while the tail was paused, or since it was drawn last
let missed = 0;

// openChannel shows a channel, and closeChannel stops following it.
export function openChannel(to) {
  if (name === to) return;
  closeChannel();
  name = to;
  before = "";
  text($("channel-name"), name);
  for (const id of ["tail", "history", "channel-numbers"]) $(id).replaceChildren();
  $("presence").tBodies[0].replaceChildren();
  for (const id of ["publish-answer", "presence-answer", "presence-state"]) said($(id), "");
  pause(false);
  follow();
}

export function closeChannel() {
  stream?.close();
  stream = name = null;
  waiting = [];
  missed = 0;
}

// follow opens the stream, unless it is open. In a tab that nobody sees it stays closed:
// over HTTP/1.1, six streams take all the connections that a browser makes to a server.
function follow() {
  if (name === null || document.hidden || (stream && stream.readyState !== EventSource.CLOSED)) return;
  if (stream && !paused && $("tail").children.length) $("tail").prepend(el("li", { class: "skipped" }, "not followed for a while"));
  const mine = (stream = new EventSource("api/tail?" + new URLSearchParams({ name })));
  mine.onopen = drawTailState;
  mine.onerror = drawTailState; // it comes again by itself; if it was refused, after the next answer
  mine.onmessage = (e) => {
    const batch = JSON.parse(e.data);
    missed += batch.skipped;
    waiting.push(...batch.messages);
    if (waiting.length > most) {
      missed += waiting.length - most;
      waiting = waiting.slice(-most);
    }
    if (!paused) drawTail();
    drawTailState();
  };
  mine.addEventListener("over", (e) => {
    mine.close();
    drawTailState();
    text($("tail-state"), `It has ended: ${JSON.parse(e.data)}`);
  });
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) stream?.close();
  else follow();
  if (stream) drawTailState();
});

function drawTail() {
  const list = $("tail");
  if (missed) list.prepend(el("li", { class: "skipped" }, `${count(missed, "message")} not shown`));
  for (const m of waiting) list.prepend(message(m));
  while (list.children.length > most) list.lastElementChild.remove();
  waiting = [];
  missed = 0;
}

function drawTailState() {
  const states = ["connecting…", "following", "not followed; trying again…"];
  const words = paused ? `paused, ${count(waiting.length + missed, "new message")}` : states[stream?.readyState ?? 2];
  text($("tail-state"), words);
}

function pause(on) {
  paused = on;
  const b = $("tail-pause");
  b.setAttribute("aria-pressed", on);
  text(b, on ? "Go on" : "Pause");
  if (!on) drawTail();
  if (stream) drawTailState();
}

$("tail-pause").addEventListener("click", () => pause(!paused));
$("tail-clear").addEventListener("click", () => $("tail").replaceChildren());

// message shows a message, as text.
function message(m) {
  return el("li", {},
    el("p", { class: "about" },
      m.time_ms ? el("time", {}, time(m.time_ms)) : null,
      el("strong", {}, m.header),
      m.offset ? el("span", {}, "#" + m.offset) : null,
      m.user || m.publisher ? el("span", { class: "from" }, "from " + (m.user || m.publisher)) : null,
      el("span", { class: "size" }, bytes(m.bytes))),
    el("pre", {}, m.body));
}

// place is an offset, which may be too large for a number of JavaScript.
const place = (offset) => "#" + BigInt(offset).toLocaleString("en");

export async function drawChannel() {
  const of = name, from = before;
  let c;
  try {
    c = await get("channel", { name: of, before });
  } catch (e) {
    if (of === name) text($("history-state"), e.message);
    throw e;
  }
  if (of !== name || from !== before) return; // what is asked for by now is another answer
  follow();
  const h = c.history, p = c.presence;
  const numbers = [["Subscribers", number(c.subscribers)], ["Publishes in 60 s", number(c.publishes)]];
  if (h) numbers.push(["Last message", h.offset === "0" ? "none" : place(h.offset)], ["Oldest kept", h.messages.length ? place(h.first) : "none"]);
  else numbers.push(["History", "none kept"]);
  keyed($("channel-numbers"), numbers, ([label]) => label, ([label]) => el("div", {}, el("dt", {}, label), el("dd")), (e, [, value]) => text(e.lastElementChild, value));
  $("history-card").hidden = !h;
  if (h) drawHistory(h);
  text($("presence-state"), p ? (p.total > p.members.length ? `${number(p.members.length)} of ${number(p.total)}` : count(p.total, "connection")) : "this channel keeps no presence");
  keyed($("presence").tBodies[0], p?.members ?? [], (m) => m.client, makeMember, () => {});
}

function drawHistory(h) {
  const newest = h.messages.toReversed();
  keyed($("history"), newest, (m) => h.epoch + " " + m.offset, message, () => {});
  text($("history-state"), !newest.length ? "nothing is kept" : `#${newest.at(-1).offset} to #${newest[0].offset}`);
  usable($("history-newest"), before !== "");
  usable($("history-older"), newest.length > 0 && BigInt(newest.at(-1).offset) > BigInt(h.first));
  $("history-older").dataset.before = newest.at(-1)?.offset ?? "";
}

function page(to) {
  before = to;
  drawChannel().catch(() => {}); // the next look tells what is wrong
}

$("history-older").addEventListener("click", () => page($("history-older").dataset.before));
$("history-newest").addEventListener("click", () => page(""));

function makeMember(m) {
  const buttons = [el("button", { "data-client": m.client, "aria-label": `Disconnect the connection ${m.client}` }, "Disconnect")];
  if (m.user) buttons.push(el("button", { "data-user": m.user, "aria-label": `Disconnect all connections of ${m.user}` }, "Disconnect user"));
  return el("tr", {},
    el("td", {}, el("div", {}, m.user ? el("strong", {}, m.user) : null, el("code", {}, m.client), m.info ? el("span", { class: "info" }, m.info) : null)),
    el("td", { class: "buttons" }, ...buttons));
}

$("presence").addEventListener("click", async (e) => {
  const { user, client } = e.target.closest("button")?.dataset ?? {};
  if (!user && !client) return;
  const whom = user ? `all connections of the user ${user}` : `the connection ${client}`;
  const back = "A client of the client protocol does not come back by itself. Others, such as an EventSource, may be back within a second: to keep somebody out, have the app refuse them.";
  if (!(await ask(`Disconnect ${whom}?`, (user ? "They are closed on every replica, in all channels. " : "It leaves all its channels. ") + back, "Disconnect"))) return;
  try {
    const a = await post("disconnect", user ? { user } : { client });
    said($("presence-answer"), disconnected(whom, Boolean(user), a.here));
  } catch (err) {
    refused($("presence-answer"), `Not disconnected: ${err.message}`);
  }
});

// disconnected says what was done. The other replicas are told, and do not answer.
function disconnected(whom, user, here) {
  if (!user && here) return `Closed ${whom}.`;
  if (!user) return `Told the replica that has ${whom} to close it.`;
  return `${here ? `Closed ${count(here, "connection")} at this replica, and told` : "Told"} the other replicas to close ${whom} there.`;
}

// ask returns whether the operator says yes.
function ask(title, words, yes) {
  const dialog = $("ask");
  text($("ask-title"), title);
  text($("ask-text"), words);
  text($("ask-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

$("publish").addEventListener("submit", async (e) => {
  e.preventDefault();
  const answer = $("publish-answer"), body = $("publish-body").value;
  try {
    JSON.parse(body);
  } catch (err) {
    refused(answer, `The body is not JSON: ${err.message}. Even a text needs quotes.`);
    $("publish-body").focus();
    return;
  }
  said(answer, "Publishing…");
  try { // the body as it was typed: JavaScript would round large numbers
    const a = await post("publish", `{"channel":${JSON.stringify(name)},"header":${JSON.stringify($("publish-header").value)},"body":${body}}`);
    said(answer, `Published${a.offset ? ` as #${a.offset}` : ""}: ${count(a.receivers, "subscriber")} at this replica, besides this page.`);
  } catch (err) {
    refused(answer, `Not published: ${err.message}`);
  }
});
