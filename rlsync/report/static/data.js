"use strict";
// Where the page's data comes from: chunks in the page itself, or the server of `rlsync report --live`.

/** Return the JSON value of a chunk, which is gzip in base64. */
async function inflate(base64) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/** Return the JSON value of the chunk in the element `id`. */
function readChunk(id) {
  return inflate(document.getElementById(id).textContent);
}

async function ask(address) {
  const answer = await fetch(address, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${address}: ${answer.status}`);
  return answer.status === 204 ? null : answer.json();
}

/** The data of a page that holds everything itself. */
class EmbeddedSource {
  constructor() {
    this.places = new Map(); // run -> Map(row -> chunk)
    this.kept = new Map(); // the chunks of whole forms that were used last
  }

  async *rows(run, view) {
    let first = 0;
    for (let part = 0; part < view.row_chunks; part++) {
      const columns = await readChunk(`rows-${run}-${part}`);
      yield { columns, first };
      first += columns.step.length;
    }
  }

  /** Return the chunk that has the whole form of a row, or null if the page does not hold it. */
  async detail(run, row) {
    const part = (await this.placesOf(run)).get(row);
    if (part === undefined) return null;
    const id = `detail-${run}-${part}`;
    if (!this.kept.has(id)) {
      if (this.kept.size >= 8) this.kept.delete(this.kept.keys().next().value);
      this.kept.set(id, await readChunk(id));
    }
    return this.kept.get(id);
  }

  async placesOf(run) {
    if (!this.places.has(run)) {
      const found = new Map();
      const chunks = await readChunk(`places-${run}`);
      chunks.forEach((rows, part) => rows.forEach((row) => found.set(row, part)));
      this.places.set(run, found);
    }
    return this.places.get(run);
  }
}

/** The data of a page that a server keeps up to date. */
class LiveSource {
  async *rows(run, view, begin = Math.max(0, view.listed - 60000)) {
    for (let first = begin; first < view.listed; ) {
      const columns = await ask(`/rows?run=${run}&begin=${first}`);
      if (!columns.step.length) return;
      yield { columns, first };
      first += columns.step.length;
    }
  }

  detail(run, row) {
    return ask(`/detail?run=${run}&row=${row}`);
  }

  news(seen) {
    return ask(`/news?seen=${encodeURIComponent(seen)}`);
  }
}
