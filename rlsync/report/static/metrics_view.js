"use strict";
// Every key of metrics.jsonl, with a search.

class MetricsView {
  constructor(runs) {
    this.cards = new Map();
    this.search = el("input", { type: "search", placeholder: "Search metrics, such as reward or time", "aria-label": "Search metrics", oninput: () => this.filter() });
    this.count = el("span", { class: "count" });
    this.grid = el("div", { class: "grid small" });
    this.node = el("div", {}, el("div", { class: "toolbar" }, this.search, this.count), this.grid);
    this.update(runs);
  }

  update(runs) {
    const keys = [...new Set(runs.flatMap((run) => Object.keys(run.metrics)))].sort();
    for (const key of keys) {
      if (this.cards.has(key)) this.cards.get(key).refresh(runs);
      else this.add(key, runs);
    }
    this.grid.append(...keys.map((key) => this.cards.get(key).node));
    this.filter();
  }

  add(key, runs) {
    const spec = { lines: [[key, key]] };
    const card = new ChartCard({ title: key, help: this.range(key, runs), height: 120, mono: true, make: (now) => lineSeries(spec, now) });
    this.cards.set(key, card);
    card.mount(runs);
  }

  range(key, runs) {
    let low = Infinity, high = -Infinity;
    for (const run of runs) for (const value of run.metrics[key] || []) if (value !== null) [low, high] = [Math.min(low, value), Math.max(high, value)];
    return low > high ? "no finite values" : low === high ? `always ${short(low)}` : `${short(low)} to ${short(high)}`;
  }

  filter() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [key, card] of this.cards) {
      card.node.hidden = !words.every((word) => key.toLowerCase().includes(word));
      shown += !card.node.hidden;
    }
    this.count.textContent = `${short(shown)} of ${counted(this.cards.size, "metric")}`;
  }
}
