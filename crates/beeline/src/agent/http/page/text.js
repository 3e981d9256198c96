// Numbers and names as people read them.

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

const digits = (value) => (value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2));

export function bytes(value) {
  let unit = 0;
  while (value >= 1023.5 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${Math.round(value)} B` : `${digits(value)} ${UNITS[unit]}`;
}

export const rate = (value) => `${bytes(value)}/s`;

export const count = (value) => value.toLocaleString("en");

export function seconds(value) {
  if (value < 0.001) return value > 0 ? "under 1 ms" : "0 s";
  if (value < 1) return `${(value * 1000).toPrecision(2)} ms`;
  return value < 120 ? `${digits(value)} s` : age(value);
}

/** Short times, in the unit that suits them. */
export function time(value) {
  const larger = [[1, "s"], [1e-3, "ms"]].find(([size]) => value >= size);
  const [size, unit] = larger ?? [1e-6, "us"];
  return `${digits(value / size)} ${unit}`;
}

export function age(value) {
  const whole = Math.floor(value);
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => whole >= size);
  if (first < 0) return "0 s";
  const [size, unit] = parts[first];
  const big = `${Math.floor(whole / size)} ${unit}`;
  if (first === parts.length - 1) return big;
  const [next, small] = parts[first + 1];
  return `${big} ${Math.floor((whole % size) / next)} ${small}`;
}

/** Container ids are told apart by their beginnings, processes by their ends. */
export function shorten(text, length) {
  if (text.length <= length) return text;
  const tail = Math.floor((length - 1) * 0.6);
  return `${text.slice(0, length - 1 - tail)}…${text.slice(text.length - tail)}`;
}
