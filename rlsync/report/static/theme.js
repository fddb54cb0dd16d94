"use strict";
// Light and dark. The system decides until the reader chooses.

const theme = {
  listeners: [],
  colours: {},
  dark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  },
  toggle() {
    document.documentElement.dataset.theme = this.dark() ? "light" : "dark";
    try {
      localStorage.setItem("rlsync-theme", document.documentElement.dataset.theme);
    } catch { /* a page from a file may have no storage */ }
    this.changed();
  },
  start() {
    try {
      const stored = localStorage.getItem("rlsync-theme");
      if (stored === "dark" || stored === "light") document.documentElement.dataset.theme = stored;
    } catch { /* as above */ }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.changed());
    this.read();
  },
  changed() {
    this.read();
    this.listeners.forEach((listener) => listener());
  },
  read() {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    this.colours = {
      text: value("--muted"), grid: value("--grid"), line: value("--border"),
      stages: Array.from({ length: 7 }, (_, i) => value(`--stage-${i}`)),
      series: Array.from({ length: 8 }, (_, i) => value(`--series-${i}`)),
    };
  },
  /** Return the colour of the run or series with this number. */
  series(number) {
    return this.colours.series[number % this.colours.series.length];
  },
};

/** Return a colour with less than full opacity. */
function faint(colour, share) {
  return `${colour}${Math.round(share * 255).toString(16).padStart(2, "0")}`;
}
