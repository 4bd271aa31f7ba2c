// The overview: the replicas, the charts, the links and the Store.

import { $, el, keyed, light, text, attribute } from "./dom.js";
import { are, bytes, count, lasting, milliseconds, number, percent, time } from "./format.js";
import { Chart } from "./chart.js";
import { drawLinks } from "./links.js";
import { drawScaling, lacks } from "./scaling.js";

const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const axis = (v) => compact.format(v);

const charts = [
  { title: "Replicas", format: number, axis, whole: true, series: [{ column: "replicas", label: "all" }, { column: "green", label: "green" }] },
  { title: "Connections", format: number, axis, whole: true, series: [{ column: "connections", label: "connections" }] },
  { title: "Requests/s", note: "with health checks", format: number, axis, series: [{ column: "requests_s", label: "requests a second" }] },
  { title: "Publishes/s", format: number, axis, series: [{ column: "publishes_s", label: "publishes a second" }] },
  { title: "Deliveries/s", format: number, axis, series: [{ column: "deliveries_s", label: "deliveries a second" }] },
  { title: "Delivery latency", format: milliseconds, axis: (v) => (v >= 1000 ? axis(v / 1000) + " s" : v ? milliseconds(v) : "0"), series: [{ column: "latency_p50_ms", label: "p50" }, { column: "latency_p99_ms", label: "p99" }] },
].map((what) => new Chart(what));

$("charts").append(...charts.map((c) => c.element));

export function drawCharts(points) {
  for (const c of charts) c.draw(points);
}

export function drawOverview(o) {
  drawSummary(o);
  drawDeparted(o);
  drawReplicas(o);
  drawLinks(o.replicas.toSorted(byName));
  drawScaling(o.scaling, o.replicas.filter((r) => r.old && r.status !== "red").map((r) => r.id));
  text($("emptier"), emptier(o.replicas));
  light($("store-light"), o.store.status);
  text($("store-words"), `${o.store.status}: ${o.store.words}`);
  text($("store-took"), took(o));
  $("store-own").hidden = !o.store.own;
}

// took says how the Store does for the replica that answers.
function took({ replica, store }) {
  const since = lasting(store.seen_ms / 1000);
  if (store.seen_ms > 3000) return `${store.ms ? `It took a test message of ${replica} in ${milliseconds(store.ms)}, but it` : "It"} has taken nothing from there for ${since}.`;
  return store.ms ? `The Store took the last test message of ${replica} in ${milliseconds(store.ms)}, and something of it ${store.seen_ms < 1000 ? "just now" : `${since} ago`}.` : "";
}

const worstOf = (replicas) => ["red", "yellow", "unknown"].find((s) => replicas.some((r) => lamp(r) === s)) ?? "green";

// worst is the light of all replicas together. Those that are missing have no light.
export function worst(o) {
  const s = worstOf(o.replicas);
  return s === "green" && lacks(o.scaling) ? "yellow" : s;
}

// drains reports whether a replica is yellow only because it is about to end.
const drains = (r) => r.status === "yellow" && !r.silent && r.reasons.length > 0 && r.reasons.every((why) => why.reason === "draining");

// state is a replica's status, or what it means.
const state = (r) => (r.replaced ? "replaced" : r.silent && r.status === "yellow" ? "silent" : drains(r) ? "draining" : r.status);

// lamp is the light of a replica: grey if there is nothing to do about it.
const lamp = (r) => (["replaced", "draining"].includes(state(r)) ? "over" : r.status);

// shown is what the colours of a replica's row go by.
const shown = (r) => (lamp(r) === "over" ? state(r) : r.status);

// cause says what is wrong with all replicas that are not well, if it is one thing.
function cause(o, ill) {
  const all = (way) => ill.length > 1 && ill.every((r) => r.reasons.some((why) => why.reason.endsWith(": " + way)));
  if (all("store") && o.store.brief) return `: the Store ${o.store.brief}`;
  return all("mesh") ? ": messages between the replicas are late or get lost" : "";
}

// missed says which replica has died and left the list, if nothing is in its place.
function missed(o) {
  const dead = (o.departed ?? []).filter((d) => !d.replaced);
  if (!dead.length) return "";
  return dead.length === 1 ? `; ${dead[0].id} died at ${time(o.time_ms - dead[0].seen_ms)}` : `; ${number(dead.length)} died, the last one at ${time(o.time_ms - dead[0].seen_ms)}`;
}

