"use strict";
// The settings of the runs: first those that differ, then all.

class ConfigView {
  constructor(runs) {
    this.search = el("input", { type: "search", placeholder: "Search settings, such as lr or rollout", "aria-label": "Search settings", oninput: () => this.show() });
    this.count = el("span", { class: "count" });
    this.body = el("div", {});
    this.node = el("div", {}, el("div", { class: "toolbar" }, this.search, this.count), this.body);
    this.update(runs);
  }

  update(runs) {
    const text = JSON.stringify(runs.map((run) => run.config));
    if (text === this.text) return;
    this.text = text;
    this.runs = runs;
    this.show();
  }

  show() {
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const keys = [...new Set(this.runs.flatMap((run) => Object.keys(run.config)))];
    const found = keys.filter((key) => words.every((word) =>
      key.toLowerCase().includes(word) || this.runs.some((run) => run.config[key]?.toLowerCase().includes(word))));
    const differ = found.filter((key) => new Set(this.runs.map((run) => run.config[key])).size > 1);
    const same = found.filter((key) => !differ.includes(key));
    this.count.textContent = `${short(found.length)} of ${counted(keys.length, "setting")}`;
    const several = this.runs.length > 1;
    fill(this.body,
      several ? [el("h2", { textContent: "Different settings" }), differ.length ? this.table(differ, this.runs) : el("p", { class: "nothing", textContent: "none" }),
        el("h2", { textContent: "Equal settings" })] : null,
      same.length ? this.table(same, this.runs.slice(0, 1)) : el("p", { class: "nothing", textContent: "none" }));
  }

  table(keys, runs) {
    const several = runs.length > 1;
    const head = several ? el("thead", {}, el("tr", {}, el("th", { textContent: "Setting" }),
      runs.map((run, number) => el("th", {}, swatch(theme.series(number), run.name))))) : null;
    const rows = keys.map((key) => el("tr", {}, el("th", { class: "mono", textContent: key }), runs.map((run) => value(run.config[key], several ? run.name : ""))));
    return el("div", { class: "card table-card" }, el("table", { class: "settings" }, head, el("tbody", {}, rows)));
  }
}

function value(text, label) {
  const absent = text === undefined ? "not set" : text === "" ? "empty" : "";
  return el("td", { class: absent ? "mono absent" : "mono", textContent: absent || text, data: { label } });
}
