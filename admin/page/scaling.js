// The buttons that change how many replicas run.

import { $, attribute, refused, said, text, usable } from "./dom.js";
import { are, count } from "./format.js";
import { post } from "./api.js";

let now = null; // what the API said last
let busy = false;
let ordered = null; // the number that was asked for here, until so many run
let dirty = false; // the field has what somebody put in here, not what is wanted
let late = null; // the number that is wanted, if fewer have been ready for long

const input = $("scale-to");

// chosen is the number in the field, or null if it is none that is allowed.
function chosen() {
  const n = Number(input.value);
  return input.value === "" || !Number.isInteger(n) || n < now.min || n > now.max ? null : n;
}

// target is the number in the field, if it is allowed and would change something:
// another one, or the same after a replica has died that nothing starts again.
function target() {
  const n = now?.known ? chosen() : null;
  return n !== now?.wanted || late === n ? n : null;
}

// lacks reports whether replicas have been missing for so long that they do not just
// start. Behind a load balancer, each answer may come from another replica: what one of
// them has said holds until they are there, or another number is wanted.
export function lacks(s) {
  late = s && (s.late || (late === s.wanted && (!s.known || s.ready < s.wanted))) ? s.wanted : null;
  return late !== null;
}

// drawScaling shows the buttons. unheard are the replicas of which nothing is heard, which
// the Scaler may not know yet.
export function drawScaling(s, unheard = []) {
  $("scaling").hidden = $("to-scaling").hidden = !s;
  if (!s) return;
  now = s;
  lacks(s);
  if (input.value === String(s.wanted) || (input.value === "" && document.activeElement !== input)) dirty = false;
  if (s.known && !dirty) input.value = s.wanted;
  if (s.known && s.ready === ordered && s.wanted === ordered) answer("");
  input.min = s.min;
  input.max = s.max;
  text($("scale-state"), s.error ? `The number of replicas is not known: ${s.error}` : !s.known ? "Asking…" : s.ready === s.wanted ? `${count(s.ready, "replica")} run${s.ready === 1 ? "s" : ""}, as wanted${unheard.length ? `, as far as the Scaler knows; nothing is heard of ${unheard.join(", ")}` : ""}.` : `${s.ready} of ${s.wanted} wanted replicas ${are(s.ready)} ready.`);
  text($("scale-hint"), s.hint ? s.hint[0].toUpperCase() + s.hint.slice(1) + (s.hint.endsWith(".") ? "" : ".") : "");
  drawButtons();
}

function drawButtons() {
  const n = chosen() ?? now.wanted;
  const { known } = now;
  const wrong = known && chosen() === null && (input.value !== "" || input.validity.badInput);
  const focused = $("scale-confirm").contains(document.activeElement);
  attribute(input, { "aria-invalid": wrong && "true" });
  text($("scale-wrong"), wrong ? `Not possible here: ${now.min} to ${count(now.max, "replica")} are allowed.` : "");
  usable(input, known && !busy);
  usable($("scale-fewer"), known && !busy && n > now.min);
  usable($("scale-more"), known && !busy && n < now.max);
  const to = target();
  $("scale-confirm").hidden = to === null || busy;
  if (focused && $("scale-confirm").hidden) $(busy ? "scale-answer" : "scale-more").focus();
  if (to === null) return;
  const by = Math.abs(to - now.wanted);
  text($("scale-question"), to > now.wanted ? `Scale out from ${now.wanted} to ${to}? ${by === 1 ? "The new replica gets" : `The ${by} new replicas get`} new clients; those that are connected stay where they are.`
    : to < now.wanted ? `Scale in from ${now.wanted} to ${to}? ${by === 1 ? "The one that ends drains first: its" : `The ${by} that end drain first: their`} clients go to the other replicas.`
      : `Only ${now.ready} of ${to} ${are(now.ready)} ready. If nothing starts the rest, ask for ${to} again; if they start and end, read their logs.`);
  text($("scale-go"), to === now.wanted ? `Ask for ${to} again` : `Scale to ${to}`);
  $("scale-keep").hidden = to === now.wanted;
  text($("scale-keep"), `Keep ${now.wanted}`);
}

// answer says what became of an order, of which the number is kept until it is reached.
function answer(words, number = null) {
  said($("scale-answer"), words);
  ordered = number;
}

// step goes on from the number in the field. From one that is not allowed it would end
// at a limit, far from what runs.
function step(by) {
  input.value = Math.min(Math.max((chosen() ?? now.wanted) + by, now.min), now.max);
  dirty = true;
  answer("");
  drawButtons();
}

$("scale-fewer").addEventListener("click", () => step(-1));
$("scale-more").addEventListener("click", () => step(+1));
input.addEventListener("input", () => {
  dirty = true;
  drawButtons();
});
input.addEventListener("keydown", (e) => {
  if (e.key === "Enter" && target() !== null) $("scale-go").focus();
});
$("scale-keep").addEventListener("click", () => {
  input.value = now.wanted;
  dirty = false;
  drawButtons();
});
$("scale-go").addEventListener("click", async () => {
  const n = target();
  if (n === null) return;
  busy = true;
  answer(`Scaling to ${n}…`);
  drawButtons();
  try {
    await post("scale", { replicas: n });
    now.wanted = n;
    dirty = false;
    late = null;
    answer(`${count(n, "replica")} will run. The list shows how they come and go.`, n);
  } catch (e) {
    ordered = null;
    refused($("scale-answer"), `Not scaled: ${e.message}`);
  }
  busy = false;
  drawButtons();
  if (document.activeElement === $("scale-answer")) $($("scale-confirm").hidden ? "scale-more" : "scale-go").focus();
});
