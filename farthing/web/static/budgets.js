// @ts-check
// How far a budget is used, as a bar with its limit.

import { h } from "./dom.js";
import { number } from "./format.js";

const TONES = /** @type {[number, string][]} */ ([
  [100, "bad"],
  [75, "warn"],
  [0, "good"],
]);

/** Cells of the table that are more than their text. */
export const budgetCells = {
  /** @param {any} row */
  percent: (row) => {
    const used = number(row.percent) || 0;
    const tone = TONES.find(([from]) => used >= from)?.[1] ?? "good";
    return h(
      "span",
      { class: "gauge" },
      h(
        "i",
        { class: "track", "aria-hidden": "true" },
        h("i", { class: tone, style: { width: `${Math.min(used, 100)}%` } }),
      ),
      h("b", {}, `${used} %`),
    );
  },
};
