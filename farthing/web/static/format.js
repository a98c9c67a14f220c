// @ts-check
// Values for people. Amounts arrive as exact decimal strings; they are rounded here, and only to be shown.

const LOCALE = "en-US";
const MINUS = "\u2212";
const COMPACT = new Intl.NumberFormat(LOCALE, { notation: "compact", maximumFractionDigits: 1 });
const TICK = new Intl.NumberFormat(LOCALE, { notation: "compact", maximumFractionDigits: 3 });
const WHOLE = new Intl.NumberFormat(LOCALE, { maximumFractionDigits: 0 });

/** What stands where nothing is known: unknown is never $0. */
export const UNKNOWN = "\u2013";

/** @typedef {{name: string, title: string, kind: string}} Column */

/** @param {unknown} value */
export function number(value) {
  return value === null || value === undefined || value === "" ? NaN : Number(value);
}

/** The sign that stands before an amount of this currency. @param {string} currency */
export function unit(currency) {
  return currency === "USD" ? "$" : `${currency}\u00a0`;
}

/**
 * Dollars with cents, and never nothing for something.
 * @param {unknown} value
 * @param {{sign?: boolean, whole?: boolean, currency?: string}} [how]
 */
export function money(value, { sign = false, whole = false, currency = "USD" } = {}) {
  const amount = number(value);
  if (Number.isNaN(amount)) return UNKNOWN;
  const size = Math.abs(amount);
  const before = amount < 0 ? MINUS : sign && amount > 0 ? "+" : "";
  if (size > 0 && size < 0.0001) return `${before}<${unit(currency)}0.0001`;
  let places = whole && size >= 1000 ? 0 : 2;
  if (size > 0 && size < 0.01) places = 4;
  const digits = size.toLocaleString(LOCALE, { minimumFractionDigits: places, maximumFractionDigits: places });
  return `${before}${unit(currency)}${digits}`;
}

/** An amount for an axis: $1.2K, and no two marks alike. @param {number} amount @param {string} [currency] */
export function moneyShort(amount, currency = "USD") {
  const size = Math.abs(amount);
  const parts = size >= 0.1 && size < 1000 && !Number.isInteger(size);
  const tiny = size !== 0 && size < 0.1;
  const cents = Math.abs(size * 100 - Math.round(size * 100)) < 1e-6;
  const digits = parts ? size.toFixed(cents ? 2 : 3) : tiny ? String(Number(size.toPrecision(2))) : TICK.format(size);
  return `${amount < 0 ? MINUS : ""}${unit(currency)}${digits}`;
}

/** A rate, exact, with cents at least, so that a column of them stands in line. @param {string} value */
function rate(value) {
  const [dollars, parts = ""] = value.split(".");
  return `$${dollars}.${parts.padEnd(2, "0")}`;
}

/** @param {unknown} value */
export function count(value) {
  const found = number(value);
  if (Number.isNaN(found)) return UNKNOWN;
  return Math.abs(found) >= 10_000 ? COMPACT.format(found) : WHOLE.format(found);
}

/** @param {unknown} value */
export function whole(value) {
  return WHOLE.format(number(value));
}

/** @param {unknown} value */
export function share(value) {
  const found = number(value);
  return Number.isNaN(found) ? UNKNOWN : `${(found * 100).toFixed(1)}\u00a0%`;
}

/** A day as people write it: 1 Oct 2026. @param {string} text @param {boolean} [year] */
export function day(text, year = true) {
  if (!/^\d{4}-\d\d-\d\d/.test(text ?? "")) return text || UNKNOWN;
  const at = new Date(`${text.slice(0, 10)}T00:00:00Z`);
  const asked = /** @type {Intl.DateTimeFormatOptions} */ ({ day: "numeric", month: "short", timeZone: "UTC" });
  return new Intl.DateTimeFormat("en-GB", year ? { ...asked, year: "numeric" } : asked).format(at);
}

/** Spans of days within a text, as people write them. @param {string} text */
export function spans(text) {
  return String(text).replace(/(\d{4}-\d\d-\d\d)\.\.(\d{4}-\d\d-\d\d)/g, (_, from, to) =>
    from === to ? day(from) : `${day(from, from.slice(0, 4) !== to.slice(0, 4))} \u2013 ${day(to)}`,
  );
}

/** A moment in the time zone of the page. @param {string} text @param {string} tz */
export function time(text, tz) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text || UNKNOWN;
  const parts = /** @type {Intl.DateTimeFormatOptions} */ ({
    day: "numeric",
    month: "short",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
    hourCycle: "h23",
  });
  return new Intl.DateTimeFormat("en-GB", { ...parts, timeZone: tz || "UTC" }).format(at);
}

/** Seconds as a person says them: 5 min. @param {number} seconds */
export function seconds(seconds) {
  if (seconds < 60) return `${Number(seconds.toPrecision(2))} s`;
  if (seconds < 3600) return `${Number((seconds / 60).toPrecision(2))} min`;
  if (seconds < 86_400) return `${Number((seconds / 3600).toPrecision(2))} h`;
  return `${Number((seconds / 86_400).toPrecision(2))} d`;
}

/** A long name without its middle: what tells names apart is mostly at their end. @param {string} name @param {number} letters */
export function shortened(name, letters) {
  const most = Math.max(8, Math.floor(letters));
  if (name.length <= most) return name;
  const head = Math.floor((most - 1) / 3);
  return `${name.slice(0, head)}\u2026${name.slice(name.length - (most - 1 - head))}`;
}

/** Kinds that stand to the right, in figures of one width. @param {string} kind */
export function isNumeric(kind) {
  return ["count", "usd", "money", "share", "rate"].includes(kind);
}

/**
 * A cell as text, and the exact value where the text rounds it.
 * @param {unknown} value
 * @param {string} kind
 * @param {{tz: string, currency: string}} page
 * @returns {{text: string, exact: string}}
 */
export function cell(value, kind, page) {
  if (value === null || value === undefined || value === "") {
    return { text: kind === "usd" || kind === "money" ? "no price" : UNKNOWN, exact: "" };
  }
  switch (kind) {
    case "usd":
      return { text: money(value), exact: `$${value}` };
    case "money":
      return { text: money(value, { currency: page.currency }), exact: `${value} ${page.currency}` };
    case "count":
      return { text: count(value), exact: whole(value) };
    case "share":
      return { text: share(value), exact: String(value) };
    case "rate":
      return Number(value) === 0
        ? { text: UNKNOWN, exact: "no such rate" }
        : { text: rate(String(value)), exact: `$${value} per million tokens` };
    case "day":
      return { text: day(String(value)), exact: String(value) };
    case "time":
      return { text: time(String(value), page.tz), exact: String(value) };
    case "flag":
      return { text: value ? "yes" : "no", exact: "" };
    default:
      return { text: Array.isArray(value) ? value.join(", ") : spans(String(value)), exact: "" };
  }
}
