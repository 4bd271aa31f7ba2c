// Numbers in words that people read.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const hundredths = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });

const space = "\u00a0"; // a number and its unit stay on one line

// number is for counts and rates; nothing is known of null.
export function number(n) {
  if (n === null || n === undefined) return "–";
  return (Math.abs(n) < 10 && n % 1 !== 0 ? tenths : whole).format(n);
}

export function milliseconds(n) {
  if (!n) return "–";
  if (n >= 10000) return tenths.format(n / 1000) + space + "s";
  return (n < 1 ? hundredths : n < 10 ? tenths : whole).format(n) + space + "ms";
}

const sizes = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(n) {
  let i = 0;
  for (; n >= 1000 && i < sizes.length - 1; i++) n /= 1024;
  return (n < 10 && i > 0 ? tenths : whole).format(n) + space + sizes[i];
}

// lasting is how long something has lasted, in its two largest units.
export function lasting(seconds) {
  const d = Math.floor(seconds / 86400), h = Math.floor(seconds / 3600) % 24, m = Math.floor(seconds / 60) % 60, s = Math.floor(seconds) % 60;
  if (d) return `${d} d ${h} h`;
  if (h) return `${h} h ${m} min`;
  if (m) return `${m} min ${s} s`;
  return `${s} s`;
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

export const time = (ms) => clock.format(ms);

// count is a number with its noun.
export const count = (n, one, many = one + "s") => `${number(n)} ${n === 1 ? one : many}`;

// are is the verb of a number.
export const are = (n) => (n === 1 ? "is" : "are");

export const percent = (part) => whole.format(part * 100) + space + "%";
