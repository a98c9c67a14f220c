// @ts-check
// What pages are put together from: cards, figures at the top, what is to be trusted, and what stands where nothing is.

import { coded, h } from "./dom.js";
import { figure } from "./charts.js";
import { dataTable, csv } from "./table.js";
import * as say from "./format.js";
import { link } from "./state.js";

/** @typedef {any} Page the JSON of a page: docs/dashboard.md */

let ids = 0;

/**
 * @param {string} title @param {string | null} under @param {...any} children
 * @returns {HTMLElement}
 */
export function card(title, under, ...children) {
  ids += 1;
  const id = `card-${ids}`;
  return h(
    "section",
    { class: "card", "aria-labelledby": id },
    h("h2", { id }, title),
    under ? h("p", { class: "dim" }, under) : null,
    ...children,
  );
}

/**
 * A chart with its numbers folded below.
 * @param {Page} page @param {string} name @param {import("./charts.js").Drawing} drawing
 * @param {{title?: string, under?: string, how?: import("./table.js").How, open?: boolean}} [about] `open`: numbers are not folded
 */
export function chartCard(page, name, drawing, { title, under, how, open = false } = {}) {
  const table = page.tables[name];
  if (!table.rows.length) return card(title ?? table.title, under ?? null, dataTable(name, table, page));
  const numbers = dataTable(name, table, page, how);
  return card(
    title ?? table.title,
    under ?? null,
    figure(drawing),
    open ? numbers : h("details", { class: "numbers" }, h("summary", {}, "The numbers"), numbers),
  );
}

/** @param {Page} page @param {string} name @param {import("./table.js").How & {title?: string, under?: string}} [how] */
export function tableCard(page, name, how = {}) {
  const table = page.tables[name];
  return card(how.title ?? table.title, how.under ?? null, dataTable(name, table, page, how));
}

/** The figures at the top. @param {Page} page */
export function kpis(page) {
  if (!page.kpis?.length) return null;
  return h(
    "dl",
    { class: "kpis" },
    ...page.kpis.map((/** @type {any} */ kpi) => {
      const { exact } = say.cell(kpi.value, kpi.kind, page);
      const text =
        kpi.kind !== "usd"
          ? say.cell(kpi.value, kpi.kind, page).text
          : kpi.value === null
            ? "unknown"
            : say.money(kpi.value, { whole: true });
      const href = kpi._rows ?? page.rows_from;
      return h(
        "div",
        { class: "card" },
        h("dt", {}, say.spans(kpi.title)),
        h("dd", { class: "big", title: exact || null }, href ? h("a", { href }, text) : text),
        kpi.note ? h("dd", { class: "note" }, kpi.note) : null,
      );
    }),
  );
}

// --- what is to be trusted ---

/** Assumed, unpriced, rejected: always there, also when there is none. @param {Page} page */
export function trust(page) {
  if (page.footer?.read === undefined) return null; // nothing was counted
  const assumed = say.number(page.assumed?.usd) > 0;
  const unpriced = page.unpriced?.calls > 0;
  const rejected = page.rejected?.lines > 0;
  return h(
    "section",
    { class: "trust", "aria-label": "What these figures rest on" },
    assumed
      ? told(
          "warn",
          `${say.money(page.assumed.usd)} assumed`,
          "what the sources left open was filled in by a written rule",
          page.assumed.by.map((/** @type {any} */ one) =>
            h(
              "li",
              {},
              h("b", {}, one.name),
              ` ${say.whole(one.calls)} calls, ${say.money(one.usd)}`,
              one.upper_usd && say.number(one.upper_usd) ? ` (at most ${say.money(one.upper_usd)})` : "",
              one.settle ? [h("br"), "settle it: ", h("code", {}, one.settle), " ", settled(one.settle)] : [],
            ),
          ),
        )
      : fine("nothing assumed"),
    unpriced
      ? told(
          "bad",
          `${say.whole(page.unpriced.calls)} without a price`,
          "they are in no sum: unknown is not $0",
          Object.entries(page.unpriced.reasons).map(([why, calls]) =>
            h("li", {}, h("b", {}, say.whole(calls)), ` ${why}`),
          ),
        )
      : fine("everything priced"),
    rejected
      ? told(
          "bad",
          `${say.whole(page.rejected.lines)} lines rejected`,
          "they could not be read as usage",
          page.rejected.reasons.map((/** @type {string} */ why) => h("li", {}, why)),
        )
      : null,
  );
}

