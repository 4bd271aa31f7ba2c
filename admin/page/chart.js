// A chart of one or two lines over up to 15 minutes. It is drawn at its own size, so that
// lines are sharp, and is read by mouse, finger, keyboard and screen reader.

import { el, svg, text, attribute } from "./dom.js";
import { time } from "./format.js";

const height = 132, top = 8, bottom = 20, left = 44, right = 10;

// A gap of up to so many seconds is a second that a busy replica has skipped.
const bridged = 3;

export class Chart {
  // what has title, format (a number in words), whole (only whole numbers have lines),
  // and series: [{ column, label }].
  constructor(what) {
    this.what = what;
    this.width = 0;
    this.at = null; // the second that is looked at
    this.values = what.series.map(() => el("strong"));
    this.read = el("span", { class: "read" });
    const several = what.series.length > 1; // then each value has its line and its name
    const head = el("figcaption", {}, el("span", { class: "title" }, what.title), this.read,
      el("span", { class: several ? "values several" : "values" }, ...what.series.map((s, i) => el("span", {}, several ? sample(i) : null, several ? s.label : null, this.values[i]))));
    this.svg = svg("svg", { height, class: "chart", tabindex: 0, role: "slider", "aria-roledescription": "chart", "aria-orientation": "horizontal" });
    this.grid = svg("g", { class: "grid" });
    this.spots = what.series.map((_, i) => svg("path", { class: `line line${i} spot` }));
    this.paths = what.series.map((_, i) => svg("path", { class: `line line${i}` }));
    this.area = svg("path", { class: "area" });
    this.cursor = svg("g", { class: "cursor", visibility: "hidden" }, svg("line", { y1: top, y2: height - bottom }), ...what.series.map((_, i) => svg("circle", { r: 3.5, class: `dot${i}` })));
    this.svg.append(this.grid, this.area, ...this.paths.toReversed(), ...this.spots, this.cursor);
    this.element = el("figure", { class: "card figure" }, head, this.svg);
    new ResizeObserver(() => this.resize()).observe(this.element);
    this.svg.addEventListener("pointermove", (e) => this.look(this.second(e)));
    this.svg.addEventListener("pointerdown", (e) => this.look(this.second(e)));
    this.svg.addEventListener("pointerleave", () => this.look(null));
    this.svg.addEventListener("blur", () => this.look(null));
    this.svg.addEventListener("focus", () => this.svg.matches(":focus-visible") && this.look(this.points?.last ?? null));
    this.svg.addEventListener("keydown", (e) => this.key(e));
  }

  resize() {
    const width = Math.floor(this.svg.getBoundingClientRect().width);
    if (width === this.width || width === 0) return;
    this.width = width;
    if (this.points) this.draw(this.points);
  }

  x(second) {
    const { last, shown } = this.points;
    return left + (1 - (last - second) / shown) * (this.width - left - right);
  }

  y(value) {
    return height - bottom - (value / this.most) * (height - top - bottom);
  }

  second(e) {
    const x = e.clientX - this.svg.getBoundingClientRect().left;
    const { last, shown } = this.points;
    return Math.round(last - (1 - (x - left) / (this.width - left - right)) * shown);
  }

  key(e) {
    const p = this.points;
    if (!p || !p.seconds.length) return;
    const step = { ArrowLeft: -1, ArrowRight: 1, PageUp: -60, PageDown: 60 }[e.key];
    const to = step ? (this.at ?? p.last) + step : { Home: p.seconds[0], End: p.last }[e.key];
    if (e.key === "Escape") this.look(null);
    else if (to !== undefined) this.look(Math.min(Math.max(to, p.seconds[0]), p.last));
    else return;
    e.preventDefault();
  }

  // look shows the values at a second, or those of now if it is null.
  look(second) {
    this.at = this.points?.seconds.length ? second : null;
    this.mark();
  }

  draw(points) {
    this.points = points;
    if (this.width) {
      const shown = this.what.series.map((s) => points.columns[s.column]);
      let most = 0;
      for (const column of shown) for (const v of column) if (v > most) most = v;
      this.most = ceiling(most, this.what.whole);
      this.drawGrid();
      this.paths.forEach((path, i) => path.setAttribute("d", this.line(shown[i])));
      this.spots.forEach((path, i) => path.setAttribute("d", this.alone(shown[i])));
      this.area.setAttribute("d", this.fill(shown[0]));
    }
    this.mark();
  }

