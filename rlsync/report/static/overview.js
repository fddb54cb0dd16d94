"use strict";
// What the runs are and how they went, in a few numbers.

const STATES = { complete: "complete", running: "running", stopped: "not complete" };

function firstOf(values) {
  return values?.find((value) => value !== null) ?? null;
}

/** Return the numbers that sum up a run. */
function headline(run) {
  const metrics = run.metrics;
  const initial = firstOf(metrics["eval/accuracy_initial"]);
  return {
    rewardFirst: firstOf(metrics["reward/mean"]), rewardLast: lastOf(metrics["reward/mean"] || []),
    accuracyFirst: initial, accuracyLast: lastOf(metrics["eval/accuracy"] || []),
    steps: run.steps_planned ? `${short(run.steps_done)} of ${short(run.steps_planned)}` : short(run.steps_done),
    seconds: run.seconds,
  };
}

/** Return whether the bits of a run are equal: "equal", "different" or "unknown". */
function parityOf(run) {
  const digests = run.metrics["parity/weights_digest_equal"] || [];
  const draws = run.metrics["parity/draws_different"] || [];
  if (run.different || digests.some((value) => value === 0) || draws.some((value) => value)) return "different";
  return run.compared ? "equal" : "unknown";
}

function parityText(run) {
  return run.compared ? `${short(run.different)} of ${short(run.compared)} tokens differ` : "no tokens compared yet";
}

/** Return the light that says at a glance whether the bits are equal. */
function parityLight(run, number, count) {
  const state = parityOf(run);
  return el("div", { class: `light ${state}` }, el("span", { class: "lamp", "aria-hidden": "true" }),
    el("div", {}, count > 1 ? el("div", { class: "light-run" }, swatch(theme.series(number), run.name)) : null,
      el("strong", { textContent: parityText(run) }), el("p", { textContent: parityDetail(run, state) })));
}

function parityDetail(run, state) {
  if (state === "unknown") return "The monitor compares every token that is trained on at the weights that sampled it.";
  const digests = run.metrics["parity/weights_digest_equal"] || [];
  const wrong = digests.filter((value) => value === 0).length;
  const sum = (key) => (run.metrics[key] || []).reduce((total, value) => total + (value || 0), 0);
  const sentences = [];
  if (run.different) {
    const first = run.steps[run.metrics["parity/tokens_different"].findIndex((value) => value)];
    const most = Math.max(0, ...(run.metrics["parity/max_ulp"] || []).filter((value) => value !== null));
    sentences.push(`The first at step ${short(first)}, by up to ${short(most)} units in the last place.`);
  } else if (run.compared) {
    sentences.push("Rollout and trainer computed the same bits.");
  }
  const draws = sum("parity/draws_different"), drawn = sum("parity/draws_compared");
  if (drawn || draws) sentences.push(`${short(draws)} of ${counted(drawn, "draw")} came out differently.`);
  if (wrong) sentences.push(`Weights differed after the sync in ${counted(wrong, "step")}.`);
  else if (digests.some((value) => value !== null)) sentences.push("Weights were equal after every sync.");
  return sentences.join(" ");
}

/** Return a line about model, data and placement. */
function facts(run) {
  const config = run.config, has = (key) => config[key] && config[key] !== "null";
  if (!has("model.source")) return [];
  const model = config["model.source"] === "tiny" ? "tiny Qwen3" : config["model.path"].split("/").slice(-2).join("/");
  const data = config["data.source"] === "reasoning_gym" ? config["data.task"] : config["data.path"] || config["data.source"];
  const ranks = config["trainer.ranks"], engines = config["rollout.engines"], tp = config["rollout.tp"];
  return [
    ["model", model], ["data", data?.split("/").slice(-2).join("/")], ["algorithm", [config["algorithm.advantage"], config["algorithm.loss"]].filter(Boolean).join(" + ")],
    ["kernels", config["kernels.mode"]], ["dtype", config["model.dtype"]],
    ["placement", ranks && `${counted(Number(ranks), "FSDP rank")}, ${counted(Number(engines), "engine")} with TP=${tp}, ${config["cluster.device"]}`],
    ["seed", config.seed],
  ].filter(([, value]) => value);
}

function figure(label, value, note, kind = "") {
  return el("div", { class: `card figure ${kind}` }, el("div", { class: "label", textContent: label }), el("div", { class: "number" }, value),
    el("div", { class: "note", textContent: note || "" }));
}

function change(before, after, digits = three) {
  if (before === null || after === null) return [digits(after ?? before)];
  return [el("span", { class: "before", textContent: digits(before) }), el("span", { class: "arrow", textContent: ` ${ARROW} ` }), digits(after)];
}

function gain(before, after) {
  if (before === null || after === null) return "";
  return `${after < before ? MINUS : "+"}${Math.abs(after - before).toFixed(3)}`;
}

function statePill(run) {
  return el("span", { class: `pill ${run.state}`, textContent: STATES[run.state] });
}

/** Return the head of the page for one run or for several. */
function overview(runs) {
  const notes = runs.flatMap((run) => run.notes.map((note) => (runs.length > 1 ? `${run.name}: ${note}` : note)));
  const empty = runs.filter((run) => !run.steps.length).map((run) => `${runs.length > 1 ? `${run.name}: n` : "N"}o step has finished yet.`);
  const lines = [...empty, ...notes].map((note) => el("li", { textContent: note }));
  return [runs.length > 1 ? runTable(runs) : runCards(runs[0]), lines.length ? el("ul", { class: "notes" }, lines) : null];
}

function runCards(run) {
  const head = headline(run), state = parityOf(run);
  const lamp = el("span", { class: "lamp", "aria-hidden": "true" });
  const parity = el("div", { class: "parity-figure" }, lamp, el("span", { textContent: run.compared ? `${short(run.different)} differ` : DASH }));
  return el("div", { class: "overview" },
    el("dl", { class: "facts" }, facts(run).map(([name, value]) => el("div", {}, el("dt", { textContent: name }), el("dd", { textContent: value })))),
    el("div", { class: "figures" },
      figure("Reward", change(head.rewardFirst, head.rewardLast), gain(head.rewardFirst, head.rewardLast)),
      figure("Held-out accuracy", change(head.accuracyFirst, head.accuracyLast), gain(head.accuracyFirst, head.accuracyLast)),
      figure("Tokens", parity, run.compared ? `of ${short(run.compared)} compared bit by bit` : "none compared yet", `light ${state}`),
      figure("Steps", head.steps, STATES[run.state]),
      figure("Duration", duration(head.seconds), run.steps_done ? `${duration(head.seconds / run.steps_done)} a step` : "")));
}

function runTable(runs) {
  const heads = ["Run", "", "Steps", "Reward", "Held-out accuracy", "Parity", "Duration"];
  const rows = runs.map((run, number) => {
    const head = headline(run);
    const cells = [
      swatch(theme.series(number), run.name), statePill(run), head.steps,
      change(head.rewardFirst, head.rewardLast), change(head.accuracyFirst, head.accuracyLast),
      el("span", { class: `light-text ${parityOf(run)}` }, el("span", { class: "lamp", "aria-hidden": "true" }), parityText(run)),
      duration(head.seconds),
    ];
    return el("tr", {}, cells.map((cell, i) => el("td", { data: { label: heads[i] } }, el("span", {}, cell))));
  });
  return el("div", { class: "card table-card" }, el("table", { class: "runs" },
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { textContent: head })))), el("tbody", {}, rows)));
}
