// @ts-check
// A table that sorts, whose numbers lead to what they are made of.

import { coded, h, say as tell } from "./dom.js";
import * as say from "./format.js";
import { here } from "./state.js";

/** @typedef {import("./charts.js").Table} Table */
/** @typedef {{tz: string, currency: string}} Shown */
/**
 * How a table is shown: which column has a bar, how many rows at first, which columns a phone does without (`minor`) or
 * keeps (`major`) and which nobody needs (`hide`), long texts that are folded (`fold`) or cut (`cut`), and cells of its
 * own by column.
 * @typedef {{bar?: string, limit?: number, minor?: string[], major?: string[], hide?: string[], fold?: string[],
 *   cut?: string[], cells?: Record<string, (row: any) => any>}} How
 */

const SHORT = 26; // characters that are not broken over lines
const ALWAYS_MINOR = [
  "input",
  "output",
  "cache_read",
  "cache_write_5m",
  "cache_write_1h",
  "account",
  "mode",
  "card",
  "source",
  "tokens",
];

const UNKNOWN_SUM = { text: "unknown", exact: "" }; // of what has no price

/** The link to a table as CSV, with the filters of the page. @param {string} name */
export function csv(name) {
  const asked = new URLSearchParams(location.search);
  asked.set("table", name);
  return `/${here()}.csv?${asked}`;
}

/**
 * @param {string} name @param {Table} table @param {Shown} page @param {How} [how]
 * @returns {HTMLElement}
 */
export function dataTable(name, table, page, how = {}) {
  if (!table.rows.length) return h("p", { class: "empty" }, ...coded(sentence(table.empty)));
  const columns = table.columns.filter((column) => !how.hide?.includes(column.name) && isTold(column, table, how));
  const stays = [columns[0]?.name, ...(how.major ?? [])];
  const minor = [...ALWAYS_MINOR, ...(how.minor ?? [])].filter((one) => !stays.includes(one));
  how = { ...how, minor };
  const body = h("tbody");
  const held = { by: "", down: true, all: table.rows.length <= (how.limit ?? 12) + 3 };
  const most = Math.max(...table.rows.map((row) => Math.abs(say.number(row[how.bar ?? ""]) || 0)), 0);

  const fill = () => {
    const rows = held.by
      ? sorted(
          table.rows,
          columns.find((column) => column.name === held.by),
          held.down,
        )
      : table.rows;
    const shown = held.all ? rows : rows.slice(0, how.limit ?? 12);
    body.replaceChildren(...shown.map((row) => bodyRow(row, columns, page, how, most)));
  };
  const heads = columns.map((column) =>
    headCell(column, held, how, () => {
      fill();
      for (const head of heads)
        head.setAttribute(
          "aria-sort",
          head.dataset.name === held.by ? (held.down ? "descending" : "ascending") : "none",
        );
      tell(`sorted by ${column.title}, ${held.down ? "largest" : "smallest"} first`);
    }),
  );
  fill();
  const more = held.all
    ? null
    : h(
        "button",
        {
          type: "button",
          class: "quiet",
          onclick: (/** @type {Event} */ event) => {
            const shown = body.children.length;
            held.all = true;
            fill();
            /** @type {HTMLElement} */ (event.target).remove();
            const next = /** @type {HTMLElement | undefined} */ (body.children[shown]?.querySelector("a, summary"));
            (next ?? /** @type {HTMLElement} */ (body.closest(".scroll"))).focus({ preventScroll: !next });
          },
        },
        `Show all ${say.whole(table.rows.length)}`,
      );
  const total = Object.keys(table.total ?? {}).length
    ? h("tfoot", {}, bodyRow(table.total, columns, page, how, 0, true))
    : null;
  return h(
    "div",
    {},
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "group", "aria-label": `${table.title}, table` },
      h("table", {}, h("thead", {}, h("tr", {}, ...heads)), body, total),
    ),
    h("p", { class: "under" }, more, h("a", { href: csv(name), download: "" }, "CSV")),
  );
}

/** A column that says nothing in any row is left out. @param {say.Column} column @param {Table} table @param {How} how */
function isTold(column, table, how) {
  if (column.kind === "usd" || column.kind === "money") return true;
  if (column.name === "platform" && new Set(table.rows.map((row) => row.platform).filter(Boolean)).size < 2)
    return false; // mostly all on Bedrock
  if (how.cells?.[column.name]) return true;
  return table.rows.some((row) => ![null, undefined, "", 0].includes(row[column.name]));
}

