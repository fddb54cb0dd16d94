"use strict";
// One rollout: its texts, and its tokens coloured by what is known of each.

const COLOURINGS = [["logprob", "Log-prob"], ["advantage", "Advantage"], ["difference", "Difference"], ["none", "None"]];
const LOGPROB_STEPS = [0.95, 0.8, 0.6, 0.4, 0.2, 0.1, 0.03];

/** Return what is known of each token of a record. */
function tokensOf(record, pieces, row) {
  let sampled = 0;
  return record.tokens.map((piece, place) => {
    const bits = record.bits.slice(8 * place, 8 * place + 8);
    const own = bits.length === 8 && bits[0] !== "-";
    const token = { id: pieces[piece][0], text: pieces[piece][1], place, own, bits };
    token.logprob = own ? fromBits(bits) : null;
    token.advantage = own ? (record.advantages.length ? record.advantages[sampled] ?? null : row.advantage) : null;
    token.trainer = record.trainer && own ? record.trainer[place] ?? bits : null;
    sampled += own;
    return token;
  });
}

/** Return the class that colours a token. */
function tokenClass(token, colouring, largest) {
  if (!token.own) return "given";
  if (colouring === "logprob") {
    const probability = Math.exp(token.logprob);
    const level = LOGPROB_STEPS.findIndex((least) => probability >= least);
    return `heat-${level < 0 ? LOGPROB_STEPS.length : level}`;
  }
  if (colouring === "advantage") {
    if (!token.advantage) return "";
    return `${token.advantage > 0 ? "up" : "down"}-${Math.ceil(3 * Math.min(1, Math.abs(token.advantage) / largest))}`;
  }
  if (colouring === "difference" && token.trainer) return token.trainer === token.bits ? "same" : "differs";
  return "";
}

function tokenText(token) {
  if (token.text === null) return `${token.id} `;
  if (token.text === "") return "\u00b7";
  return token.text.replaceAll("\n", "\u21b5\n");
}

function tokenTip(token) {
  const line = (name, value) => el("div", { class: "tip-row" }, el("span", { textContent: name }), el("b", { class: "mono", textContent: value }));
  const lines = [line("id", String(token.id)), line("position", String(token.place))];
  if (!token.own) return [...lines, el("div", { class: "tip-row", textContent: "not sampled: part of a message" })];
  lines.push(line("log-prob", short(token.logprob)), line("probability", short(Math.exp(token.logprob))), line("bits", token.bits));
  if (token.trainer) lines.push(line("trainer", token.trainer === token.bits ? "same bits" : `${token.trainer} ${short(fromBits(token.trainer))}`));
  if (token.advantage !== null) lines.push(line("advantage", short(token.advantage)));
  return lines;
}

/** The pane that shows one rollout. */
class RolloutDetail {
  constructor(source, actions) {
    this.source = source;
    this.actions = actions;
    this.colouring = "logprob";
    this.node = el("article", { class: "detail" });
    this.empty();
  }

  empty() {
    fill(this.node, el("p", { class: "nothing", textContent: "Choose a rollout to read it." }));
  }

  async show(row, run, several) {
    this.row = row;
    let chunk = null, failed = "";
    try {
      chunk = await this.source.detail(row.run, row.number);
    } catch (error) {
      failed = `${row.cut ? "The texts are cut off. " : ""}The rest could not be loaded: ${this.source.ended || error.message}`;
    }
    if (this.row !== row) return;
    const record = chunk?.records.find((each) => each.row === row.number) ?? null;
    const tokens = record ? tokensOf(record, chunk.pieces, row) : [];
    fill(this.node, this.head(row, run, several), this.facts(row, record), this.parts(record),
      record ? null : el("p", { class: "notice", textContent: failed || this.missing(row) }),
      block("Prompt", row.cut && !record ? `${row.prompt}\u2026` : record?.prompt ?? row.prompt),
      record?.read ? block("Prompt as the model read it", record.read, true) : null,
      record ? this.response(record, tokens, row) : block("Response", row.cut ? `${row.response}\u2026` : row.response),
      record?.turns.length ? turns(record.turns) : null,
      block("Answer", record?.answer ?? row.answer),
      record?.error ? block("Why there is no reward", record.error) : null,
      record?.cut ? el("p", { class: "notice", textContent: "This rollout is too long to be shown whole; rollouts.jsonl has all of it." }) : null);
    this.node.scrollTop = 0;
  }

  missing(row) {
    return `The page holds the tokens of a sample of rollouts, and this one is not in it${row.cut ? ", so that its texts are cut off" : ""}. `
      + `rollouts.jsonl has all of it: step ${row.step}, sample ${row.sample}.`;
  }

