"use strict";
// Does what a reader does, and leaves what it found in an attribute of the page.

const found = { errors: [] };
addEventListener("error", (event) => found.errors.push(event.message));
addEventListener("unhandledrejection", (event) => found.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => found.errors.push(event.violatedDirective));

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const text = (selector) => document.querySelector(selector)?.textContent ?? "";

async function until(condition) {
  for (let i = 0; i < 200 && !condition(); i++) await pause(20);
}

async function type(selector, value) {
  const input = document.querySelector(selector);
  input.value = value;
  input.dispatchEvent(new Event("input"));
  await pause(300);
}

async function visit(name, ready) {
  location.hash = name;
  await until(() => document.querySelector(ready));
  await pause(300);
}

/** Return whether a canvas shows nothing. */
function blank(canvas) {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return !data.some((value) => value);
}

async function drive() {
  await until(() => document.documentElement.dataset.ready && document.querySelector("canvas"));
  await pause(500);
  const canvases = [...document.querySelectorAll("#page-charts canvas")];
  Object.assign(found, { charts: canvases.length, blank: canvases.filter(blank).length, light: text(".lights strong") });
  found.legend = [...document.querySelectorAll(".chart-bar .chip")].map((chip) => chip.textContent);
  const background = () => getComputedStyle(document.body).backgroundColor;
  found.themes = [background()];
  document.querySelector(".theme").click();
  found.themes.push(background());
  await visit("rollouts", ".item");
  found.rollouts = text(".list-head .count");
  await type(".rollouts input[type=search]", "NEEDLE");
  found.search = text(".list-head .count");
  document.querySelector(".item")?.click();
  await pause(500);
  found.response = text(".detail pre");
  found.colours = new Set([...document.querySelectorAll(".tokens span")].map((span) => span.className)).size;
  [...document.querySelectorAll(".segmented button")].find((button) => button.textContent === "Difference")?.click();
  found.different = document.querySelectorAll(".tokens .differs").length;
  await visit("metrics", "#page-metrics .chart");
  await type("#page-metrics input", "reward/");
  found.metrics = text("#page-metrics .count");
  await visit("settings", "#page-settings table");
  await type("#page-settings input", "trainer ranks");
  found.settings = text("#page-settings .count");
  found.images = document.querySelectorAll("img").length;
  found.title = document.title;
}

drive().catch((error) => found.errors.push(String(error))).finally(() => {
  document.documentElement.dataset.found = JSON.stringify(found);
});