/** Where a flag of the command line would settle it, the page can show it so as well. @param {string} text */
function settled(text) {
  const flag = /--assume ([a-z_]+=[a-z0-9]+)/.exec(text);
  return flag ? h("a", { href: link({ assume: flag[1] }) }, `show it with ${flag[1]}`) : null;
}

/** @param {string} text */
function fine(text) {
  return h("p", { class: "fact" }, h("i", { class: "dot good", "aria-hidden": "true" }), text);
}

/** @param {string} tone @param {string} text @param {string} why @param {HTMLElement[]} lines */
function told(tone, text, why, lines) {
  return h(
    "details",
    { class: "fact" },
    h("summary", {}, h("i", { class: `dot ${tone}`, "aria-hidden": "true" }), text),
    h(
      "div",
      { class: "box" },
      h("p", {}, `${why[0].toUpperCase()}${why.slice(1)}.`),
      lines.length ? h("ul", {}, ...lines) : null,
    ),
  );
}

/** Of when, in which zone and currency, by which prices. @param {Page} page */
export function context(page) {
  const asked = page.question ?? {};
  const since = asked.since ?? page.span?.since;
  const until = asked.until ?? page.span?.until;
  const days = since === until ? say.day(since) : `${say.day(since)} – ${say.day(until)}`;
  const parts = [
    page.page === "live" ? "now" : since && until ? days : null,
    page.tz ?? "UTC",
    page.currency ?? "USD",
    page.heading,
  ];
  const old = page.fresh === false ? h("span", { class: "old" }, freshness(page)) : null;
  return h("p", { class: "context" }, parts.filter(Boolean).join(" · "), old);
}

/** What takes long is shown as it was, while it is made anew. @param {Page} page */
function freshness(page) {
  return ` · as of ${say.time(page.generated_at, page.tz)}, being made anew`;
}

/** @param {Page} page */
export function foot(page) {
  const tables = Object.entries(page.tables ?? {});
  return h(
    "footer",
    {},
    ...(page.notes ?? []).map((/** @type {string} */ note) => h("p", {}, ...coded(sentence(note)))),
    h(
      "p",
      {},
      page.footer?.read !== undefined
        ? `${say.whole(page.footer.read)} read = ${say.whole(page.footer.priced)} priced + ${say.whole(page.unpriced?.calls ?? 0)} unpriced + ${say.whole(page.rejected?.lines ?? 0)} rejected. `
        : "",
      page.book ? ["Price book ", h("code", {}, String(page.book).slice(0, 12)), ". "] : [],
      page.ledger_version ? `Ledger version ${page.ledger_version}. ` : "",
      page.generated_at ? `As of ${say.time(page.generated_at, page.tz)} ${page.tz ?? "UTC"}.` : "",
    ),
    h(
      "p",
      {},
      "The same as ",
      h("a", { href: `/${page.page}.json${location.search}` }, "JSON"),
      ...tables
        .map(([name, table]) => [
          ", ",
          h("a", { href: csv(name), download: "" }, `CSV of ${table.title.toLowerCase()}`),
        ])
        .flat(),
      ".",
    ),
  );
}

// --- where nothing is ---

export function loading() {
  return h(
    "div",
    { class: "loading" },
    h("div", { class: "kpis" }, ...Array.from({ length: 4 }, () => h("div", { class: "card ghost" }))),
    h("div", { class: "card ghost tall" }),
    h("p", { class: "unseen" }, "Loading"),
  );
}

/** @param {{why: string, mend: string}} missing */
export function missingCard(missing) {
  return h(
    "section",
    { class: "card state", "aria-label": "Not there yet" },
    h("p", { class: "why" }, ...coded(sentence(missing.why))),
    missing.mend ? h("p", { class: "dim" }, ...coded(sentence(missing.mend))) : null,
  );
}

/** @param {string} why @param {string} mend @param {() => void} again */
export function errorCard(why, mend, again) {
  return h(
    "section",
    { class: "card state", role: "alert" },
    h("h1", {}, "This page cannot be shown"),
    h("p", { class: "why" }, sentence(why)),
    mend ? h("p", { class: "dim" }, ...coded(sentence(mend))) : null,
    h(
      "p",
      {},
      h("button", { type: "button", class: "main", onclick: again }, "Try again"),
      " ",
      location.search ? h("a", { href: location.pathname }, "Without filters") : null,
    ),
  );
}

/** @param {string} text */
function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) + (/[.!?:]$/.test(text) ? "" : ".") : "";
}
