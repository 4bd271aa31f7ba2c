// The points of the charts: one a second, for 15 minutes.

export const span = 15 * 60;

// spans are how many seconds the charts may show: where there are few points, a quarter
// of an hour would squeeze them into a corner. A third of each is a round time.
const spans = [60, 3 * 60, 6 * 60, span];

const columns = ["replicas", "green", "connections", "requests_s", "publishes_s", "deliveries_s", "latency_p50_ms", "latency_p99_ms"];

// slack is how many seconds the newest points may be ahead of the time that came with
// them: the answers with the two are made one after the other.
const slack = 2;

export class Points {
  seconds = [];
  columns = Object.fromEntries(columns.map((name) => [name, []]));
  now = null; // the same numbers as they are now, by column, or null

  // shown is how many seconds the charts show.
  get shown() {
    const age = this.last - (this.seconds[0] ?? 0);
    return spans.find((s) => age < s) ?? span;
  }

  // last is the second of the newest point, or 0.
  get last() {
    return this.seconds.at(-1) ?? 0;
  }

  // add appends what the API has sent, and drops what is too old. now is the time by the
  // clock of the replica that answers. Where another one has answered before, whose clock
  // is ahead, its last points are dropped: the charts would stand still until then. What
  // is not newer than the rest is left out.
  add(p, now) {
    this.keep(this.seconds.findLastIndex((second) => second <= now + slack) + 1);
    for (let i = 0; i < p.seconds.length; i++) {
      if (p.seconds[i] <= this.last) continue;
      this.seconds.push(p.seconds[i]);
      for (const name of columns) this.columns[name].push(p[name][i]);
    }
    const from = this.last - span;
    let old = 0;
    while (this.seconds[old] <= from) old++;
    if (old > 0) {
      this.seconds.splice(0, old);
      for (const name of columns) this.columns[name].splice(0, old);
    }
  }

  // keep drops all but the first n points.
  keep(n) {
    this.seconds.length = n;
    for (const name of columns) this.columns[name].length = n;
  }
}