// summary says in a sentence how the replicas are.
export function summary(o) {
  const is = (s) => o.replicas.filter((r) => state(r) === s);
  const there = o.replicas.filter((r) => !r.replaced), n = there.length, green = is("green").length, leaving = is("draining");
  if (lacks(o.scaling) && worstOf(there) === "green") return `${o.scaling.ready} of ${o.scaling.wanted} wanted replicas ${are(o.scaling.ready)} ready`;
  if (green === n) return (n === 1 ? "The only replica is green" : n === 2 ? "Both replicas are green" : `All ${number(n)} replicas are green`) + missed(o);
  if (green + leaving.length === n) return `${green} of ${n} ${green === 1 ? "stays" : "stay"}, ${leaving.length} ${leaving.length === 1 ? "drains" : "drain"}`;
  const ill = there.filter((r) => !["green", "draining"].includes(state(r)));
  const parts = ["red", "silent", "yellow", "unknown"].filter((s) => is(s).length).map((s) => {
    const ids = is(s).map((r) => r.id);
    return ids.length === n && n > 1 ? `${n === 2 ? "Both" : `All ${number(n)}`} replicas are ${s}` : ids.length <= 2 ? `${ids.join(" and ")} ${are(ids.length)} ${s}` : `${number(ids.length)} are ${s}`;
  });
  if (leaving.length) parts.push(`${number(leaving.length)} ${leaving.length === 1 ? "drains" : "drain"}`);
  return `${parts.join(", ")}${cause(o, ill)}${green ? `; ${green} of ${n} green` : ""}`;
}

// place is what became of a dead replica's place, and whether there is something to do.
const place = (d) => (d.replaced ? `${d.replaced_by ? `${d.replaced_by} has taken its place` : "As many run as are wanted"}: nothing to do.` : "");

// drawDeparted says which replicas have died, for some minutes after they left the list.
function drawDeparted(o) {
  const all = o.departed ?? []; // behind a load balancer, an older replica may answer
  keyed($("departed"), all, (d) => d.id, () => el("li"), (li, d) => {
    attribute(li, { "data-replaced": d.replaced });
    text(li, `${d.id} died: nothing was heard of it since ${time(o.time_ms - d.seen_ms)}, and it had not said goodbye. ${place(d) || "Nothing has taken its place yet; see why it ended."}`);
  });
  $("departed").hidden = !all.length;
}

function drawSummary(o) {
  const { totals } = o;
  light($("summary-light"), worst(o));
  text($("summary"), summary(o));
  text($("totals"), [
    count(totals.connections, "connection"),
    `${number(totals.publishes_s)} publishes/s`,
    `${number(totals.deliveries_s)} deliveries/s`,
    `${bytes(totals.queued)} queued`,
  ].map((part) => part.replaceAll(" ", "\u00a0")).join("  ·  "));
  text($("next"), lacks(o.scaling) && worstOf(o.replicas) === "green" ? `Nothing has started the rest. See why, or ask for ${o.scaling.wanted} again under Scaling.` : "");
}

// emptier says why replicas that were added have fewer clients than the others, or "".
function emptier(replicas) {
  const living = replicas.filter((r) => !r.silent && !r.draining);
  const mean = living.reduce((sum, r) => sum + r.connections, 0) / living.length;
  const oldest = Math.max(...living.map((r) => r.uptime_s));
  const few = living.filter((r) => mean >= 2 && r.connections < mean / 2 && r.uptime_s < oldest).map((r) => r.id);
  if (!few.length) return "";
  const who = few.length <= 3 ? list.format(few.sort(compare)) : `The ${few.length} newest replicas`;
  return `${who} ${few.length === 1 ? "has" : "have"} few clients yet: those that are connected stay where they are, until their replica drains or dies.`;
}

// short is the commit of a version that has no name yet: v0.0.0-20260102030405-abcdef012345.
const short = (version) => version.replace(/^v[\w.-]*[.-]\d{14}-([0-9a-f]{7})[0-9a-f]{5}/, "$1");

