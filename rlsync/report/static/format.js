"use strict";
// Numbers and times as text.

const DASH = "\u2013", ARROW = "\u2192", MINUS = "\u2212";

/** Return a number with about four digits. */
function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return DASH;
  const size = Math.abs(value);
  if (Number.isInteger(value)) return size < 1e15 ? value.toLocaleString("en") : value.toExponential(3);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size < 0.001) return value.toExponential(2);
  return String(Number(value.toPrecision(4)));
}

/** Return the labels of an axis, with as many decimals as its ticks need. */
function axisLabels(ticks) {
  const known = ticks.filter((tick) => tick !== null);
  const step = known.length > 1 ? known[1] - known[0] : Math.abs(known[0] || 1);
  const largest = Math.max(...known.map(Math.abs), 0);
  let decimals = Math.max(0, -exponent(step));
  if (decimals < 6 && Math.abs(step * 10 ** decimals - Math.round(step * 10 ** decimals)) > 1e-6) decimals += 1;
  return ticks.map((tick) => {
    if (tick === null) return "";
    if (tick === 0) return "0";
    if (largest >= 1e9) return `${+(tick / 1e9).toFixed(2)}G`;
    if (largest >= 1e6) return `${+(tick / 1e6).toFixed(2)}M`;
    if (largest >= 1e4) return `${+(tick / 1e3).toFixed(2)}k`;
    if (step < 1e-4) return tick.toExponential(Math.max(0, exponent(tick) - exponent(step)));
    return tick.toFixed(decimals).replace("-", MINUS);
  });
}

function exponent(value) {
  return Math.floor(Math.log10(Math.abs(value)) + 1e-9);
}

/** Return seconds as a duration. */
function duration(seconds) {
  if (!seconds) return DASH;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${+seconds.toFixed(1)} s`;
  const minutes = Math.round(seconds / 60);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.round(seconds) % 60} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

/** Return a count with its noun: 1 step, 2 steps. */
function counted(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

/** Return a number that is a share, with three decimals. */
function three(value) {
  return value === null || value === undefined ? DASH : value.toFixed(3);
}

/** Return the fp32 number whose bits are 8 hex digits. */
function fromBits(hex) {
  const view = new DataView(new ArrayBuffer(4));
  view.setUint32(0, parseInt(hex, 16));
  return view.getFloat32(0);
}
