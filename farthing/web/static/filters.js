// @ts-check
// The filters above a page: each is a part of the link, so back, forward and a bookmark bring it back.

import { h } from "./dom.js";
import * as say from "./format.js";
import { go, held, holding, link, query } from "./state.js";

const DAY = 86_400_000;
const FIRST = ["team", "model", "endpoint"];
const TAG = "tag:";
const KEYS = [
  "account",
  "principal",
  "region",
  "mode",
  "routing",
  "project",
  "operation",
  "session",
  "platform",
  "source",
];

/** @typedef {{since: string, until: string} | null} Span */

/** @param {any} page the JSON of the page @param {{days?: boolean, keys?: boolean}} which */
export function filters(page, { days = true, keys = true } = {}) {
  return h(
    "div",
    { class: "filters" },
    days ? period(page.span) : null,
    ...(keys ? FIRST.map((key) => choice(key, page.choices?.[key] ?? [])) : []),
    keys || days ? more(page) : null,
  );
}

/** @param {string} id @param {string} title @param {HTMLElement} control */
export function labelled(id, title, control) {
  return h("div", { class: "filter" }, h("label", { for: id }, title), control);
}

const PASSING_MS = 1_000;
let last = { id: "", at: -Infinity };

/** Whether arrows go on through a list: values passed by are no steps to go back to. @param {string} id */
function passing(id) {
  const before = last;
  last = { id, at: performance.now() };
  return before.id === id && last.at - before.at < PASSING_MS;
}

/**
 * A select whose values are links.
 * @param {string} id @param {string} title @param {[string, string][]} options texts and links @param {string} now
 */
export function leading(id, title, options, now) {
  return labelled(
    id,
    title,
    h(
      "select",
      {
        id,
        onchange: (/** @type {any} */ event) => go(event.target.value, passing(id)),
      },
      ...options.map(([text, href]) => h("option", { value: href, selected: text === now }, text)),
    ),
  );
}

/** @param {string} key @param {string[]} values */
function choice(key, values) {
  const now = held(key);
  const shown = now && !values.includes(now) ? [now, ...values] : values;
  const options = shown.map(
    (value) => /** @type {[string, string]} */ ([value, link({ where: holding(key, value), after: null })]),
  );
  const title = key[0].toUpperCase() + key.slice(1);
  return leading(
    `filter-${key}`,
    title,
    [["All", link({ where: holding(key, ""), after: null })], ...options],
    now || "All",
  );
}

// --- days ---

/** The periods a ledger has: all, the last days of it, and each month. @param {Span} span @returns {[string, string, string][]} */
export function periods(span) {
  if (!span) return [["All of it", "", ""]];
  const last = Date.parse(span.until);
  const back = (/** @type {number} */ days) => new Date(last - (days - 1) * DAY).toISOString().slice(0, 10);
  const found = /** @type {[string, string, string][]} */ ([
    ["All of it", "", ""],
    ["Last 7 days", back(7), span.until],
    ["Last 30 days", back(30), span.until],
  ]);
  const month = new Date(`${span.until.slice(0, 7)}-01T00:00:00Z`);
  for (let i = 0; i < 13 && month.getTime() + 32 * DAY > Date.parse(span.since); i += 1) {
    const first = month.toISOString().slice(0, 10);
    const next = new Date(month);
    next.setUTCMonth(next.getUTCMonth() + 1);
    const ends = new Date(next.getTime() - DAY).toISOString().slice(0, 10);
    if (ends >= span.since)
      found.push([
        new Intl.DateTimeFormat("en-GB", { month: "long", year: "numeric", timeZone: "UTC" }).format(month),
        first,
        ends,
      ]);
    month.setUTCMonth(month.getUTCMonth() - 1);
  }
  return found;
}

/** @param {Span} span */
function period(span) {
  const asked = query();
  const [since, until] = [asked.get("since") ?? "", asked.get("until") ?? ""];
  const known = periods(span);
  const now = known.find((one) => one[1] === since && one[2] === until);
  const named = now?.[0] ?? `${since ? say.day(since) : "start"} – ${until ? say.day(until) : "end"}`;
  const options = known.map(
    ([text, from, to]) =>
      /** @type {[string, string]} */ ([text, link({ since: from || null, until: to || null, after: null })]),
  );
  return leading(
    "filter-period",
    "Period",
    now ? options : [[named, location.pathname + location.search], ...options],
    named,
  );
}

// --- the rest ---