/** @param {string} text */
function sentence(text) {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : "Nothing here.";
}

/**
 * @param {say.Column} column @param {{by: string, down: boolean}} held @param {How} how @param {() => void} changed
 */
function headCell(column, held, { bar, minor = [] }, changed) {
  const button = h(
    "button",
    {
      type: "button",
      onclick: () => {
        held.down = held.by === column.name ? !held.down : say.isNumeric(column.kind);
        held.by = column.name;
        changed();
      },
    },
    capital(column.title),
  );
  const barred = column.name === bar ? "barred" : "";
  return h(
    "th",
    {
      scope: "col",
      class: [classes(column, minor), barred].filter(Boolean).join(" ") || null,
      "aria-sort": "none",
      "data-name": column.name,
    },
    button,
  );
}

/** @param {string} text */
export function capital(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : text;
}

/** @param {say.Column} column @param {string[]} minor */
function classes(column, minor) {
  const found = [say.isNumeric(column.kind) ? "n" : "", minor.includes(column.name) ? "minor" : ""];
  return found.filter(Boolean).join(" ") || null;
}

/**
 * @param {Record<string, any>} row @param {say.Column[]} columns @param {Shown} page @param {How} how
 * @param {number} most @param {boolean} [isTotal]
 */
function bodyRow(row, columns, page, how, most, isTotal = false) {
  return h(
    "tr",
    {},
    ...columns.map((column, i) => {
      if (!isTotal && row[column.name] && how.fold?.includes(column.name))
        return h(
          "td",
          { class: classes(column, how.minor ?? []) },
          h(
            "details",
            { class: "folded" },
            h("summary", {}, capital(column.title)),
            ...coded(String(row[column.name])),
          ),
        );
      const own = !isTotal && how.cells?.[column.name]?.(row);
      if (own) return h("td", { class: classes(column, how.minor ?? []) }, own);
      if (isTotal && !(column.name in row))
        return h("td", { class: classes(column, how.minor ?? []) }, i === 0 ? "All" : "");
      const isMoney = column.kind === "usd" || column.kind === "money";
      const unknown = isMoney && row[column.name] === null && column.name !== "usd";
      const { text, exact } = unknown ? UNKNOWN_SUM : say.cell(row[column.name], column.kind, page);
      const leads = row._rows && (i === 0 || isMoney);
      // one stop a row for the keyboard: the first cell; the amounts lead to the same place
      const inner = leads ? h("a", { href: row._rows, tabindex: i === 0 ? null : "-1" }, text) : text;
      const missing = unknown || (isMoney && text === "no price") ? "missing" : "";
      const bar = column.name === how.bar ? barOf(isTotal ? NaN : say.number(row[column.name]), most) : null;
      const short = text.length <= SHORT ? "short" : "";
      const cut = !isTotal && how.cut?.includes(column.name) ? "cut" : "";
      const shown = [classes(column, how.minor ?? []), missing, cut || short].filter(Boolean).join(" ") || null;
      return i === 0 && !isTotal
        ? h("th", { scope: "row", class: shown, title: exact || null }, inner)
        : h("td", { class: shown, title: exact || (cut && text) || null }, inner, bar);
    }),
  );
}

/** @param {number} value @param {number} most */
function barOf(value, most) {
  const long = !value || !most ? null : Math.min(1, Math.abs(value) / most); // nothing, and nothing known, have no bar
  return h(
    "i",
    { class: "bar", "aria-hidden": "true" },
    long === null ? null : h("i", { style: { width: `${(long * 100).toFixed(1)}%` } }),
  );
}

/** @param {Record<string, any>[]} rows @param {say.Column | undefined} column @param {boolean} down */
function sorted(rows, column, down) {
  if (!column) return rows;
  const { name, kind } = column;
  const turn = down ? -1 : 1;
  return [...rows].sort((a, b) => {
    if (!say.isNumeric(kind))
      return turn * String(a[name] ?? "").localeCompare(String(b[name] ?? ""), "en", { numeric: true });
    const [x, y] = [say.number(a[name]), say.number(b[name])];
    if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y)); // unknown comes last
    return turn * (x - y);
  });
}
