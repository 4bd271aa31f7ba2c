// The page asks the replica that serves it once a second, and shows the answers.

import { $, attribute, light, text, usable } from "./dom.js";
import { lasting, time } from "./format.js";
import { Refusal, Unreached, get } from "./api.js";
import { Points } from "./points.js";
import { drawCharts, drawOverview, summary, worst } from "./overview.js";
import { drawList, listAddress, readList } from "./channels.js";
import { closeChannel, drawChannel, openChannel } from "./channel.js";

const points = new Points();
let view = "overview";

// Where the page is, by the part of its address after "#".
function route() {
  const hash = location.hash;
  if (hash && !hash.startsWith("#/")) return; // the skip link
  const [path, query] = hash.slice(2).split("?");
  const [first, rest] = path.split("/");
  view = { channels: "channels", channel: rest ? "channel" : "channels" }[first] ?? "overview";
  if (view === "channel") openChannel(decode(rest));
  else closeChannel();
  if (view === "channels") readList(query ?? "");
  for (const id of ["overview", "channels", "channel"]) $(id).hidden = id !== view;
  attribute($("to-overview"), { "aria-current": view === "overview" ? "page" : null });
  attribute($("to-channels"), { "aria-current": view === "overview" ? null : "page" });
  $("cluster").hidden = view === "overview"; // it says so itself
  if (view === "overview") drawCharts(points);
  $("channel-back").href = listAddress();
  title = { overview: "channels", channels: "Channels – channels" }[view] ?? decode(rest) + " – channels";
  drawTitle();
  detail();
}

// The title says the worst light too, for whoever looks at another tab.
let title = "channels", worstLight = "green";

function drawTitle() {
  const wrong = failing ? "no answer" : worstLight === "green" ? "" : worstLight;
  const words = wrong ? `${wrong}! ${title}` : title;
  if (document.title !== words) document.title = words;
}

// drawCluster says on every page how the replicas are.
function drawCluster(status, words) {
  light($("cluster-light"), status);
  text($("cluster-words"), words);
}

function decode(s) {
  try {
    return decodeURIComponent(s);
  } catch {
    return s; // it was typed
  }
}

// every calls f again and again, a time after it has ended that f returns, while the
// page is seen.
function every(f) {
  let timer = null, running = false, again = false;
  const run = async () => {
    clearTimeout(timer);
    again = running; // what is asked now may be about another view
    if (running || document.hidden) return;
    running = true;
    const wait = await f();
    running = false;
    timer = setTimeout(run, again ? 0 : wait);
  };
  document.addEventListener("visibilitychange", run);
  run();
  return run;
}

// What was said last, for those who cannot see the lights.
let said = "";

async function look() {
  const began = performance.now();
  let wait = 1000;
  try {
    const [o, p] = await Promise.all([get("overview"), get("points", { after: points.last || "" })]);
    points.add(p, o.time_ms / 1000);
    points.now = o.totals;
    reached(o.replica);
    if (view === "overview") {
      drawOverview(o);
      drawCharts(points);
    }
    if (!said) performance.mark("first view"); // browsers' tools show it
    worstLight = worst(o);
    drawTitle();
    const now = summary(o);
    drawCluster(worstLight, now);
    if (said && now !== said) text($("news"), now);
    said = now;
    wait = o.again_ms;
  } catch (e) {
    unreached(e);
    unlessNoAnswer(e);
  }
  return Math.max(50, wait - (performance.now() - began));
}

let last = null; // when a replica was reached, and which
let failing = false;

function reached(replica) {
  last = { at: Date.now(), replica };
  failing = false;
  $("unreached").hidden = true;
  document.body.dataset.reach = "yes";
  allow(true);
  text($("link-text"), `Live from ${replica}`);
}

function unreached(e) {
  failing = true;
  document.body.dataset.reach = "no";
  allow(false);
  drawTitle();
  drawCluster("unknown", "How the replicas are is not known now");
  text($("link-text"), "No answer");
  sayUnreached(e instanceof Refusal ? e.message : "");
}

// allow lets operators act: scale, publish, disconnect. On numbers of then they should not.
function allow(on) {
  for (const e of document.querySelectorAll(".acts")) usable(e, on);
}

// unlessNoAnswer reports what is a mistake of this page.
function unlessNoAnswer(e) {
  if (!(e instanceof Refusal) && !(e instanceof Unreached)) reportError(e);
}

let why = "";

function sayUnreached(reason) {
  why = reason ?? why;
  const since = last ? `since ${time(last.at)} (${lasting((Date.now() - last.at) / 1000)})` : "";
  text($("unreached"), `${last?.replica ?? "The replica that serves this page"} has not answered ${since || "yet"}.${last ? " What is shown is from then." : ""}${why ? ` It says: ${why}` : ""} Trying again…`);
  $("unreached").hidden = false;
}

setInterval(() => failing && sayUnreached(), 1000);

// detail is for the pages besides the overview.
const detail = every(async () => {
  try {
    if (view === "channels") await drawList();
    if (view === "channel") await drawChannel();
  } catch (e) {
    unlessNoAnswer(e); // look says it
  }
  return 2000;
});

// dropToken takes the token of a link to log in out of the address, when that is done already.
function dropToken() {
  if (location.hash.startsWith("#token=")) history.replaceState(null, "", "./");
}

dropToken();
addEventListener("hashchange", () => {
  dropToken();
  route();
  if (location.hash.startsWith("#/")) $("main").focus({ preventScroll: true });
});
route();
every(look);