  head(row, run, several) {
    return el("header", { class: "detail-head" },
      el("button", { type: "button", class: "back", textContent: "Back", onclick: () => this.actions.close() }),
      el("h2", { textContent: `Step ${row.step}, sample ${row.sample}` }), several ? swatch(theme.series(row.run), run.name) : null,
      el("span", { class: "grow" }),
      el("button", { type: "button", textContent: "Its group", title: "all responses of this step to the same problem", onclick: () => this.actions.group(row) }),
      el("button", { type: "button", textContent: "\u2191", title: "previous", "aria-label": "previous rollout", onclick: () => this.actions.move(-1) }),
      el("button", { type: "button", textContent: "\u2193", title: "next", "aria-label": "next rollout", onclick: () => this.actions.move(1) }));
  }

  facts(row, record) {
    const facts = [["reward", short(row.reward)], ["advantage", short(row.advantage)], ["length", counted(row.length, "token")], ["ended by", row.finish], ["problem", row.problem]];
    if (record) facts.push(["weights", `version ${record.version}`], ["seed", record.seed]);
    return el("dl", { class: "facts" }, facts.map(([name, text]) => el("div", {}, el("dt", { textContent: name }), el("dd", { textContent: text }))));
  }

  parts(record) {
    const parts = Object.entries(record?.parts ?? {});
    if (!parts.length) return null;
    return el("dl", { class: "facts" }, parts.map(([name, score]) => el("div", {}, el("dt", { textContent: name }), el("dd", { textContent: short(score) }))));
  }

  response(record, tokens, row) {
    const known = Boolean(record.trainer);
    const options = COLOURINGS.map(([value, label]) => [value, label, value === "difference" && !known,
      value === "difference" && !known ? "rollouts.jsonl of this run has no log-probs of the trainer" : ""]);
    if (this.colouring === "difference" && !known) this.colouring = "logprob";
    const box = el("div", { class: "tokens" }), key = el("div", { class: "key" });
    const paint = () => {
      const largest = Math.max(1e-9, ...tokens.map((token) => Math.abs(token.advantage ?? 0)));
      tokens.forEach((token, i) => (box.children[i].className = tokenClass(token, this.colouring, largest)));
      fill(key, colourKey(this.colouring));
    };
    if (!tokens.length) return block("Response", record.response);
    fill(box, tokens.map((token) => el("span", { textContent: tokenText(token) })));
    const point = (event) => {
      const place = Array.prototype.indexOf.call(box.children, event.target);
      if (place >= 0) tip.show(event.clientX, event.clientY, el("div", { class: "tip-title mono", textContent: JSON.stringify(tokens[place].text ?? "") }), tokenTip(tokens[place]));
    };
    box.addEventListener("mouseover", point);
    box.addEventListener("click", point);
    box.addEventListener("mouseleave", () => tip.hide());
    paint();
    return el("section", { class: "block" },
      el("header", {}, el("h3", { textContent: "Response" }), segmented("Colour of tokens", options, this.colouring, (value) => { this.colouring = value; paint(); })),
      tokens[0].text === null ? el("p", { class: "help", textContent: "The tokenizer of the model was not found, so tokens are shown by their ids." }) : null,
      key, box, tokens[0].text === null ? el("pre", { textContent: record.response }) : null);
  }
}

function block(title, text, folded) {
  const body = el("pre", { textContent: text === "" ? "empty" : text, class: text === "" ? "absent" : "" });
  if (folded) return el("details", { class: "block" }, el("summary", { textContent: title }), body);
  return el("section", { class: "block" }, el("header", {}, el("h3", { textContent: title })), body);
}

function turns(texts) {
  return el("details", { class: "block" }, el("summary", { textContent: counted(texts.length, "turn") }),
    texts.map((text, i) => el("div", { class: i % 2 ? "turn given" : "turn" }, el("b", { textContent: i % 2 ? "environment" : "model" }), el("pre", { textContent: text }))));
}

/** Return what the colours mean. */
function colourKey(colouring) {
  const mark = (name, text) => el("span", {}, el("i", { class: `mark ${name}` }), text);
  if (colouring === "logprob") {
    return [el("span", { textContent: "probability 1" }), el("span", { class: "ramp" }, Array.from({ length: 8 }, (_, i) => el("i", { class: `heat-${i}` }))), el("span", { textContent: "near 0" })];
  }
  if (colouring === "advantage") return [mark("down-3", "worse than expected"), mark("up-3", "better")];
  if (colouring === "difference") return [mark("same", "same bits"), mark("differs", "different")];
  return [];
}
