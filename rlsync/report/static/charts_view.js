"use strict";
// The sections of charts, and what the series of a chart are made of.

const DASHES = [[], [6, 4], [2, 3], [10, 3, 2, 3], [4, 2, 1, 2]];

/** Return the runs that are not hidden, with their numbers. */
function shownRuns(runs) {
  return runs.map((run, number) => ({ run, number })).filter(({ number }) => !charts.hidden.has(number));
}

/** Return the series of a chart of lines: one for each run and metric. */
function lineSeries(spec, runs) {
  const shown = shownRuns(runs), single = runs.length === 1;
  const initial = Object.values(spec.initial || {}).some((key) => shown.some(({ run }) => run.metrics[key]));
  const steps = new Set(shown.flatMap(({ run }) => run.steps));
  if (initial) steps.add(0);
  const x = [...steps].sort((a, b) => a - b);
  const series = [], bands = [];
  for (const { run, number } of shown) {
    const at = places(run, x);
    if (spec.band && run.metrics[spec.band[1]]) addBand(spec.band, run, at, theme.series(number), series, bands, single ? 0.16 : 0.1);
    spec.lines.forEach(([key, label], line) => {
      if (!run.metrics[key]) return;
      const values = at(run.metrics[key]);
      const before = spec.initial && run.metrics[spec.initial[key]];
      if (before) values[x.indexOf(0)] = before.find((value) => value !== null) ?? null;
      const colour = spec.alarm && someValue([run], key) && single ? theme.colours.series[3] : theme.series(single ? line : number);
      series.push(...smoothed({
        label: single ? label : spec.lines.length > 1 ? `${run.name}, ${label}` : run.name,
        values, colour, dash: single ? [] : DASHES[line % DASHES.length], ...density(values),
        note: spec.band && spreadNote(spec.band, run, at),
      }));
    });
  }
  return { x, series, bands, zero: spec.zero, whole: spec.whole, legend: legendOf(spec, single, series.filter((each) => each.label)) };
}

function legendOf(spec, single, series) {
  if (spec.lines.length < 2) return [];
  return spec.lines.map(([, label], line) =>
    single ? { label, colour: theme.series(line), shows: series.find((each) => each.label === label) } : { label, colour: theme.colours.text, dash: DASHES[line % DASHES.length] });
}

/** Return a function that puts a run's values to the steps `x`, and null where the run has none. */
function places(run, x) {
  const index = new Map(run.steps.map((step, place) => [step, place]));
  const from = x.map((step) => index.get(step));
  return (values) => from.map((place) => (place === undefined ? null : values[place]));
}

/** Return how a series is drawn: with points if it is short, and over gaps if few steps have a value. */
function density(values) {
  const known = values.reduce((count, value) => count + (value !== null), 0);
  const sparse = known < 0.7 * values.length && known <= 200;
  return { sparse: sparse || charts.smoothing > 0, points: known <= 30 };
}

function smoothed(series) {
  if (!charts.smoothing || series.points) return [series];
  let mean = null;
  const drawn = series.values.map((value) => {
    if (value === null) return null;
    mean = mean === null ? value : charts.smoothing * mean + (1 - charts.smoothing) * value;
    return mean;
  });
  return [{ values: series.values, colour: faint(series.colour, 0.28), width: 1, sparse: series.sparse }, { ...series, drawn }];
}

function addBand([mean, std, least, most], run, at, colour, series, bands, spread) {
  const means = at(run.metrics[mean]), stds = at(run.metrics[std]);
  const lows = run.metrics[least] && at(run.metrics[least]), highs = run.metrics[most] && at(run.metrics[most]);
  const edge = (sign, bound, clip) => means.map((value, i) =>
    value === null || stds[i] === null ? null : clip(value + sign * stds[i], bound?.[i] ?? value + sign * stds[i]));
  series.push({ values: edge(1, highs, Math.min), hidden: true }, { values: edge(-1, lows, Math.max), hidden: true });
  bands.push({ series: [series.length - 1, series.length], fill: faint(colour, spread) });
}

function spreadNote([, std, least, most], run, at) {
  const [stds, lows, highs] = [std, least, most].map((key) => (run.metrics[key] ? at(run.metrics[key]) : null));
  return (index) => {
    const parts = [];
    if (stds && stds[index] !== null) parts.push(`\u00b1 ${short(stds[index])}`);
    if (lows && highs && lows[index] !== null) parts.push(`${short(lows[index])} to ${short(highs[index])}`);
    return parts.join(", ");
  };
}

/** Return the stacked stages of a run's steps, the sum on top. */
function stageSeries(run) {
  const x = run.steps, total = x.map(() => 0), layers = [];
  const stages = STAGES.filter((stage) => run.metrics[`time/${stage}`]?.some((value) => value));
  const columns = stages.map((stage) => [stage, run.metrics[`time/${stage}`]]);
  const whole = run.metrics["time/step"];
  if (whole) columns.push(["other", x.map((_, i) => Math.max(0, whole[i] - columns.reduce((sum, [, own]) => sum + (own[i] || 0), 0)))]);
  columns.forEach(([stage, values]) => {
    const drawn = values.map((value, i) => (total[i] += value || 0));
    const colour = theme.colours.stages[stage === "other" ? STAGES.length : STAGES.indexOf(stage)];
    layers.push({ label: stage, values, drawn, colour, fill: colour, width: 0, points: false, bars: true });
  });
  const legend = layers.map((layer) => ({ label: layer.label, colour: layer.colour, shows: layer }));
  return { x, series: layers.reverse(), zero: true, legend, margin: 0.5, sum: total };
}

/** The charts of all sections. */
class ChartsView {
  constructor(runs) {
    this.cards = [];
    this.node = el("div", { class: "sections" });
    this.build(runs);
  }

  build(runs) {
    this.shape = shapeOf(runs);
    this.cards.forEach((card) => card.remove());
    this.cards = [];
    fill(this.node, SECTIONS.map((section) => this.section(section, runs)));
    this.cards.forEach((card) => card.mount(runs));
  }

  section(section, runs) {
    const cards = chartsOf(section, runs).map((spec) => new ChartCard({ title: spec.title, help: spec.help, make: (now) => lineSeries(spec, now) }));
    const stacks = section.stages ? stageCards(runs) : [];
    if (!cards.length && !stacks.length) return null;
    this.cards.push(...stacks, ...cards);
    const light = section.light ? (this.light = el("div", { class: "lights" }, runs.map((run, number) => parityLight(run, number, runs.length)))) : null;
    return el("section", { class: "section", id: `section-${section.id}` }, el("h2", { textContent: section.title }), light,
      el("div", { class: "grid" }, [...stacks, ...cards].map((card) => card.node)));
  }

  /** Show newer values of the same runs. */
  update(runs) {
    if (shapeOf(runs) !== this.shape) {
      this.build(runs);
      return;
    }
    if (this.light) fill(this.light, runs.map((run, number) => parityLight(run, number, runs.length)));
    this.cards.forEach((card) => card.refresh(runs));
  }
}

function stageCards(runs) {
  return runs.flatMap((run, number) => (run.steps.length && run.metrics["time/step"]
    ? [new ChartCard({ title: runs.length > 1 ? `Stages of a step: ${run.name}` : "Stages of a step", help: "seconds, stacked", wide: true, height: 220,
        make: (now) => stageSeries(now[number]) })]
    : []));
}

function shapeOf(runs) {
  return SECTIONS.map((section) => chartsOf(section, runs).map((chart) => `${chart.title}${chart.lines.length}`).join()).join("|")
    + runs.map((run) => Boolean(run.metrics["time/step"]));
}