/** @param {any} page */
function more(page) {
  const asked = query();
  const key = h(
    "select",
    { id: "more-key" },
    ...KEYS.map((name) => h("option", {}, name)),
    h("option", { value: TAG }, "tag"),
  );
  const how = h(
    "select",
    { id: "more-how", "aria-label": "is or is not" },
    h("option", { value: "=" }, "is"),
    h("option", { value: "!=" }, "is not"),
  );
  const value = h("input", {
    id: "more-value",
    autocomplete: "off",
    placeholder: "value, or pattern*",
    spellcheck: "false",
    oninput: (/** @type {any} */ event) => event.target.setCustomValidity(""),
  });
  key.addEventListener("change", () => {
    value.setAttribute("placeholder", read(key) === TAG ? "name=value" : "value, or pattern*");
  });
  const since = h("input", { id: "more-since", type: "date", value: asked.get("since") ?? "" });
  const until = h("input", { id: "more-until", type: "date", value: asked.get("until") ?? "" });
  const tz = h("input", {
    id: "more-tz",
    list: "zones",
    value: asked.get("tz") ?? "",
    placeholder: page.tz ?? "UTC",
    autocomplete: "off",
    spellcheck: "false",
  });
  const currency = h("input", {
    id: "more-currency",
    value: asked.get("currency") ?? "",
    placeholder: page.currency ?? "USD",
    maxlength: 3,
    autocomplete: "off",
  });
  const zones = h(
    "datalist",
    { id: "zones" },
    ...["UTC", ...Intl.supportedValuesOf("timeZone")].map((name) => h("option", { value: name })),
  );
  const read = (/** @type {any} */ field) => field.value.trim();
  const apply = (/** @type {Event} */ event) => {
    event.preventDefault();
    const where = query().getAll("where");
    const [name, named] = read(key) === TAG ? parted(read(value)) : [read(key), read(value)];
    if (read(value) && !name) {
      const field = /** @type {HTMLInputElement} */ (value);
      field.setCustomValidity("Write the tag's name and its value, as in team=search");
      field.reportValidity();
      return;
    }
    if (read(value)) where.push(`${name}${read(how)}${named}`);
    const days = { since: read(since) || null, until: read(until) || null, tz: read(tz) || null };
    go(link({ ...days, currency: read(currency).toUpperCase() || null, where, after: null }));
  };
  const box = h(
    "details",
    { class: "more" },
    h("summary", {}, "More"),
    h(
      "form",
      { id: "more-form", onsubmit: apply },
      h("div", { class: "pair" }, labelled("more-since", "From day", since), labelled("more-until", "to day", until)),
      h(
        "div",
        { class: "three" },
        labelled("more-key", "Only where", key),
        h("div", { class: "filter" }, h("span", { "aria-hidden": "true" }, "\u00a0"), how),
        labelled("more-value", "Value", value),
      ),
      h(
        "div",
        { class: "pair" },
        labelled("more-tz", "Days begin in time zone", tz),
        labelled("more-currency", "Also in currency", currency),
      ),
      zones,
      h("p", {}, h("button", { class: "main", type: "submit" }, "Apply")),
    ),
  );
  return box;
}

/** The key and the value of a tag written `name=value`; the key is "" if it is not. @param {string} text */
function parted(text) {
  const [, name, value] = /^([^=]+)=(.*)$/.exec(text) ?? ["", "", ""];
  return [name && `${TAG}${name.trim()}`, value.trim()];
}

/** The filters in force, each with its way out. */
export function chips() {
  const asked = query();
  const where = asked.getAll("where");
  const found = where.map(
    (text, i) =>
      /** @type {[string, string]} */ ([text, link({ where: where.filter((_, j) => j !== i), after: null })]),
  );
  for (const name of ["tz", "currency"])
    if (asked.get(name)) found.push([`${name} ${asked.get(name)}`, link({ [name]: null })]);
  const assumed = asked.getAll("assume");
  assumed.forEach((text, i) => found.push([`assume ${text}`, link({ assume: assumed.filter((_, j) => j !== i) })]));
  if (asked.get("since") || asked.get("until")) {
    const [since, until] = [asked.get("since"), asked.get("until")];
    found.push([
      since && since === until
        ? say.day(since)
        : `${since ? say.day(since) : "start"} – ${until ? say.day(until) : "end"}`,
      link({ since: null, until: null, after: null }),
    ]);
  }
  if (!found.length) return null;
  const all = link({ where: null, tz: null, assume: null, since: null, until: null, currency: null, after: null });
  return h(
    "ul",
    { class: "chips", "aria-label": "Filters in force" },
    ...found.map(([text, href]) =>
      h(
        "li",
        {},
        h(
          "a",
          { href, "aria-label": `take away the filter ${text}` },
          text,
          h("span", { "aria-hidden": "true" }, " ×"),
        ),
      ),
    ),
    found.length > 1 ? h("li", {}, h("a", { href: all, class: "plain" }, "Clear all")) : null,
  );
}