// cells are the columns after the name: label, text, and why.
const cells = [
  ["Connections", (r) => number(r.connections)],
  ["Publishes/s", (r) => number(r.publishes_s)],
  ["Deliveries/s", (r) => number(r.deliveries_s)],
  ["Latency p50 · p99", (r) => (r.latency_p99_ms ? `${milliseconds(r.latency_p50_ms)} · ${milliseconds(r.latency_p99_ms)}` : "–")],
  ["Queued", (r) => bytes(r.queued)],
  ["Processors", (r) => (r.processors ? percent(r.cpu / r.processors) : "–"), (r) => (r.processors ? `${r.cpu.toFixed(2)} of ${r.processors} in use` : null)],
  ["Memory", (r) => (r.memory ? bytes(r.memory) : "–")],
  ["Up for", (r) => (r.uptime_s ? (r.old ? "was " : "") + lasting(r.uptime_s) : "–")],
  ["Version", (r) => short(r.version) || "–", (r) => [r.version, r.go].filter(Boolean).join(", ")],
];

// What is not well comes first, so that nobody has to look for it: the cause before those
// that suffer from it.
const order = ["red", "silent", "yellow", "unknown", "green", "draining", "replaced"];
const list = new Intl.ListFormat("en");
const { compare } = new Intl.Collator("en", { numeric: true }); // replica-2 before replica-10

export const byName = (a, b) => compare(a.id, b.id);

function drawReplicas(o) {
  const rank = (r) => order.indexOf(state(r));
  $("replicas").classList.toggle("unversioned", !o.replicas.some((r) => r.version));
  const rows = o.replicas.toSorted((a, b) => rank(a) - rank(b) || byName(a, b)).flatMap((r) => (r.reasons.length && !drains(r) ? [{ r }, { r, why: true }] : [{ r }]));
  keyed($("replicas").tBodies[0], rows, (row) => (row.why ? "why " : "of ") + row.r.id, (row) => (row.why ? makeReasons() : makeReplica()), (e, row) => (row.why ? fillReasons(e, row.r, o.scaling) : fillReplica(e, row.r, o.replica)));
}

function makeReplica() {
  const name = el("th", { scope: "row", role: "rowheader" }, el("span", { class: "who" }, el("span", { class: "light" }), el("span", { class: "id" }), el("span", { class: "word" }), el("span", { class: "brief" }), el("span", { class: "here" })));
  return el("tr", { role: "row" }, name, ...cells.map(([label]) => el("td", { role: "cell", "data-label": label, class: label === "Version" ? "version" : "n" })));
}

function fillReplica(e, r, here) {
  attribute(e, { "data-replica": r.id, "data-status": shown(r) });
  e.classList.toggle("gone", r.old);
  light(e.querySelector(".light"), lamp(r));
  const id = e.querySelector(".id");
  text(id, r.id);
  attribute(id, { title: r.id });
  text(e.querySelector(".word"), word(r));
  text(e.querySelector(".brief"), lamp(r) === "over" ? "" : r.reasons.map((why) => why.reason).join(", "));
  text(e.querySelector(".here"), r.id === here ? "serves this page" : "");
  cells.forEach(([, words, why], i) => {
    const cell = e.children[i + 1];
    text(cell, words(r));
    if (why) attribute(cell, { title: why(r) });
  });
}

// word is how a replica is, beside its light.
function word(r) {
  const since = lasting(r.seen_ms / 1000);
  if (r.replaced) return `dead for ${since}, replaced`;
  if (drains(r)) return r.old ? "drained" : "draining";
  if (r.silent) return `${r.status}, silent for ${since}`;
  return r.status + (r.old ? ", its link is down" : "");
}

function makeReasons() {
  return el("tr", { role: "row", class: "why" }, el("td", { role: "cell", colspan: cells.length + 1 }, el("ul"), el("p", { class: "note" })));
}

function fillReasons(e, r, scaling) {
  attribute(e, { "data-status": shown(r) });
  keyed(e.querySelector("ul"), r.reasons, (why) => why.reason, () => el("li", {}, el("strong"), " ", el("span"), el("p", {}, el("b", {}, "What to do: "), el("span"))), (li, why) => {
    const [name, words, what] = li.children;
    text(name, why.reason);
    text(words, why.words);
    text(what.lastElementChild, place(r) || why.do + (r.status === "red" && r.silent && scaling?.known && scaling.ready < scaling.wanted ? ` Or ask for ${scaling.wanted} again under Scaling.` : ""));
  });
  text(e.querySelector(".note"), r.old ? `Its numbers are from ${lasting(r.seen_ms / 1000)} ago, and not in the sums.` : "");
}
