// @ts-check
// Prices: of all models in use, or of one.

import { leading } from "./filters.js";
import { h } from "./dom.js";
import { number } from "./format.js";
import { link, query } from "./state.js";

/** @param {any} page */
export function pricesFilters(page) {
  const now = query().get("model") ?? "";
  const options = /** @type {[string, string][]} */ ([
    ["All in use", link({ model: null })],
    ...(page.models ?? []).map((/** @type {string} */ name) => [name, link({ model: name })]),
  ]);
  if (now && !options.some(([text]) => text === now)) options.push([now, link({ model: now })]);
  return h("div", { class: "filters" }, leading("prices-model", "Model", options, now || "All in use"));
}

/** The history of one meter, of each model at its endpoint with the lowest rate: the others are that and a premium. @param {any} table @param {string} meter */
export function startOf(table, meter) {
  const rows = table.rows.filter((/** @type {any} */ row) => row.meter === meter);
  /** @type {Map<string, {place: string, rate: number}>} */
  const least = new Map();
  for (const row of rows) {
    const found = least.get(row.model);
    if (!found || number(row.usd_per_million) < found.rate)
      least.set(row.model, { place: `${row.platform}/${row.endpoint}`, rate: number(row.usd_per_million) });
  }
  return {
    ...table,
    rows: rows.filter((/** @type {any} */ row) => least.get(row.model)?.place === `${row.platform}/${row.endpoint}`),
  };
}
