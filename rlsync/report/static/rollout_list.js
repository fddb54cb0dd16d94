"use strict";
// The listed rollouts: filters, order, and a list that holds only the rows on the screen.

/** Rollouts of all runs, as they are loaded. */
class RolloutStore {
  constructor(source) {
    this.source = source;
    this.rows = [];
    this.loaded = new Map(); // run -> number of the next row
    this.busy = null;
  }

  /** Load what is not loaded yet, and call `progress` after each part. */
  load(runs, progress) {
    this.busy ??= this.loadAll(runs, progress).finally(() => (this.busy = null));
    return this.busy;
  }

  async loadAll(runs, progress) {
    for (const [run, { rollouts }] of runs.entries()) {
      if ((this.loaded.get(run) ?? -1) >= rollouts.listed) continue;
      for await (const { columns, first } of this.source.rows(run, rollouts, this.loaded.get(run))) {
        this.add(run, columns, first);
        progress();
        await new Promise((done) => setTimeout(done));
      }
    }
  }

  add(run, columns, first) {
    const names = Object.keys(columns);
    columns.step.forEach((_, i) => {
      const row = { run, number: first + i };
      for (const name of names) row[name] = columns[name][i];
      row.text = `${row.prompt}\n${row.response}\n${row.answer}\n${row.problem}`.toLowerCase();
      this.rows.push(row);
    });
    this.loaded.set(run, first + columns.step.length);
  }
}

/** Return the rows that the filter lets through, in its order. */
function filtered(rows, filter) {
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const steps = stepRange(filter.step);
  const found = rows.filter((row) =>
    (filter.run === null || row.run === filter.run) &&
    (!steps || (row.step >= steps[0] && row.step <= steps[1])) &&
    (!filter.finish || row.finish === filter.finish) &&
    (filter.problem === null || row.problem === filter.problem) &&
    words.every((word) => row.text.includes(word)));
  const key = filter.sort, sign = filter.descending ? -1 : 1;
  const order = (a, b) => a.step - b.step || a.run - b.run || a.number - b.number;
  if (key === "step") return found.sort((a, b) => sign * order(a, b));
  const missing = (row) => row[key] === null;
  return found.sort((a, b) => missing(a) - missing(b) || sign * (a[key] - b[key]) || order(a, b));
}

/** Return the range that a text such as 7 or 5-12 names; null if it names none. */
function stepRange(text) {
  const match = /^\s*(\d+)\s*(?:[-\u2013:]\s*(\d+)?)?\s*$/.exec(text);
  if (!match) return null;
  const first = Number(match[1]);
  return [first, match[2] ? Number(match[2]) : /\d\s*[-\u2013:]/.test(text) ? Infinity : first];
}

const ROW_HEIGHT = 84;

/** A list of which only the visible rows are elements. */
class VirtualList {
  constructor(render, onchoose) {
    this.render = render;
    this.onchoose = onchoose;
    this.rows = [];
    this.chosen = null;
    this.spacer = el("div", { class: "spacer" });
    this.node = el("div", { class: "list", tabIndex: 0, role: "listbox", "aria-label": "Rollouts", onscroll: () => this.draw(), onkeydown: (event) => this.key(event) }, this.spacer);
    new ResizeObserver(() => this.draw()).observe(this.node);
  }

  show(rows, keep) {
    this.rows = rows;
    this.spacer.style.height = `${rows.length * ROW_HEIGHT}px`;
    if (!keep) this.node.scrollTop = 0;
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.node.scrollTop / ROW_HEIGHT) - 5);
    const last = Math.min(this.rows.length, first + Math.ceil(this.node.clientHeight / ROW_HEIGHT) + 10);
    const items = [];
    for (let i = first; i < last; i++) {
      const item = this.render(this.rows[i], this.rows[i] === this.chosen);
      item.style.top = `${i * ROW_HEIGHT}px`;
      item.addEventListener("click", () => this.choose(i));
      items.push(item);
    }
    fill(this.spacer, items);
  }

  choose(index) {
    if (index < 0 || index >= this.rows.length) return;
    this.chosen = this.rows[index];
    const top = index * ROW_HEIGHT, bottom = top + ROW_HEIGHT;
    if (top < this.node.scrollTop) this.node.scrollTop = top;
    else if (bottom > this.node.scrollTop + this.node.clientHeight) this.node.scrollTop = bottom - this.node.clientHeight;
    this.draw();
    this.onchoose(this.chosen);
  }

  move(by) {
    this.choose(this.rows.indexOf(this.chosen) + by);
  }

  key(event) {
    const by = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.move(by);
  }
}
