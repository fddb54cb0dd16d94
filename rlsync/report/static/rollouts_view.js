"use strict";
// The browser of rollouts: filters above, a list on the left, one rollout on the right.

class RolloutsView {
  constructor(source, runs) {
    this.runs = runs;
    this.store = new RolloutStore(source);
    this.filter = { run: null, text: "", step: "", finish: "", problem: null, sort: "step", descending: false };
    this.detail = new RolloutDetail(source, { close: () => this.close(), move: (by) => this.list.move(by), group: (row) => this.group(row) });
    this.list = new VirtualList((row, chosen) => this.item(row, chosen), (row) => this.open(row));
    this.count = el("span", { class: "count", role: "status" });
    this.chip = el("span", {});
    this.note = el("p", { class: "help note" });
    this.node = el("div", { class: "rollouts" }, this.toolbar(), this.note,
      el("div", { class: "panes" }, el("div", { class: "card list-card" }, el("div", { class: "list-head" }, this.count, this.chip), this.list.node), el("div", { class: "card detail-card" }, this.detail.node)));
  }

  toolbar() {
    const change = (key, map = (value) => value) => (event) => {
      this.filter[key] = map(event.target.value);
      this.apply();
    };
    this.search = el("input", { type: "search", placeholder: "Search prompts and responses", "aria-label": "Search rollouts", class: "grow", oninput: later(change("text"), 120) });
    const step = el("input", { type: "text", inputMode: "numeric", placeholder: "Step, or 5-12", "aria-label": "Step or range of steps", class: "step", oninput: later(change("step"), 120) });
    this.finish = el("select", { "aria-label": "How it ended", onchange: change("finish") });
    const sort = select("Order", [["step", "Step"], ["reward", "Reward"], ["length", "Length"], ["advantage", "Advantage"]], change("sort"));
    this.direction = el("button", { type: "button", class: "direction", title: "turn the order round", "aria-label": "turn the order round", textContent: "\u2191", onclick: () => this.turn() });
    const run = this.runs.length > 1
      ? select("Run", [["", "All runs"], ...this.runs.map((each, i) => [String(i), each.name])], change("run", (value) => (value === "" ? null : Number(value)))) : null;
    return el("div", { class: "toolbar" }, this.search, run, step, this.finish, el("div", { class: "joined" }, sort, this.direction));
  }

  turn() {
    this.filter.descending = !this.filter.descending;
    this.direction.textContent = this.filter.descending ? "\u2193" : "\u2191";
    this.apply();
  }

  /** Load rollouts when the view is opened first, and what is new later. */
  async start(runs = this.runs) {
    this.runs = runs;
    this.started = true;
    this.note.textContent = this.held();
    try {
      await this.store.load(runs, later(() => this.apply(true), 30));
    } catch (error) {
      this.note.textContent = `Rollouts could not be loaded: ${error.message}`;
    }
    this.finishes();
    this.apply(true);
  }

  held() {
    const sum = (key) => this.runs.reduce((total, run) => total + run.rollouts[key], 0);
    const total = sum("total"), listed = sum("listed"), detailed = sum("detailed");
    if (!total) return "These runs have no rollouts that could be shown.";
    const parts = [];
    if (listed < total) parts.push(`The page lists ${short(listed)} of ${short(total)} rollouts: the best, the worst, the first and the longest of each step, and others.`);
    if (detailed < listed) parts.push(`It holds the tokens of ${short(detailed)} of them; the others have texts of at most ${short(Math.min(...this.runs.filter((run) => run.rollouts.listed).map((run) => run.rollouts.text_limit)))} characters.`);
    return parts.join(" ");
  }

  finishes() {
    const reasons = [...new Set(this.store.rows.map((row) => row.finish))].filter(Boolean).sort();
    fill(this.finish, [["", "Any end"], ...reasons.map((reason) => [reason, `Ended by ${reason}`])].map(([value, text]) => el("option", { value, textContent: text })));
    this.finish.value = this.filter.finish;
  }

  apply(keep = false) {
    const found = filtered(this.store.rows, this.filter);
    const all = this.runs.reduce((total, run) => total + run.rollouts.listed, 0);
    const loading = this.store.busy && this.store.rows.length < all ? `, ${Math.floor((100 * this.store.rows.length) / all)} % loaded` : "";
    this.count.textContent = `${short(found.length)} of ${counted(all, "rollout")}${loading}`;
    fill(this.chip, this.filter.problem === null ? null : el("button", { type: "button", class: "chip", textContent: "one group \u00d7", title: "show all again", onclick: () => this.ungroup() }));
    this.list.show(found, keep);
    if (!this.opened && innerWidth > 900 && found.length && !this.store.busy) this.list.choose(0);
  }

  group(row) {
    Object.assign(this.filter, { problem: row.problem, step: String(row.step), run: row.run });
    this.close();
    this.apply();
  }

  ungroup() {
    Object.assign(this.filter, { problem: null, step: "", run: null });
    this.apply();
  }

  open(row) {
    this.opened = true;
    this.node.classList.add("reading");
    this.detail.show(row, this.runs[row.run], this.runs.length > 1);
  }

  close() {
    this.node.classList.remove("reading");
  }

  item(row, chosen) {
    const reward = el("span", { class: "reward", textContent: row.reward === null ? "no reward" : `reward ${short(row.reward)}` });
    const several = this.runs.length > 1;
    return el("div", { class: chosen ? "item chosen" : "item", role: "option", "aria-selected": String(chosen) },
      el("div", { class: "meta" }, several ? swatch(theme.series(row.run), "") : null, el("span", { textContent: `step ${row.step} \u00b7 ${row.sample}` }), el("span", { class: "grow" }),
        row.finish === "stop" ? null : el("span", { class: "finish", textContent: row.finish }), this.filter.sort === "advantage" ? el("span", { textContent: `advantage ${short(row.advantage)}` }) : null,
        el("span", { textContent: counted(row.length, "token") }), reward),
      el("div", { class: "line prompt", textContent: oneLine(row.prompt) }),
      el("div", { class: "line", textContent: oneLine(row.response) || "empty response" }));
  }
}

function oneLine(text) {
  return text.slice(0, 240).replace(/\s+/g, " ").trim();
}

function select(label, options, onchange) {
  return el("select", { "aria-label": label, onchange }, options.map(([value, text]) => el("option", { value, textContent: text })));
}
