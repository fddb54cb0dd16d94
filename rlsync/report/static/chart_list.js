"use strict";
// Which metrics are drawn in which chart. A metric that is in no chart here is found under "All metrics".

const STAGES = ["sync", "rollout", "reward", "train", "eval", "save"];

/* A chart: `lines` are [key, label] pairs. `zero`: the axis begins at 0. `band`: keys of mean and deviation.
   `whole`: ticks are whole numbers. `alarm`: values above 0 are drawn in red.
   `quiet`: not drawn if all values are 0. `initial`: a key whose value at step 1 is drawn at step 0.
   `match`: more lines, one for every key that matches. */
const SECTIONS = [
  { id: "learning", title: "Learning", charts: [
    { title: "Reward", help: "mean of the step's scores, with a band of one standard deviation",
      lines: [["reward/mean", "mean"]], band: ["reward/mean", "reward/std", "reward/min", "reward/max"] },
    { title: "Held-out accuracy", help: "share of held-out problems that are solved",
      lines: [["eval/accuracy", "accuracy"]], initial: { "eval/accuracy": "eval/accuracy_initial" } },
    { title: "Evaluation sets", help: "each set by itself", match: /^eval\/.+\/(accuracy|mean@\d+|pass@\d+)$/, several: true },
    { title: "Response length", help: "sampled tokens of a response", zero: true,
      lines: [["response/length_mean", "mean"], ["response/length_max", "longest"]] },
    { title: "Truncated responses", help: "share cut off at the token limit", zero: true,
      lines: [["response/truncated_share", "share"]] },
    { title: "Reward parts", help: "mean of each reward function's number", match: /^reward\/part\// },
    { title: "Groups", help: "groups, and those whose rewards are all equal", zero: true, whole: true,
      lines: [["reward/groups_without_signal", "without a signal"], ["reward/groups", "all"]] },
    { title: "Turns", help: "turns of the model and tool calls in a conversation", quiet: true,
      lines: [["rollout/tool_calls_mean", "tool calls"]] },
  ] },
  { id: "training", title: "Training", charts: [
    { title: "Entropy", help: "nats per token", lines: [["train/entropy", "entropy"]] },
    { title: "Loss", help: "the objective", lines: [["train/loss", "loss"]] },
    { title: "KL to the reference", help: "per token", quiet: true, lines: [["train/kl_reference", "KL"]] },
    { title: "Gradient norm", help: "before clipping", zero: true, lines: [["train/grad_norm", "norm"]] },
    { title: "Importance ratio", help: "smallest and largest; 1 is on policy",
      lines: [["train/ratio_max", "largest"], ["train/ratio_min", "smallest"]] },
    { title: "Clipped tokens", help: "share", zero: true,
      lines: [["train/clip_fraction", "clipped"]] },
    { title: "Truncated importance weights", help: "share of tokens", quiet: true, lines: [["train/tis_truncated", "share"]] },
    { title: "Learning rate", help: "of the last update", zero: true, lines: [["train/learning_rate", "learning rate"]] },
    { title: "Critic loss", help: "of the values", zero: true, lines: [["critic/loss", "loss"]] },
    { title: "Critic, explained variance", help: "1 is best; below 0 is worse than a constant",
      lines: [["critic/explained_variance", "share"]] },
    { title: "Critic values", help: "mean at the sampled tokens", lines: [["critic/value_mean", "mean"]] },
    { title: "Critic gradient norm", help: "before clipping", zero: true, lines: [["critic/grad_norm", "norm"]] },
  ] },
  { id: "parity", title: "Parity", light: true, charts: [
    { title: "Tokens that differ", help: "in at least one bit of their log-prob", zero: true, alarm: true, whole: true,
      lines: [["parity/tokens_different", "different"]] },
    { title: "Tokens compared", help: "bit by bit", zero: true,
      lines: [["parity/tokens_compared", "compared"], ["parity/tokens_left_out_stale", "left out, stale"]] },
    { title: "Largest difference", help: "units in the last place", zero: true, alarm: true, whole: true, lines: [["parity/max_ulp", "ulp"]] },
    { title: "Draws that differ", help: "of the tokens that the trainer drew again", zero: true, alarm: true, whole: true,
      lines: [["parity/draws_different", "different"]] },
    { title: "Share of tokens compared", help: "of those sampled", zero: true, lines: [["parity/share_compared", "share"]] },
    { title: "Rows that differ", help: "in at least one token", zero: true, alarm: true, whole: true,
      lines: [["parity/rows_different", "different"]] },
  ] },
  { id: "speed", title: "Time, speed and memory", stages: true, charts: [
    { title: "Rollout speed", help: "sampled tokens a second", zero: true,
      lines: [["perf/rollout_tokens_per_s", "tokens/s"]] },
    { title: "Training speed", help: "rows forwarded and differentiated a second", zero: true,
      lines: [["perf/train_tokens_per_s", "rows/s"]] },
    { title: "Time of a step", help: "seconds", zero: true, lines: [["time/step", "seconds"]] },
    { title: "Memory", help: "largest so far, in GiB", zero: true, dropZeros: true,
      lines: [["memory/trainer_gib", "trainer"], ["memory/rollout_gib", "rollout"], ["memory/trainer_gpu_gib", "a trainer GPU"]] },
  ] },
];

/** Return the charts of a section that have values in some run. */
function chartsOf(section, runs) {
  const known = new Set(runs.flatMap((run) => Object.keys(run.metrics)));
  const found = section.charts.map((chart) => present(chart, runs, known)).filter(Boolean);
  if (section.id === "parity") {
    const drawn = new Set(SECTIONS.flatMap((each) => each.charts.flatMap((chart) => chart.lines || [])).map(([key]) => key));
    const plain = new Set(["parity/tokens_sampled", "parity/draws_compared", "parity/weights_digest_equal", "parity/first_position"]);
    const more = [...known].filter((key) => key.startsWith("parity/") && !drawn.has(key) && !plain.has(key)).sort();
    found.push(...more.map((key) => present(plainChart(key), runs, known)).filter((chart) => chart && someValue(runs, chart.lines[0][0])));
  }
  return found;
}

/** Return the chart of one metric. */
function plainChart(key) {
  const words = key.slice(key.indexOf("/") + 1).replaceAll("_", " ");
  return { title: words[0].toUpperCase() + words.slice(1), help: key, lines: [[key, words]] };
}

function present(chart, runs, known) {
  let lines = (chart.lines || []).filter(([key]) => known.has(key));
  if (chart.match) {
    const keys = [...known].filter((key) => chart.match.test(key)).sort();
    lines = keys.map((key) => [key, key.replace(/^(eval|reward\/part)\//, "")]);
    if (chart.several && keys.length < 2) return null;
  }
  if (chart.dropZeros) lines = lines.filter(([key]) => someValue(runs, key));
  if (!lines.length || (chart.quiet && !lines.some(([key]) => someValue(runs, key)))) return null;
  return { ...chart, lines };
}

/** Whether some run has a value of the metric that is not 0. */
function someValue(runs, key) {
  return runs.some((run) => run.metrics[key]?.some((value) => value));
}
