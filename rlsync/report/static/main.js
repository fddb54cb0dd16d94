"use strict";
// Puts the page together, and keeps it up to date while the runs go on.

const TABS = [["charts", "Charts"], ["rollouts", "Rollouts"], ["metrics", "All metrics"], ["settings", "Settings"]];
const POLL_MS = 2000;

class Report {
  constructor(core) {
    this.runs = core.runs;
    this.live = core.live;
    this.source = core.live ? new LiveSource() : new EmbeddedSource();
    this.head = el("div", {});
    this.status = el("span", { class: "status" });
    this.views = {};
    this.pages = Object.fromEntries(TABS.map(([name]) => [name, el("main", { id: `page-${name}`, hidden: true })]));
    this.tabs = TABS.map(([name, label]) => el("a", { href: `#${name}`, textContent: label }));
    fill(document.getElementById("app"), this.top(core), el("div", { class: "content" }, this.head, Object.values(this.pages)),
      el("footer", {}, `rlsync ${core.version}`), tip.node);
    fill(this.head, overview(this.runs));
    addEventListener("hashchange", () => {
      this.show();
      scrollTo(0, 0);
    });
    addEventListener("scroll", () => tip.hide(), { passive: true });
    this.show();
  }

  top(core) {
    const title = this.runs.length === 1 ? this.runs[0].name : counted(this.runs.length, "run");
    const toggle = el("button", { type: "button", class: "theme", title: "light or dark", "aria-label": "switch between light and dark", onclick: () => theme.toggle() });
    return el("header", { class: "top" }, el("div", { class: "bar" }, el("span", { class: "brand", textContent: "rlsync" }), el("h1", { textContent: title }),
      this.runs.length === 1 ? (this.pill = statePill(this.runs[0])) : null, el("span", { class: "grow" }), this.status, toggle),
      el("nav", { "aria-label": "Parts of the report" }, this.tabs));
  }

  show() {
    const wanted = location.hash.slice(1);
    const name = wanted in this.pages ? wanted : "charts";
    this.tabs.forEach((tab, i) => tab.setAttribute("aria-current", TABS[i][0] === name ? "page" : "false"));
    for (const [each, page] of Object.entries(this.pages)) page.hidden = each !== name;
    this.head.hidden = name !== "charts";
    tip.hide();
    this.current = name;
    if (!this.views[name]) this.open(name);
    if (name === "rollouts") whenParsed(() => this.views.rollouts.start(this.runs));
  }

  open(name) {
    const make = {
      charts: () => new ChartsView(this.runs), rollouts: () => new RolloutsView(this.source, this.runs),
      metrics: () => new MetricsView(this.runs), settings: () => new ConfigView(this.runs),
    };
    this.views[name] = make[name]();
    fill(this.pages[name], name === "charts" || name === "metrics" ? chartBar(this.runs) : null, this.views[name].node);
  }

  /** Ask the server again and again, and show what is new. */
  async follow() {
    let seen = "", restarts = null, complete = false;
    this.status.textContent = "live";
    this.status.classList.add("live");
    while (!complete) {
      try {
        const news = await this.source.news(seen);
        if (news) {
          if (restarts !== null && news.restarts !== restarts) location.reload();
          ({ tag: seen, restarts, complete } = news);
          this.update(news.core.runs);
        }
        this.status.textContent = complete ? "complete" : "live";
      } catch {
        this.status.textContent = "no connection";
      }
      await new Promise((done) => setTimeout(done, POLL_MS));
    }
    this.status.classList.remove("live");
    this.source.ended = "the live view has ended. The report that it wrote has everything.";
  }

  update(runs) {
    this.runs = runs;
    fill(this.head, overview(runs));
    if (this.pill) {
      const pill = statePill(runs[0]);
      this.pill.replaceWith(pill);
      this.pill = pill;
    }
    for (const [name, view] of Object.entries(this.views)) {
      if (name === "rollouts") view.start(runs);
      else view.update(runs);
    }
  }
}

/** Return the controls of all charts: which runs are shown, and smoothing. */
function chartBar(runs) {
  const toggles = runs.length < 2 ? [] : runs.map((run, number) => {
    const button = el("button", { type: "button", class: "chip", "aria-pressed": String(!charts.hidden.has(number)), onclick: () => {
      if (!charts.hidden.delete(number)) charts.hidden.add(number);
      button.setAttribute("aria-pressed", String(!charts.hidden.has(number)));
      charts.redraw();
    } }, swatch(theme.series(number), run.name));
    return button;
  });
  const smoothing = segmented("Smoothing", [[0, "Raw"], [0.8, "Smooth"], [0.95, "Smoother"]], charts.smoothing, (value) => {
    charts.smoothing = value;
    charts.redraw();
  });
  return el("div", { class: "toolbar chart-bar" }, toggles, el("span", { class: "grow hint", textContent: "Drag over a chart to zoom all, double-click to zoom out." }), smoothing);
}

/** Call `work` when the whole page has been read, so that every chunk is there. */
function whenParsed(work) {
  if (document.readyState === "loading") addEventListener("DOMContentLoaded", work, { once: true });
  else work();
}

async function start() {
  theme.start();
  try {
    const report = new Report(await readChunk("core"));
    document.documentElement.dataset.ready = "true";
    if (report.live) report.follow();
  } catch (error) {
    fill(document.getElementById("app"), el("p", { class: "fatal", textContent: `This report cannot be shown: ${error.message}. It needs a browser of 2023 or later.` }));
    throw error;
  }
}

start();
