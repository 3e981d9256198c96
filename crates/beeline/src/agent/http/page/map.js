// The map: workloads in three columns, and lines between those that are connected. A workload keeps its place as long as
// it is there, and its place is not given away at once when it goes.

import { keep } from "./dom.js";
import { pairs, workloads } from "./model.js";
import { rate, shorten } from "./text.js";

const ROW = 46;
const BOX = 36;
const CHARACTER = 7.3;
const ROWS = 16;
/** Updates for which the place of a workload that went is kept. */
const KEPT = 10;
const REST = "others";

const PATHS = { socket: "past the stack", mixed: "partly past the stack", kernel: "through the stack", start: "nothing sent yet" };

function svg(name, attributes = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  return element;
}

function set(element, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (element.getAttribute(key) !== String(value)) element.setAttribute(key, value);
  }
}

/** Who has which place. */
class Places {
  columns = [[], [], []];

  update(present) {
    for (const place of this.columns.flat()) place.absent = present.has(place.name) ? 0 : place.absent + 1;
    const placed = new Set(this.columns.flat().map((place) => place.name));
    const fresh = [...present.values()].filter(({ name }) => !placed.has(name));
    // Those that move most get a place, in the order of their names.
    const size = (column) => this.columns[column].filter((place) => place.absent <= KEPT).length;
    for (const column of [0, 1, 2]) {
      const wanted = fresh.filter((workload) => Places.column(workload) === column);
      wanted.sort((one, other) => other.bytes - one.bytes);
      const lucky = wanted.slice(0, Math.max(0, ROWS - size(column)));
      lucky.sort((one, other) => (one.name < other.name ? -1 : 1));
      for (const { name } of lucky) this.take(column, name);
    }
  }

  static column({ connects, accepts }) {
    return connects && accepts ? 1 : connects ? 0 : 2;
  }

  take(column, name) {
    const free = this.columns[column].findIndex((place) => place.absent > KEPT);
    const place = { name, absent: 0 };
    if (free < 0) this.columns[column].push(place);
    else this.columns[column][free] = place;
  }

  /** Column and row by name. */
  all(present) {
    const found = new Map();
    this.columns.forEach((places, column) => {
      places.forEach(({ name }, row) => {
        if (present.has(name)) found.set(name, { column, row });
      });
    });
    return found;
  }

  rows() {
    return Math.max(...this.columns.map((places) => places.length));
  }
}

/** Workloads without a place are one. */
function fold(all, places) {
  const named = (name) => (places.has(name) ? name : REST);
  const folded = new Map();
  for (const pair of all) {
    const [from, to] = [named(pair.from), named(pair.to)];
    const key = JSON.stringify([from, to]);
    const sum = folded.get(key);
    if (!sum) folded.set(key, { ...pair, key, from, to });
    else {
      sum.rate += pair.rate;
      sum.count += pair.count;
      if (pair.path !== sum.path) sum.path = sum.path === "start" ? pair.path : pair.path === "start" ? sum.path : "mixed";
    }
  }
  return [...folded.values()];
}

const thickness = (rate) => Math.min(8, 1.5 + 1.1 * Math.max(0, Math.log10(1 + rate / 1024)));

function curve(from, to, width) {
  const y = (at) => at.y + BOX / 2;
  if (from === to) {
    const x = from.x + width;
    return `M${x} ${y(from) - 8}c26 -10 26 26 0 16`;
  }
  if (from.x === to.x) {
    const x = from.x + width;
    return `M${x} ${y(from)}C${x + 34} ${y(from)} ${x + 34} ${y(to)} ${x} ${y(to)}`;
  }
  const right = from.x < to.x;
  const [start, end] = right ? [from.x + width, to.x] : [from.x, to.x + width];
  const middle = (start + end) / 2;
  return `M${start} ${y(from)}C${middle} ${y(from)} ${middle} ${y(to)} ${end} ${y(to)}`;
}

/** What a screen reader says of a workload: whom it connects to, and who connects to it. */
function describe(workload) {
  const say = (verb, end, list) =>
    list.length === 0 ? "" : ` ${verb} ${list.map((pair) => `${pair[end]} (${pair.count}, ${PATHS[pair.path]}, ${rate(pair.rate)})`).join(", ")}.`;
  return `${workload.name}.${say("Connects to", "to", workload.out)}${say("Accepts from", "from", workload.in)}`;
}

export class HostMap {
  #places = new Places();
  #nodes = new Map();
  #edges = new Map();
  #conns = [];
  #only = null;
  #current = null;

