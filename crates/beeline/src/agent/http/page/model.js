// Connections as the map and the table need them, made of what `beeline conns --json` prints.

/** The name that `beeline top` gives a workload: the same for all processes of a command. */
function name({ container, command, cgroup }) {
  if (container && command) return `${container}/${command}`;
  return container ?? command ?? cgroup ?? "–";
}

/** The way of two directions taken together; one that sends nothing does not count. */
function both(one, other) {
  if (one === other || other === "start") return one;
  return one === "start" ? other : "mixed";
}

function party(end) {
  if (!end) return { name: "closed", group: "", label: "closed", address: "", path: "start", bytes: 0, words: "" };
  const { pid, command, cgroup } = end.workload;
  const own = name(end.workload);
  const group = end.workload.container ?? cgroup ?? "";
  const words = [own, pid, cgroup, end.local, end.remote, `path:${end.path}`, `port:${end.local.split(":").pop()}`];
  if (end.reason) words.push(`reason:${end.reason}`);
  return {
    name: own,
    group,
    label: command && pid ? `${own}[${pid}]` : own,
    address: end.local,
    path: end.path,
    bytes: end.redirected_bytes + end.kernel_bytes,
    reason: end.reason,
    words: words.join(" "),
  };
}

const perSecond = (sent) => sent.redirected_bytes + sent.kernel_bytes;

function connection(live) {
  const client = party(live.client);
  const server = party(live.server);
  const path = both(client.path, server.path);
  const reasons = new Set([client.reason, server.reason].filter(Boolean));
  return {
    key: `${live.client?.cookie ?? "-"} ${live.server?.cookie ?? "-"}`,
    client,
    server,
    path,
    rate: perSecond(live.client_rate) + perSecond(live.server_rate),
    bytes: client.bytes + server.bytes,
    age: live.age_seconds,
    reason: [...reasons].join(", "),
    text: `${client.words} ${server.words} path:${path}`.toLowerCase(),
  };
}

export const connections = (conns) => conns.map(connection);

function add(pairs, { client, server, path, rate, bytes }) {
  const key = JSON.stringify([client.name, server.name]);
  const pair = pairs.get(key) ?? { key, from: client.name, to: server.name, groups: { client: client.group, server: server.group }, path: "start", rate: 0, bytes: 0, count: 0 };
  pair.path = both(pair.path, path);
  pair.rate += rate;
  pair.bytes += bytes;
  pair.count += 1;
  pairs.set(key, pair);
}

/** All connections between two workloads as one. */
export function pairs(conns) {
  const found = new Map();
  for (const conn of conns) add(found, conn);
  return [...found.values()];
}

/** Who connects, who accepts, and how much they move. */
export function workloads(pairs) {
  const found = new Map();
  const at = (name) => {
    if (!found.has(name)) found.set(name, { name, connects: false, accepts: false, rate: 0, bytes: 0, out: [], in: [] });
    return found.get(name);
  };
  for (const pair of pairs) {
    const [from, to] = [at(pair.from), at(pair.to)];
    from.connects = true;
    from.out.push(pair);
    to.accepts = true;
    to.in.push(pair);
    for (const workload of new Set([from, to])) {
      workload.rate += pair.rate;
      workload.bytes += pair.bytes;
    }
  }
  return found;
}

/** Whether a connection has all words, and is one of the chosen workload. */
export function fits(conn, words, only) {
  const chosen = only === null || conn.client.name === only || conn.server.name === only;
  return chosen && words.every((word) => conn.text.includes(word));
}
