// The list of channels: searched, sorted, page by page.

import { $, el, keyed, text, attribute, usable } from "./dom.js";
import { number, lasting } from "./format.js";
import { get } from "./api.js";

const size = 50;

const state = { text: "", how: "contains", sort: "subscribers", offset: 0 };
let total = 0;
let asked = 0; // an answer to an earlier question is not shown any more

export const address = (name) => "#/channel/" + encodeURIComponent(name);

// readList takes the search from an address, and writeList puts it there, so that "back"
// and a reload find it again.
export function readList(query) {
  const q = new URLSearchParams(query);
  state.how = q.has("prefix") ? "prefix" : "contains";
  state.text = q.get(state.how) ?? "";
  state.sort = ["name", "publishes"].includes(q.get("sort")) ? q.get("sort") : "subscribers";
  state.offset = Math.max(0, Math.floor(Number(q.get("offset")) || 0));
  if ($("find-text").value !== state.text) $("find-text").value = state.text;
  $("find-how").value = state.how;
}

export function listAddress() {
  const q = new URLSearchParams();
  if (state.text) q.set(state.how, state.text);
  if (state.sort !== "subscribers") q.set("sort", state.sort);
  if (state.offset) q.set("offset", state.offset);
  return "#/channels" + (q.size ? "?" + q : "");
}

function change(what) {
  Object.assign(state, what);
  history.replaceState(null, "", listAddress());
  drawList().catch(() => {}); // the next look tells what is wrong
}

export async function drawList() {
  const mine = ++asked;
  let answer;
  try {
    answer = await get("channels", { [state.how]: state.text, sort: state.sort, offset: state.offset, limit: size });
  } catch (e) {
    if (mine === asked) say(e.message);
    throw e;
  }
  if (mine !== asked) return;
  if (answer.offset !== state.offset || (answer.offset && !answer.channels.length)) { // the list is shorter by now
    change({ offset: Math.max(0, Math.ceil(answer.total / size) - 1) * size });
    return;
  }
  total = answer.total;
  $("list-own").hidden = !answer.own;
  text($("list-caption"), answer.own ? "Channels of this replica" : "Channels of all replicas");
  keyed($("list").tBodies[0], answer.channels, (c) => c.name, () => el("tr", {}, el("th", { scope: "row" }, el("a")), el("td", { class: "n" }), el("td", { class: "n" })), (tr, c) => {
    const a = tr.querySelector("a");
    text(a, c.name);
    attribute(a, { href: address(c.name) });
    text(tr.children[1], number(c.subscribers));
    text(tr.children[2], number(c.publishes));
  });
  for (const b of $("list").querySelectorAll("[data-sort]")) attribute(b.parentElement, { "aria-sort": b.dataset.sort === state.sort ? (state.sort === "name" ? "ascending" : "descending") : null });
  say(total ? "" : state.text ? `No channel’s name ${state.how === "prefix" ? "begins with" : "contains"} this.` : "No channel has subscribers, or was published on in the last 60 s.");
  const last = Math.min(state.offset + size, total);
  text($("list-where"), total ? `${number(state.offset + 1)}–${number(last)} of ${number(total)}${answer.more ? ", and there are more: give the beginning of a name" : ""}${answer.age_ms > 2500 ? `, as of ${lasting(answer.age_ms / 1000)} ago` : ""}` : "");
  for (const id of ["list-first", "list-before"]) usable($(id), state.offset > 0);
  for (const id of ["list-next", "list-last"]) usable($(id), last < total);
}

function say(words) {
  $("list-empty").hidden = !words;
  text($("list-empty"), words);
}

let typing;
$("find-text").addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => change({ text: $("find-text").value, offset: 0 }), 150);
});
$("find-how").addEventListener("change", () => change({ how: $("find-how").value, offset: 0 }));
$("find").addEventListener("submit", (e) => {
  e.preventDefault();
  clearTimeout(typing);
  change({ text: $("find-text").value, offset: 0 });
});
for (const b of $("list").querySelectorAll("[data-sort]")) b.addEventListener("click", () => change({ sort: b.dataset.sort, offset: 0 }));
$("list-first").addEventListener("click", () => change({ offset: 0 }));
$("list-before").addEventListener("click", () => change({ offset: Math.max(0, state.offset - size) }));
$("list-next").addEventListener("click", () => change({ offset: state.offset + size }));
$("list-last").addEventListener("click", () => change({ offset: Math.max(0, Math.ceil(total / size) - 1) * size }));
