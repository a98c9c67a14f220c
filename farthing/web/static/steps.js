// @ts-check
// The waterfall: steps from one amount to another.

import { nameAxis, tip, valueAxis } from "./charts.js";
import * as say from "./format.js";

/** @typedef {import("./charts.js").Table} Table */
/** @typedef {import("./charts.js").Drawing} Drawing */
/** @typedef {import("./charts.js").Colours} Colours */

/**
 * A waterfall: the first row and the last are amounts, those between lead from one to the other.
 * @param {Table} table @param {{label: string, y: string, short?: Record<string, string>, key?: string}} of
 * @returns {Drawing}
 */
export function waterfall(table, { label, y, short = {}, key = "step" }) {
  const rows = table.rows.filter((row) => !Number.isNaN(say.number(row[y])));
  let at = 0;
  const steps = rows.map((row, i) => {
    const value = say.number(row[y]);
    const ends = i === 0 || i === rows.length - 1;
    const from = ends ? 0 : at;
    at = from + value;
    return {
      name: short[row[key]] ?? say.spans(row[label]),
      full: say.spans(row[label]),
      value,
      from,
      to: at,
      ends,
      href: row._rows,
    };
  });
  const begins = ground(steps);
  return {
    note: begins
      ? `The axis begins at ${say.money(begins, { whole: true })}, so that the steps can be seen.`
      : undefined,
    says: `${table.title}: ${steps.map((step) => `${step.full} ${say.money(step.value, { sign: !step.ends })}`).join("; ")}.`,
    height: (width) => (upright(width, steps.length) ? 300 : steps.length * 40 + 20),
    link: (mark) => steps[mark.dataIndex]?.href,
    option: (width, found) => fallen(steps, upright(width, steps.length), width, found, begins),
  };
}

/**
 * Where the axis begins: at nothing, unless the steps would be too small to see beside the amounts; then it is said.
 * @param {{from: number, to: number, ends: boolean}[]} steps
 */
function ground(steps) {
  const levels = steps.map((step) => step.to);
  const [low, high] = [Math.min(...levels), Math.max(...levels)];
  if (low <= 0 || high - low > high * 0.3) return 0;
  const round = 10 ** Math.floor(Math.log10(Math.max(high - low, high * 0.01)));
  return Math.max(0, Math.floor((low - (high - low) * 0.5 - high * 0.005) / round) * round);
}

/** @param {number} width @param {number} steps */
function upright(width, steps) {
  return width / steps >= 76;
}

/**
 * @param {{name: string, full: string, value: number, from: number, to: number, ends: boolean, href?: string}[]} steps
 * @param {boolean} up @param {number} width @param {Colours} found @param {number} begins
 */
function fallen(steps, up, width, found, begins) {
  const names = nameAxis(
    found,
    steps.map((step) => step.name),
    up
      ? {
          axisLabel: {
            color: found.text,
            interval: 0,
            width: Math.max(60, width / steps.length - 14),
            overflow: "break",
            lineHeight: 15,
          },
        }
      : { inverse: true, axisLabel: { color: found.text, width: width * 0.36, overflow: "break", lineHeight: 14 } },
  );
  const values = valueAxis(found, { min: begins, ...(up ? {} : { splitNumber: 3 }) });
  return {
    grid: { left: 4, right: up ? 8 : 74, top: 22, bottom: 4, containLabel: true },
    xAxis: up ? names : values,
    yAxis: up ? values : names,
    tooltip: {
      formatter: (/** @type {any} */ mark) =>
        tip(steps[mark.dataIndex].full, [
          ["", say.money(steps[mark.dataIndex].value, { sign: !steps[mark.dataIndex].ends })],
        ]),
    },
    series: [
      {
        type: "custom",
        cursor: "pointer",
        data: steps.map((step, i) => [i, Math.max(step.from, begins), step.to]),
        encode: up ? { x: 0, y: [1, 2] } : { y: 0, x: [1, 2] },
        renderItem: (/** @type {any} */ _, /** @type {any} */ api) => fallenStep(steps, api, up, found, begins),
      },
    ],
  };
}

/** One block of a waterfall, its amount, and the line to the next. */
function fallenStep(
  /** @type {any[]} */ steps,
  /** @type {any} */ api,
  /** @type {boolean} */ up,
  /** @type {Colours} */ found,
  /** @type {number} */ begins,
) {
  const i = api.value(0);
  const step = steps[i];
  const place = (/** @type {number} */ value) => (up ? api.coord([i, value]) : api.coord([value, i]));
  const band = up ? api.size([1, 0])[0] : api.size([0, 1])[1];
  const thick = Math.min(band * 0.62, up ? 64 : 20);
  const [a, b] = [place(Math.max(step.from, begins)), place(step.to)];
  const along = up ? 1 : 0;
  const low = Math.min(a[along], b[along]);
  const long = Math.max(Math.abs(a[along] - b[along]), 2);
  const fill = step.ends ? found.accent : step.value < 0 ? found.down : found.up;
  const shape = up
    ? { x: a[0] - thick / 2, y: low, width: thick, height: long, r: 3 }
    : { x: low, y: a[1] - thick / 2, width: long, height: thick, r: 3 };
  const said = {
    text: say.money(step.value, { sign: !step.ends, whole: true }),
    fill: found.text,
    fontSize: 12,
    fontFamily: "Inter, system-ui, sans-serif",
  };
  const words = up
    ? { ...said, x: a[0], y: low - 5, align: "center", verticalAlign: "bottom" }
    : { ...said, x: low + long + 6, y: a[1], align: "left", verticalAlign: "middle" };
  const next = up
    ? { x1: b[0] + thick / 2, y1: b[1], x2: b[0] + band - thick / 2, y2: b[1] }
    : { x1: b[0], y1: b[1] + thick / 2, x2: b[0], y2: b[1] + band - thick / 2 };
  return {
    type: "group",
    children: [
      ...(i < steps.length - 1
        ? [{ type: "line", shape: next, style: { stroke: found.muted, lineWidth: 1, lineDash: [2, 3] }, silent: true }]
        : []),
      { type: "rect", shape, style: { fill } },
      { type: "text", style: words },
    ],
  };
}