  constructor(parent, choose, choosePair) {
    this.parent = parent;
    this.choose = choose;
    this.choosePair = choosePair;
    this.svg = svg("svg", { role: "group" });
    this.lines = this.svg.appendChild(svg("g", { "aria-hidden": "true" }));
    this.boxes = this.svg.appendChild(svg("g"));
    this.empty = document.createElement("p");
    this.empty.className = "empty";
    this.empty.hidden = true;
    this.empty.textContent = "No connections are enrolled.";
    parent.append(this.empty, this.svg);
    this.svg.addEventListener("keydown", (event) => this.#key(event));
    new ResizeObserver(() => this.#draw()).observe(parent);
  }

  update(conns) {
    this.#conns = conns;
    const known = workloads(pairs(conns));
    this.#places.update(known);
    this.#draw();
  }

  only(name) {
    this.#only = name;
    this.#draw();
  }

  #draw() {
    const all = pairs(this.#conns);
    const places = this.#places.all(workloads(all));
    const folded = fold(all, places);
    const shown = workloads(folded);
    if (shown.has(REST)) places.set(REST, { column: 1, row: this.#places.rows() });
    const width = this.parent.clientWidth;
    const box = Math.max(84, Math.min(220, width * 0.26));
    const rows = this.#places.rows() + (shown.has(REST) ? 1 : 0);
    const at = ({ column, row }) => ({ x: 1 + (column * (width - box - 36)) / 2, y: row * ROW + (ROW - BOX) / 2 });
    const spots = new Map([...places].map(([name, place]) => [name, at(place)]));
    this.empty.hidden = shown.size > 0;
    set(this.svg, { height: rows * ROW, viewBox: `0 0 ${width} ${rows * ROW}`, "aria-label": `${shown.size} workloads` });
    this.#drawEdges(folded, spots, box);
    this.#drawNodes(shown, spots, box);
  }

  #drawEdges(folded, spots, box) {
    keep(this.#edges, folded, (pair) => pair.key, () => {
      const path = svg("path");
      path.append(svg("title"));
      path.addEventListener("click", () => this.choosePair(path.groups));
      return this.lines.appendChild(path);
    }, (path, pair) => {
      path.groups = pair.groups;
      const chosen = this.#only === null || pair.from === this.#only || pair.to === this.#only;
      set(path, {
        d: curve(spots.get(pair.from), spots.get(pair.to), box),
        class: chosen ? pair.path : `${pair.path} apart`,
        "stroke-width": thickness(pair.rate).toFixed(1),
      });
      path.firstChild.textContent = `${pair.from} → ${pair.to}: ${pair.count}, ${PATHS[pair.path]}, ${rate(pair.rate)}`;
    });
  }

  #drawNodes(shown, spots, box) {
    const order = [...shown.values()].sort((one, other) => {
      const [a, b] = [spots.get(one.name), spots.get(other.name)];
      return a.x - b.x || a.y - b.y;
    });
    if (!shown.has(this.#current)) this.#current = order[0]?.name ?? null;
    keep(this.#nodes, order, (workload) => workload.name, () => this.#node(), (group, workload) => {
      const { x, y } = spots.get(workload.name);
      const [, title, name, speed] = [...group.children];
      group.dataset.name = workload.name;
      set(group, {
        transform: `translate(${x} ${y})`,
        "aria-label": describe(workload),
        "aria-pressed": workload.name === this.#only,
        tabindex: workload.name === this.#current ? 0 : -1,
      });
      set(group.firstChild, { width: box, height: BOX });
      const room = Math.floor((box - 14) / CHARACTER);
      title.textContent = workload.name;
      name.textContent = shorten(workload.name, room);
      speed.textContent = rate(workload.rate);
    });
    this.order = order.map(({ name }) => name);
  }

  #node() {
    const group = svg("g", { class: "node", role: "button" });
    group.append(svg("rect", { rx: 5 }), svg("title"), svg("text", { x: 7, y: 15 }), svg("text", { x: 7, y: 29, class: "rate" }));
    group.addEventListener("click", () => this.#toggle(group.dataset.name));
    return this.boxes.appendChild(group);
  }

  #toggle(name) {
    if (name !== REST) this.choose(name === this.#only ? null : name);
  }

  /** One stop of the tabulator key; arrows go on from there. */
  #key(event) {
    const name = event.target.dataset.name;
    const step = { ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1 }[event.key];
    if (event.key === "Enter" || event.key === " ") this.#toggle(name);
    else if (event.key === "Escape") this.choose(null);
    else if (step) {
      const next = this.order[(this.order.indexOf(name) + step + this.order.length) % this.order.length];
      this.#current = next;
      this.#draw();
      this.#nodes.get(next).focus();
    } else return;
    event.preventDefault();
  }
}
