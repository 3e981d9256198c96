// What the agent sees, as it sees it. Everything that comes from the host is put in as text, never as markup.

import { say } from "./dom.js";
import { Histograms } from "./histograms.js";
import { HostMap } from "./map.js";
import { connections } from "./model.js";
import { Table } from "./table.js";
import { bytes, count, seconds } from "./text.js";

const find = (id) => document.getElementById(id);
const RETRY = 2000;
/** A sight that is so many times as late as announced is missing. */
const LATE = 3;

const table = new Table(find("table"), find("shown"), find("more"));
const histograms = new Histograms(find("histograms"), find("pair"), find("uncounted"), find("bars"));
const map = new HostMap(find("map"), choose, (pair) => histograms.choose(pair));
let source = null;
let timer = null;
let latest = null;
let paused = false;
let meanings = new Map();

function choose(name) {
  table.only(name);
  map.only(name);
  find("only").hidden = name === null;
  say(find("only-name"), name === null ? "" : `Only connections of ${name}.`);
}

function state(kind, text) {
  find("state").dataset.state = kind;
  document.body.classList.toggle("stale", kind === "stale");
  say(find("state"), text);
}

function stale(why) {
  const last = latest ? `Not live since ${latest.at.toLocaleTimeString()}` : "Not live";
  state("stale", `${last}: ${why}. Trying again.`);
}

function expect(time) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    stale("the agent does not answer");
    connect();
  }, time);
}

function connect() {
  source?.close();
  if (paused || document.hidden) return;
  source = new EventSource("/api/live");
  source.addEventListener("sight", (event) => {
    const sight = JSON.parse(event.data);
    latest = { sight, at: new Date() };
    state("live", "Live");
    show(sight);
    expect(LATE * sight.next_ms + RETRY);
  });
  source.addEventListener("trouble", (event) => stale(event.data));
  source.addEventListener("error", () => {
    stale("no connection to the agent");
    source.close();
    expect(RETRY);
  });
  expect(LATE * RETRY);
}

function pause() {
  paused = !paused;
  find("pause").setAttribute("aria-pressed", String(paused));
  resume();
}

/** Nothing is asked of the agent for a page that nobody sees. */
function resume() {
  clearTimeout(timer);
  if (paused) state("paused", latest ? `Paused at ${latest.at.toLocaleTimeString()}` : "Paused");
  connect();
}

function show({ status, conns }) {
  const found = connections(conns);
  map.update(found);
  table.update(found);
  histograms.refresh();
  say(find("mode"), status.on ? "On" : (status.mode ?? "Off"));
  say(find("cgroup"), status.cgroup ? `for ${status.cgroup}` : "");
  const { agent } = status;
  say(find("agent"), agent ? `Beeline ${agent.version}, agent: process ${agent.pid}, instance ${status.instance}` : "");
  if (status.work) work(status.work);
}

function work(now) {
  say(find("count"), count(now.connections));
  say(find("ever"), `${count(now.connections_ever)} ever, room for ${count(now.connections_max)}`);
  say(find("redirected"), bytes(now.redirected_bytes));
  say(find("messages"), `in ${count(now.redirected_messages)} messages`);
  say(find("kernel"), bytes(now.kernel_bytes));
  const sent = now.redirected_bytes + now.kernel_bytes;
  say(find("gain-bytes"), bytes(now.redirected_bytes));
  say(find("gain-share"), sent > 0 ? `${((100 * now.redirected_bytes) / sent).toFixed(1)} % of what enrolled connections sent` : "");
  say(find("gain-cpu"), seconds(now.gain.cpu_seconds));
  say(find("basis"), now.gain.basis);
  reasons(now.reasons);
}

function reasons(counts) {
  const body = find("reasons").querySelector("tbody");
  const found = Object.entries(counts).sort((one, other) => other[1] - one[1]);
  find("reasons").hidden = found.length === 0;
  find("no-reasons").hidden = found.length > 0;
  while (body.rows.length > found.length) body.deleteRow(-1);
  found.forEach(([name, times], place) => {
    const row = body.rows[place] ?? body.insertRow();
    while (row.cells.length < 3) row.insertCell();
    const [number, reason, meaning] = row.cells;
    number.className = "number";
    reason.className = "mono";
    say(number, count(times));
    say(reason, name);
    say(meaning, meanings.get(name) ?? "");
  });
}

async function start() {
  find("pause").addEventListener("click", pause);
  find("all").addEventListener("click", () => choose(null));
  find("search").addEventListener("input", (event) => table.search(event.target.value));
  find("form").addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("visibilitychange", resume);
  connect();
  try {
    const answer = await fetch("/api/reasons");
    meanings = new Map((await answer.json()).map(({ name, about }) => [name, about]));
  } catch {
    // The reasons have names without them.
  }
}

start();
