// The matrix of links: who hears whom.

import { $, el, keyed, text, attribute } from "./dom.js";
import { milliseconds } from "./format.js";

// shortened leaves out what all names begin with, up to a dash: names of pods are long.
function shortened(ids) {
  if (ids.length < 2) return (id) => id;
  let n = ids[0].length;
  for (const id of ids) while (!id.startsWith(ids[0].slice(0, n))) n--;
  n = ids[0].slice(0, n).lastIndexOf("-") + 1;
  return (id) => (n > 12 ? "…" + id.slice(n - 1) : id);
}

export function drawLinks(replicas) {
  const box = $("links");
  box.hidden = !replicas.some((r) => r.mesh);
  if (box.hidden) return;
  const ids = replicas.map((r) => r.id);
  const name = shortened(ids);
  const broker = replicas.some((r) => r.mesh?.peers.some((p) => p.id === "" && p.up));
  const columns = broker ? [""] : ids;
  box.parentElement.classList.toggle("many", columns.length > 8);
  const table = box.querySelector("table");
  keyed(table.tHead, [columns], () => "head", () => el("tr"), (tr) => {
    keyed(tr, [null, ...columns], (id) => (id === null ? "corner" : "to " + id), (id) => el(id === null ? "td" : "th", { scope: id === null ? null : "col" }), (th, id) => {
      text(th, id === null ? "" : id === "" ? "broker" : name(id));
      attribute(th, { title: id });
    });
  });
  keyed(table.tBodies[0], replicas, (r) => r.id, () => el("tr"), (tr, r) => {
    keyed(tr, [null, ...columns], (id) => (id === null ? "from" : "to " + id), (id) => el(id === null ? "th" : "td", { scope: id === null ? "row" : null }), (cell, id) => {
      if (id === null) {
        text(cell, name(r.id));
        attribute(cell, { title: r.id });
        return;
      }
      const [state, words, title] = link(r, id);
      text(cell, words);
      attribute(cell, { "data-link": state, title });
    });
  });
  $("links-unknown").hidden = !table.querySelector("[data-link=unknown]");
}

// link is how one replica hears another one.
function link(r, id) {
  if (r.id === id) return ["self", "·", "itself"];
  if (!r.mesh) return ["unknown", "?", `${r.id} does not say`];
  if (r.silent) return ["unknown", "?", `nothing is heard of ${r.id}`];
  const to = id === "" ? "the broker" : id;
  const peer = r.mesh.peers.find((p) => p.id === id && p.up) ?? r.mesh.peers.find((p) => p.id === id);
  if (!peer) return ["none", "none", `${r.id} has no link to ${to}`];
  if (!peer.up) return ["down", "✕ down", `${r.id} does not hear ${to}`];
  return ["up", peer.rtt_ms ? milliseconds(peer.rtt_ms) : "✓ up", `${r.id} hears ${to}`];
}