  drawGrid() {
    const lines = [0, 0.5, 1].map((part) => part * this.most);
    const { shown } = this.points;
    const times = [1, 2 / 3, 1 / 3, 0].map((part) => Math.round(part * shown)); // seconds ago
    const key = `${this.most} ${this.width} ${shown}`;
    if (this.drawn === key) return;
    this.drawn = key;
    attribute(this.svg, { width: this.width, viewBox: `0 0 ${this.width} ${height}` });
    this.grid.replaceChildren(
      ...lines.flatMap((v) => {
        const y = Math.round(this.y(v)) + 0.5;
        return [svg("line", { x1: left, x2: this.width - right, y1: y, y2: y }), svg("text", { x: left - 6, y: y + 3.5, "text-anchor": "end" }, this.what.axis(v))];
      }),
      ...times.map((ago, i) => svg("text", { x: left + (1 - ago / shown) * (this.width - left - right), y: height - 5, "text-anchor": i === 0 ? "start" : i === 3 ? "end" : "middle" }, ago === 0 ? "now" : ago % 60 ? `−${ago} s` : `−${ago / 60} min`)),
    );
  }

  // line is the path of a column. It ends where nothing is known.
  line(column) {
    const seconds = this.points.seconds;
    let d = "", before = null;
    for (let i = 0; i < seconds.length; i++) {
      const v = column[i];
      if (v === null) continue;
      const at = `${this.x(seconds[i]).toFixed(1)} ${this.y(v).toFixed(1)}`;
      d += before !== null && seconds[i] - before <= bridged ? "L" + at : `M${at}h.01`;
      before = seconds[i];
    }
    return d;
  }

  // alone is the path of the points that no line joins, which would hardly be seen.
  alone(column) {
    return (this.line(column).match(/M[^M]*/g) ?? []).filter((part) => part.endsWith("h.01")).join("");
  }

  fill(column) {
    const floor = this.y(0).toFixed(1);
    return this.line(column)
      .split("M")
      .filter((part) => part.includes("L"))
      .map((part) => {
        const xs = part.match(/(?:^|L)([\d.]+)/g).map((s) => s.replace("L", ""));
        return `M${part.replace("h.01", "")}L${xs.at(-1)} ${floor}L${xs[0]} ${floor}Z`;
      })
      .join("");
  }

  // mark shows the values that are looked at.
  mark() {
    const p = this.points;
    if (!p) return;
    let i = p.seconds.length - 1;
    if (this.at !== null) i = nearest(p.seconds, this.at);
    const looking = this.at !== null && i >= 0;
    const values = this.what.series.map((s) => (looking || !p.now ? p.columns[s.column][i] : p.now[s.column]) ?? null);
    const words = values.map((v) => (v === null ? "–" : this.what.format(v)));
    words.forEach((w, k) => text(this.values[k], w));
    text(this.read, looking ? time(p.seconds[i] * 1000) : this.what.note ?? "");
    this.cursor.setAttribute("visibility", looking && this.width ? "visible" : "hidden");
    if (looking && this.width) {
      const x = this.x(p.seconds[i]);
      const [line, ...dots] = this.cursor.children;
      attribute(line, { x1: x, x2: x });
      dots.forEach((dot, k) => attribute(dot, { cx: x, cy: values[k] === null ? 0 : this.y(values[k]), visibility: values[k] === null ? "hidden" : "inherit" }));
    }
    const said = this.what.series.map((s, k) => `${s.label} ${values[k] === null ? "unknown" : this.what.format(values[k])}`).join(", ");
    attribute(this.svg, {
      "aria-label": `${this.what.title}, the last ${p.shown === 60 ? "minute" : p.shown / 60 + " minutes"}`,
      "aria-valuetext": `${looking ? time(p.seconds[i] * 1000) : "now"}: ${said}`,
      "aria-valuemin": p.seconds[0] ?? 0, "aria-valuemax": p.last, "aria-valuenow": p.seconds[i] ?? 0,
    });
  }
}

// sample is a piece of a line, for the legend.
const sample = (i) => svg("svg", { viewBox: "0 0 18 8", width: 18, height: 8, "aria-hidden": "true" }, svg("path", { d: "M1 4H17", class: `line line${i}` }));

// nearest is the index of the point that is nearest to a second.
function nearest(seconds, second) {
  let lo = 0, hi = seconds.length - 1;
  while (lo < hi) {
    const mid = (lo + hi) >> 1;
    if (seconds[mid] < second) lo = mid + 1;
    else hi = mid;
  }
  return lo > 0 && second - seconds[lo - 1] < seconds[lo] - second ? lo - 1 : lo;
}

// ceiling is a round number that is not below n.
function ceiling(n, whole) {
  if (whole && n <= 10) return Math.max(2, 2 * Math.ceil(n / 2)); // half of it has a line, too
  if (n <= 0) return 1;
  const unit = 10 ** Math.floor(Math.log10(n));
  return unit * [1, 2, 4, 5, 10].find((k) => n <= k * unit * 1.0001);
}
