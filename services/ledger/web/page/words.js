// Numbers, times and names as people read them.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

export function bytes(count) {
  let unit = 0;
  let value = count;
  while (value >= 999.5 && unit < UNITS.length - 1) [value, unit] = [value / 1000, unit + 1];
  return `${value >= 99.5 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0 s";
  if (value < 0) return `−${seconds(-value)}`;
  if (value < 0.0995) return `${(value * 1000).toFixed(value < 0.00995 ? 1 : 0)} ms`;
  if (value < 9.95) return `${value.toFixed(2)} s`;
  if (value < 99.5) return `${value.toFixed(1)} s`;
  return span(value);
}

/** Whole units, for what goes on: 42 s, 3 min 20 s, 2 h 5 min. */
export function span(value) {
  const whole = Math.max(0, Math.round(value));
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

const NUMBER = new Intl.NumberFormat("en");
export const count = (value) => NUMBER.format(value);

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

/** A moment: the time of day where it is today, else the day too. */
export function moment(iso) {
  const date = new Date(iso);
  const today = date.toDateString() === new Date().toDateString();
  return today ? CLOCK.format(date) : `${DAY.format(date)}, ${CLOCK.format(date)}`;
}

/** `docker.io/library/redis:7` → where from, the name, and what follows it. */
export function reference(text) {
  const digest = text.indexOf("@");
  const head = digest < 0 ? text : text.slice(0, digest);
  const slash = head.lastIndexOf("/");
  const colon = head.indexOf(":", slash + 1);
  const end = colon < 0 ? head.length : colon;
  const tail = digest < 0 ? head.slice(end) : head.slice(end) + short(text.slice(digest));
  return { from: head.slice(0, slash + 1), name: head.slice(slash + 1, end), tag: tail };
}

/** `sha256:0123…` → its first twelve digits. */
export function short(digest) {
  return digest.replace(/sha256:([0-9a-f]{12})[0-9a-f]*/, "$1");
}
