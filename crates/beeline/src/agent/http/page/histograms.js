// Histograms of the host, or of a pair of workloads; asked for while they are open.

import { keep, say } from "./dom.js";
import { bytes, count, time } from "./text.js";

const HOST = "all of the host";

const AMOUNT = {
  bytes,
  microseconds: (value) => time(value / 1e6),
  milliseconds: (value) => time(value / 1e3),
};

const name = ({ client, server }) => `${client} → ${server}`;
const sentence = (text) => text[0].toUpperCase() + text.slice(1);

export class Histograms {
  #options = new Map();
  #tables = new Map();
  #seen = null;
  #asking = false;

  constructor(details, select, uncounted, bars) {
    Object.assign(this, { details, select, uncounted, bars });
    details.addEventListener("toggle", () => this.refresh());
    select.addEventListener("change", () => this.#draw());
  }

  /** Opens the pair's. */
  choose(pair) {
    this.details.open = true;
    this.wanted = name(pair);
    this.refresh();
  }

  async refresh() {
    if (!this.details.open || this.#asking) return;
    this.#asking = true;
    try {
      const answer = await fetch("/api/hist");
      if (answer.ok) this.#seen = await answer.json();
    } catch {
      // The page says that it is not live.
    } finally {
      this.#asking = false;
    }
    if (this.#seen) this.#draw();
  }

  #draw() {
    const all = new Map([[HOST, this.#seen.host], ...this.#seen.pairs.map((pair) => [name(pair), pair.histograms])]);
    keep(this.#options, [...all.keys()], (key) => key, (key) => {
      const option = document.createElement("option");
      option.value = key;
      option.textContent = key;
      return this.select.appendChild(option);
    }, () => {});
    if (this.wanted && all.has(this.wanted)) {
      this.select.value = this.wanted;
      this.wanted = null;
    }
    const histograms = Object.entries(all.get(this.select.value) ?? {});
    say(this.uncounted, histograms.length > 0 ? "" : "Nothing was counted.");
    keep(this.#tables, histograms, ([kind]) => kind, () => this.bars.appendChild(empty()), (table, [, view]) => fill(table, view));
  }
}

function empty() {
  const table = document.createElement("table");
  table.createCaption();
  const row = table.createTHead().insertRow();
  for (const text of ["up to", "times"]) {
    const head = document.createElement("th");
    head.scope = "col";
    head.className = "number";
    head.textContent = text;
    row.append(head);
  }
  row.insertCell();
  table.createTBody();
  return table;
}

function fill(table, { about, unit, count: counted, sum, buckets }) {
  const amount = AMOUNT[unit];
  say(table.caption, `${sentence(about)}: ${count(counted)}, ${amount(sum / counted)} on average`);
  const body = table.tBodies[0];
  const most = Math.max(...buckets.map((bucket) => bucket.count));
  while (body.rows.length > buckets.length) body.deleteRow(-1);
  buckets.forEach((bucket, place) => {
    const row = body.rows[place] ?? body.insertRow();
    while (row.cells.length < 3) row.insertCell().className = row.cells.length < 3 ? "number" : "bar";
    const [bound, times, bar] = row.cells;
    say(bound, bucket.up_to === null ? "more" : amount(bucket.up_to));
    say(times, count(bucket.count));
    if (!bar.firstChild) bar.append(document.createElement("i"));
    bar.firstChild.style.width = `${(100 * bucket.count) / most}%`;
  });
}
