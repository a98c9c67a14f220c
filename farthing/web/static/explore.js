// @ts-check
// Explore: group by anything, then go down to single calls.

import { bars, stack } from "./sums.js";
import { h } from "./dom.js";
import { filters } from "./filters.js";
import { chartCard, tableCard } from "./parts.js";
import { go, link, query } from "./state.js";

const KEYS = [
  "model",
  "endpoint",
  "team",
  "workload",
  "day",
  "week",
  "month",
  "meter",
  "account",
  "principal",
  "project",
  "session",
  "region",
  "routing",
  "mode",
  "operation",
  "status",
  "platform",
  "profile",
  "source",
  "zone",
];
const TIMES = ["day", "week", "month"];
const CALLS = "50";
const FIRST = [
  "at",
  "model",
  "usd",
  "input",
  "output",
  "cache_read",
  "cache_write_5m",
  "cache_write_1h",
  "team",
  "endpoint",
  "card",
  "id",
];

/** @param {any} page @returns {string[]} */
function keysOf(page) {
  return page.keys?.length ? page.keys : ["model"];
}

/** @param {any} page */
export function exploreFilters(page) {
  const keys = keysOf(page);
  const with_ = (/** @type {string[]} */ list) => link({ keys: list.join(","), after: null });
  const add = h(
    "select",
    {
      id: "explore-add",
      "aria-label": "group by one more",
      onchange: (/** @type {any} */ event) => event.target.value && go(event.target.value),
    },
    h("option", { value: "" }, "add …"),
    ...KEYS.filter((key) => !keys.includes(key)).map((key) => h("option", { value: with_([...keys, key]) }, key)),
  );
  const picked = keys.map((key) =>
    h(
      "li",
      {},
      keys.length > 1
        ? h(
            "a",
            { href: with_(keys.filter((one) => one !== key)), "aria-label": `do not group by ${key}` },
            key,
            h("span", { "aria-hidden": "true" }, " ×"),
          )
        : h("span", {}, key),
    ),
  );
  const made = filters(page);
  made.prepend(
    h(
      "div",
      { class: "filter" },
      h("span", {}, "Group by"),
      h("ul", { class: "chips keys" }, ...picked, h("li", {}, add)),
    ),
  );
  return made;
}

/** @param {any} page */
export function explore(page) {
  const keys = keysOf(page);
  const time = keys.find((key) => TIMES.includes(key));
  const rest = keys.filter((key) => key !== time);
  const table = page.tables.groups;
  const drawing = time
    ? stack(rest.length > 1 ? joined(table, rest) : table, {
        x: time,
        by: rest.length > 1 ? "_joined" : (rest[0] ?? ""),
        y: "usd",
      })
    : bars(table, { x: keys, y: "usd" });
  const single = Boolean(query().get("calls"));
  const groups = chartCard(page, "groups", drawing, { open: true, how: { bar: "usd", limit: 15 } });
  groups.append(
    h(
      "p",
      {},
      h(
        "a",
        { class: "button", id: "calls-shown", href: link({ calls: single ? null : CALLS, after: null }) },
        single ? "Hide single calls" : "Show single calls",
      ),
    ),
  );
  const calls = page.tables.calls
    ? tableCard({ ...page, tables: { calls: costFirst(page.tables.calls) } }, "calls", {
        limit: 500,
        hide: ["part"],
        cut: ["id", "principal", "session", "project", "card"],
        minor: ["endpoint", "id", "principal", "session", "project", "region", "status"],
        under: "Newest first; no text of prompts or answers is kept",
      })
    : null;
  if (calls) {
    calls.append(
      h(
        "p",
        { class: "pages" },
        query().get("after")
          ? h("a", { class: "button", id: "calls-newest", href: link({ after: null }) }, "Newest")
          : null,
        page.next
          ? h("a", { class: "button", id: "calls-older", href: page.next }, "Older calls")
          : h("span", { class: "dim" }, "These are the oldest."),
      ),
    );
  }
  return [
    groups,
    calls,
    tableCard(page, "rates", {
      limit: 15,
      minor: ["starts"],
      under: "Tokens times rate is the cost; each rate has its source and the day it holds from",
    }),
  ];
}

/** What it cost, and of what, stands before who called. @param {any} table */
function costFirst(table) {
  const place = (/** @type {{name: string}} */ column) =>
    FIRST.includes(column.name) ? FIRST.indexOf(column.name) : FIRST.length;
  return { ...table, columns: [...table.columns].sort((a, b) => place(a) - place(b)) };
}

/** @param {any} table @param {string[]} keys */
function joined(table, keys) {
  return {
    ...table,
    rows: table.rows.map((/** @type {any} */ row) => ({ ...row, _joined: keys.map((key) => row[key]).join(" · ") })),
  };
}
