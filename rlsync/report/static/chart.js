"use strict";
// One chart, drawn with uPlot.

const SYNC = "step";

/** What all charts share: the zoom, the smoothing, and which runs are hidden. */
const charts = {
  all: new Set(),
  zoom: null,
  smoothing: 0,
  hidden: new Set(),
  setZoom(range) {
    this.zoom = range;
    for (const chart of this.all) chart.applyZoom();
  },
  redraw() {
    for (const chart of this.all) chart.refresh();
  },
};

theme.listeners.push(() => charts.redraw());

/** A card with a chart. `make(runs)` returns {x, series, bands}: see lineSeries and stackSeries. */
class ChartCard {
  constructor({ title, help, make, height = 190, wide = false, mono = false }) {
    this.make = make;
    this.height = height;
    this.value = el("span", { class: "chart-value" });
    this.help = el("p", { class: "help", textContent: help || "" });
    this.legend = el("div", { class: "chart-legend", hidden: true, title: help || "" });
    this.body = el("div", { class: "chart-body" });
    this.body.style.height = `${height}px`;
    this.node = el("section", { class: `card chart${wide ? " wide" : ""}` },
      el("header", {}, el("h3", { class: mono ? "mono" : "", textContent: title }), this.value),
      this.help, this.legend, this.body);
    this.plot = null;
    this.seen = false;
  }

  /** Draw the chart when it comes near the screen, and again when its size changes. */
  mount(runs) {
    this.runs = runs;
    charts.all.add(this);
    this.observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      this.observer.disconnect();
      this.seen = true;
      this.refresh();
      this.sizes = new ResizeObserver(() => this.resize());
      this.sizes.observe(this.body);
    }, { rootMargin: "300px" });
    this.observer.observe(this.node);
  }

  remove() {
    this.observer.disconnect();
    this.sizes?.disconnect();
    this.plot?.destroy();
    charts.all.delete(this);
  }

  refresh(runs = this.runs) {
    this.runs = runs;
    if (!this.seen) return;
    this.plot?.destroy();
    this.plot = null;
    this.model = this.make(runs);
    const drawn = this.model.series.filter((series) => series.label);
    const names = this.model.legend || [];
    this.legend.hidden = !names.length;
    this.help.hidden = Boolean(names.length);
    this.numbers = names.map(() => el("b", {}));
    fill(this.legend, names.map(({ label, colour, dash }, i) => el("span", { class: "entry" }, swatch(colour, label, dash), this.numbers[i])));
    if (!drawn.some((series) => series.values.some((value) => value !== null))) {
      fill(this.body, el("p", { class: "nothing", textContent: "no finite values" }));
      this.value.textContent = "";
      return;
    }
    fill(this.body);
    const data = [this.model.x, ...this.model.series.map((series) => series.drawn || series.values)];
    this.plot = new uPlot(this.options(), data, this.body);
    this.applyZoom();
    this.showValue(null);
  }

  resize() {
    const width = this.body.clientWidth;
    if (this.plot && width && Math.abs(width - this.plot.width) > 1) this.plot.setSize({ width, height: this.height });
  }

  applyZoom() {
    if (!this.plot) return;
    const x = this.model.x;
    const margin = this.model.margin || 0;
    const [min, max] = charts.zoom || [x[0] - margin, x[x.length - 1] + margin];
    this.plot.setScale("x", min === max ? { min: min - 1, max: max + 1 } : { min, max });
  }

  options() {
    const colours = theme.colours;
    const axis = {
      stroke: colours.text, font: "11px system-ui, sans-serif", grid: { stroke: colours.grid, width: 1 }, ticks: { show: false },
    };
    return {
      width: this.body.clientWidth, height: this.height, legend: { show: false }, padding: [8, 10, 0, 0],
      cursor: {
        move: (plot, left, top) => [plot.select.width ? left : snapped(plot, left), top],
        sync: { key: SYNC, setSeries: false }, y: false, drag: { x: true, y: false, setScale: false },
        points: { size: (_, i) => this.marked(i) && 7, width: (_, i) => this.marked(i) && 2 }, bind: { dblclick: () => () => charts.setZoom(null) },
      },
      scales: { x: { time: false }, y: { range: (_, min, max) => yRange(min, max, this.model.zero) } },
      axes: [
        { ...axis, size: 26, gap: 4, space: 48, incrs: STEP_INCREMENTS, values: (_, ticks) => axisLabels(ticks) },
        { ...axis, size: axisSize, gap: 6, space: 36, incrs: this.model.whole ? STEP_INCREMENTS : undefined, values: (_, ticks) => axisLabels(ticks) },
      ],
      series: [{}, ...this.model.series.map(plotSeries)],
      bands: this.model.bands || [],
      hooks: {
        setSelect: [(plot) => this.select(plot)],
        setCursor: [(plot) => this.showValue(plot.cursor.idx ?? null, plot.cursor.event)],
      },
    };
  }

  /** Return whether the pointer's step is marked on a series. */
  marked(number) {
    const series = this.model.series[number - 1];
    return Boolean(series?.label && !series.bars);
  }

  select(plot) {
    const { left, width } = plot.select;
    if (width < 6) return;
    const range = [plot.posToVal(left, "x"), plot.posToVal(left + width, "x")];
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    charts.setZoom(range);
  }

  /** Show the values at a step: in the corner, and in a box if the pointer is over this chart. */
  showValue(index, event) {
    const named = this.model.series.filter((series) => series.label);
    const at = (series) => (index === null ? lastOf(series.values) : series.values[index]);
    this.value.textContent = named.length === 1 ? short(at(named[0]) ?? null) : "";
    this.model.legend?.forEach(({ shows }, i) => (this.numbers[i].textContent = shows ? short(at(shows) ?? null) : ""));
    if (index === null) {
      if (hovered === this) tip.hide();
      return;
    }
    if (!event || !this.body.contains(event.target)) return;
    hovered = this;
    const rows = named.filter((series) => at(series) !== null && at(series) !== undefined).map((series) =>
      el("div", { class: "tip-row" }, swatch(series.colour, series.label, series.dash),
        el("b", { textContent: short(at(series)) }), series.note?.(index) ? el("i", { textContent: series.note(index) }) : null));
    tip.show(event.clientX, event.clientY, el("div", { class: "tip-title", textContent: `step ${short(this.model.x[index])}${this.model.sum ? `: ${duration(this.model.sum[index])}` : ""}` }), rows);
  }
}

