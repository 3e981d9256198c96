// The table of connections: sorted, searched, and only so many rows at a time.

import { keep, say } from "./dom.js";
import { fits } from "./model.js";
import { age, bytes, count, rate } from "./text.js";

const STEP = 50;

const COLUMNS = [
  { name: "Client", first: "ascending", by: (conn) => conn.client.label.toLowerCase() },
  { name: "Server", first: "ascending", by: (conn) => conn.server.label.toLowerCase() },
  { name: "Path", first: "ascending", by: (conn) => conn.path },
  { name: "Now", first: "descending", by: (conn) => conn.rate, number: true },
  { name: "So far", first: "descending", by: (conn) => conn.bytes, number: true },
  { name: "Age", first: "descending", by: (conn) => conn.age, number: true },
  { name: "Why not", first: "descending", by: (conn) => conn.reason },
];

function compare(one, other) {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}

function cell(className, ...children) {
  const element = document.createElement("td");
  element.className = className;
  element.append(...children);
  return element;
}

/** One direction's way, with its colour. */
function way(direction) {
  const element = document.createElement("div");
  element.append(`${direction} `, document.createElement("span"));
  return element;
}

export class Table {
  #rows = new Map();
  #conns = [];
  #sort = COLUMNS[4];
  #order = "descending";
  #most = STEP;
  #words = [];
  #only = null;

  constructor(table, shown, more) {
    this.body = table.tBodies[0];
    this.shown = shown;
    this.more = more;
    this.heads = COLUMNS.map((column) => this.#head(column));
    table.tHead.rows[0].append(...this.heads);
    more.addEventListener("click", () => {
      this.#most += STEP;
      this.#draw();
    });
    this.#mark();
  }

  update(conns) {
    this.#conns = conns;
    this.#draw();
  }

  search(text) {
    this.#words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.#most = STEP;
    this.#draw();
  }

  only(name) {
    this.#only = name;
    this.#most = STEP;
    this.#draw();
  }

  #head(column) {
    const head = document.createElement("th");
    head.scope = "col";
    head.className = column.number ? "number" : "";
    const button = head.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = column.name;
    button.addEventListener("click", () => {
      const other = this.#order === "ascending" ? "descending" : "ascending";
      this.#order = column === this.#sort ? other : column.first;
      this.#sort = column;
      this.#mark();
      this.#draw();
    });
    return head;
  }

  #mark() {
    this.heads.forEach((head, place) => {
      if (COLUMNS[place] === this.#sort) head.setAttribute("aria-sort", this.#order);
      else head.removeAttribute("aria-sort");
    });
  }

  #draw() {
    const fitting = this.#conns.filter((conn) => fits(conn, this.#words, this.#only));
    const sign = this.#order === "ascending" ? 1 : -1;
    const by = this.#sort.by;
    fitting.sort((one, other) => sign * compare(by(one), by(other)));
    const visible = fitting.slice(0, this.#most);
    keep(this.#rows, visible, (conn) => conn.key, () => this.#row(), fill);
    this.#arrange(visible);
    this.more.hidden = visible.length === fitting.length;
    this.#tell(visible.length, fitting.length);
  }

  /** Rows that are in order already are not touched. */
  #arrange(visible) {
    let next = this.body.firstElementChild;
    for (const conn of visible) {
      const row = this.#rows.get(conn.key);
      if (row === next) next = next.nextElementSibling;
      else this.body.insertBefore(row, next);
    }
  }

  #tell(visible, fitting) {
    const all = this.#conns.length;
    if (all === 0) say(this.shown, "No connections are enrolled.");
    else if (fitting === 0) say(this.shown, `None of ${count(all)} connections fits.`);
    else if (visible < fitting) say(this.shown, `${count(visible)} of ${count(fitting)} shown.`);
    else say(this.shown, fitting < all ? `${count(fitting)} of ${count(all)} connections fit.` : "All are shown.");
  }

  #row() {
    const row = document.createElement("tr");
    const party = () => cell("", document.createElement("span"), document.createElement("small"));
    row.append(party(), party(), cell("mono", way("→"), way("←")), cell("number"), cell("number"), cell("number"), cell("mono"));
    return row;
  }
}

function fill(row, conn) {
  const [client, server, path, now, all, old, why] = row.cells;
  for (const [cell, party] of [[client, conn.client], [server, conn.server]]) {
    say(cell.firstChild, party.label);
    cell.title = party.label;
    say(cell.lastChild, party.address);
  }
  for (const [line, party] of [[path.firstChild, conn.client], [path.lastChild, conn.server]]) {
    say(line.lastChild, party.path);
    line.lastChild.className = party.path;
  }
  say(now, rate(conn.rate));
  say(all, bytes(conn.bytes));
  say(old, age(conn.age));
  say(why, conn.reason || "–");
}
