// @ts-check
// Reconcile: the causes of the difference, by name.

import { number } from "./format.js";

const MOST = 8; // names that have a step of their own
const OTHERS = "other causes";

/** Steps from our sum to AWS's; what nothing explains is a step of its own. @param {any} page */
export function bridge(page) {
  const side = (/** @type {string} */ name) =>
    page.tables.sides.rows.find((/** @type {any} */ row) => row.side === name) ?? {};
  /** @type {Map<string, number>} */
  const sums = new Map();
  for (const row of page.tables.causes.rows) {
    const name = row.explained === false ? `unexplained: ${row.cause}` : row.cause;
    sums.set(name, (sums.get(name) ?? 0) + (number(row.usd) || 0));
  }
  const sorted = [...sums].sort(([, a], [, b]) => Math.abs(b) - Math.abs(a));
  if (sorted.length > MOST) {
    const rest = sorted.splice(MOST - 1);
    sorted.push([OTHERS, rest.reduce((sum, [, usd]) => sum + usd, 0)]);
  }
  const rows = [
    { label: "Ours", usd: side("ours").usd, _rows: side("ours")._rows },
    ...sorted.map(([label, usd]) => ({ label, usd })),
    { label: "AWS's", usd: side("AWS's").usd },
  ];
  return { ...page.tables.sides, title: "From ours to AWS's", rows };
}
