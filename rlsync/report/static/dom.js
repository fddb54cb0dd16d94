"use strict";
// Elements of the page. Text of a run reaches the page only as text nodes, never as markup.

/** Return a new element. `props` are properties, `class`, `data` and `on...` handlers; children are nodes or texts. */
function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined) continue;
    if (name === "class") node.className = value;
    else if (name === "data") Object.assign(node.dataset, value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-") || name === "role" || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Replace what is in a node. */
function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** Return a function that calls `work` once, after calls have stopped for `wait` milliseconds. */
function later(work, wait) {
  let timer = 0;
  return (...args) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...args), wait);
  };
}

/** Return a group of buttons of which one is pressed. `options` are [value, label] pairs. */
function segmented(label, options, chosen, onchoose) {
  const buttons = options.map(([value, text, disabled, title]) =>
    el("button", {
      type: "button", textContent: text, disabled: Boolean(disabled), title: title || "",
      "aria-pressed": String(value === chosen),
      onclick: () => {
        buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(options[i][0] === value)));
        onchoose(value);
      },
    }),
  );
  return el("div", { class: "segmented", role: "group", "aria-label": label }, buttons);
}

/** A small box beside the pointer, of which the page has one. */
const tip = {
  node: el("div", { class: "tip", role: "status", hidden: true }),
  show(x, y, ...children) {
    fill(this.node, ...children);
    this.node.hidden = false;
    const { offsetWidth: width, offsetHeight: height } = this.node;
    const left = x + 16 + width > innerWidth ? x - width - 16 : x + 16;
    const top = y + 16 + height > innerHeight ? y - height - 12 : y + 16;
    this.node.style.left = `${Math.max(4, left)}px`;
    this.node.style.top = `${Math.max(4, top)}px`;
  },
  hide() {
    this.node.hidden = true;
  },
};