let hovered = null;

const BARS = uPlot.paths.bars({ size: [1, Infinity], gap: 0 });

const STEP_INCREMENTS = [1, 2, 5].flatMap((n) => Array.from({ length: 9 }, (_, i) => n * 10 ** i)).sort((a, b) => a - b);

/** Return the place of the step nearest to the pointer. */
function snapped(plot, left) {
  return left < 0 ? left : Math.round(plot.valToPos(plot.data[0][plot.posToIdx(left)], "x"));
}

function axisSize(plot, values) {
  const longest = Math.max(0, ...(values || []).map((value) => value.length));
  return Math.max(30, 12 + longest * 6.6);
}

function yRange(min, max, zero) {
  if (min === null || max === null) return [0, 1];
  if (zero && min >= 0) return [0, max > 0 ? max * 1.08 : 1];
  if (min === 0 && max === 0) return [0, 1];
  const pad = max > min ? (max - min) * 0.08 : Math.abs(max) * 0.1 || 0.5;
  return [min - pad, max + pad];
}

function plotSeries(series) {
  if (series.hidden) return { show: true, stroke: null, width: 0, points: { show: false } };
  return {
    stroke: series.colour, width: series.width || 2, dash: series.dash || [], fill: series.fill,
    spanGaps: Boolean(series.sparse), paths: series.bars ? BARS : undefined,
    points: { show: series.points ?? false, size: 5, width: 1, fill: series.colour, stroke: series.colour },
  };
}

/** Return a coloured mark with a name. */
function swatch(colour, label, dash) {
  const mark = el("i", { class: dash?.length ? "mark dashed" : "mark" });
  mark.style.setProperty("--colour", colour);
  return el("span", { class: "swatch" }, mark, label);
}

function lastOf(values) {
  for (let i = values.length - 1; i >= 0; i--) if (values[i] !== null) return values[i];
  return null;
}
