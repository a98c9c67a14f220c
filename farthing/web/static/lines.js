// @ts-check
// Charts over time: shares, prices, what comes in by the minute, and how long callers stayed away.

import { MOST_SERIES, colourOf, nameAxis, tip, valueAxis } from "./charts.js";
import * as say from "./format.js";

/** @typedef {import("./charts.js").Table} Table */
/** @typedef {import("./charts.js").Drawing} Drawing */
/** @typedef {import("./charts.js").Colours} Colours */

/**
 * A share by day, from 0 to 100 %.
 * @param {Table} table @param {{x: string, y: string}} of
 * @returns {Drawing}
 */
export function shares(table, { x, y }) {
  const points = table.rows.map((row) => ({ value: [row[x], say.number(row[y]) * 100], href: row._rows }));
  const values = points.map((point) => point.value[1]);
  return {
    says: `${table.title}: from ${Math.min(...values).toFixed(1)} % to ${Math.max(...values).toFixed(1)} %, last ${values.at(-1)?.toFixed(1)} %.`,
    link: (mark) => points[mark.dataIndex]?.href,
    height: 240,
    option: (width, found) => ({
      xAxis: nameAxis(
        found,
        points.map((point) => point.value[0]),
        {
          boundaryGap: false,
          axisLabel: {
            color: found.muted,
            hideOverlap: true,
            formatter: (/** @type {string} */ d) => say.day(d, false),
          },
        },
      ),
      yAxis: valueAxis(found, { min: 0, max: 100, axisLabel: { color: found.muted, formatter: "{value} %" } }),
      tooltip: {
        trigger: "axis",
        formatter: (/** @type {any[]} */ marks) =>
          tip(say.day(marks[0].axisValue), [["", `${Number(marks[0].value[1]).toFixed(1)} %`]]),
      },
      series: [
        {
          type: "line",
          data: points,
          symbol: points.length > 1 ? "none" : "circle",
          cursor: "pointer",
          color: found.series[1],
          lineStyle: { width: 2 },
          areaStyle: { opacity: 0.14 },
        },
      ],
    }),
  };
}

/**
 * Prices from the days they hold from: level until the next, and on to today.
 * @param {Table} table @param {{x: string, by: string, y: string, today: string}} of
 * @returns {Drawing}
 */
export function levels(table, { x, by, y, today }) {
  /** @type {Map<string, [string, number][]>} */
  const series = new Map(table.rows.map((row) => [row[by], []])); // in the order of the table
  for (const row of [...table.rows].sort((a, b) => String(a[x]).localeCompare(String(b[x])))) {
    const held = series.get(row[by]) ?? [];
    held.push([row[x], say.number(row[y])]);
    series.set(row[by], held);
  }
  const keys = [...series.keys()].slice(0, MOST_SERIES);
  return {
    keys,
    says: `${table.title}: ${keys.map((name) => `${name} $${series.get(name)?.at(-1)?.[1]}`).join("; ")} per million tokens now.`,
    height: 240,
    option: (width, found, hidden) => ({
      xAxis: {
        type: "time",
        axisLine: { lineStyle: { color: found.line } },
        axisLabel: { color: found.muted, hideOverlap: true },
      },
      yAxis: valueAxis(found, { min: 0 }),
      tooltip: {
        trigger: "axis",
        formatter: (/** @type {any[]} */ marks) =>
          tip(
            say.day(new Date(marks[0].axisValue).toISOString()),
            marks.map((mark) => [mark.seriesName, `$${mark.value[1]}`, mark.color]),
          ),
      },
      series: keys.map((name, i) => ({
        name,
        type: "line",
        step: "end",
        symbolSize: 6,
        color: colourOf(found, i, name),
        lineStyle: { width: 2 },
        data: hidden.has(name)
          ? []
          : [...(series.get(name) ?? []), { value: [today, series.get(name)?.at(-1)?.[1]], symbol: "none" }],
      })),
    }),
  };
}

// --- gaps ---

const TTLS = [
  [300, "5 min"],
  [3600, "1 h"],
];
const MARKS_S = [1, 10, 60, 300, 1800, 3600, 7200, 21_600, 86_400, 345_600];

/** Where a gap stands on the axis. @param {number} seconds */
function at(seconds) {
  return Math.log10(Math.max(seconds, 0.5));
}

/**
 * How long callers waited before they came back, by the logarithm, with the lives of a cache entry as lines.
 * @param {Table} table @param {{from: string, to: string, y: string, noun: string}} of
 * @returns {Drawing}
 */
export function gaps(table, { from, to, y, noun }) {
  const bins = table.rows.map((row) => {
    const starts = Math.max(say.number(row[from]) || 0, 0.5);
    const ends = say.number(row[to]);
    return {
      starts,
      ends: Number.isNaN(ends) ? starts * 4 : Math.max(ends, starts * 1.05),
      open: Number.isNaN(ends),
      value: say.number(row[y]) || 0,
      href: row._rows,
    };
  });
  const within = (/** @type {number} */ limit) =>
    bins.filter((bin) => bin.ends <= limit).reduce((sum, bin) => sum + bin.value, 0);
  const all = within(Infinity) || 1;
  return {
    says: `${table.title}: ${say.share(within(300) / all)} within 5 minutes, ${say.share(within(3600) / all)} within an hour.`,
    link: (mark) => bins[mark.dataIndex]?.href,
    height: 260,
    option: (width, found) => ({
      grid: { left: 4, right: 16, top: 30, bottom: 4, containLabel: true },
      xAxis: {
        type: "value",
        min: Math.min(...bins.map((bin) => at(bin.starts)), 0),
        max: Math.max(...bins.map((bin) => at(bin.ends)), at(7200)),
        axisLine: { lineStyle: { color: found.line } },
        splitLine: { show: false },
        axisTick: { customValues: MARKS_S.map(at), lineStyle: { color: found.line } },
        axisLabel: {
          color: found.muted,
          hideOverlap: true,
          customValues: MARKS_S.map(at),
          formatter: (/** @type {number} */ v) => say.seconds(Math.round(10 ** v)),
        },
      },
      yAxis: valueAxis(found, {
        axisLabel: { color: found.muted, formatter: (/** @type {number} */ v) => say.count(v) },
      }),
      tooltip: {
        formatter: (/** @type {any} */ mark) => {
          const bin = bins[mark.dataIndex];
          return (
            bin &&
            tip(
              bin.open ? `over ${say.seconds(bin.starts)}` : `${say.seconds(bin.starts)} to ${say.seconds(bin.ends)}`,
              [[noun, say.whole(bin.value)]],
            )
          );
        },
      },
      series: [
        {
          type: "custom",
          cursor: "pointer",
          data: bins.map((bin, i) => [i, at(bin.starts), at(bin.ends), bin.value]),
          encode: { x: [1, 2], y: 3 },
          renderItem: (/** @type {any} */ _, /** @type {any} */ api) => {
            const bin = bins[api.value(0)];
            const [x0, top] = api.coord([at(bin.starts), bin.value]);
            const [x1, ground] = api.coord([at(bin.ends), 0]);
            const fill = bin.ends <= 300 ? found.down : bin.ends <= 3600 ? found.series[4] : found.up;
            return {
              type: "rect",
              shape: { x: x0 + 0.5, y: top, width: Math.max(x1 - x0 - 1, 1), height: ground - top, r: [2, 2, 0, 0] },
              style: { fill },
            };
          },
          markLine: {
            silent: true,
            symbol: "none",
            lineStyle: { color: found.text, type: "dashed" },
            data: TTLS.map(([life, name]) => ({
              xAxis: at(Number(life)),
              label: { formatter: String(name), color: found.text, position: "end" },
            })),
          },
        },
      ],
    }),
  };
}

/**
 * Amounts as they come, one bar a slot: redrawn by whoever holds `points`.
 * @param {{at: string, value: number}[]} points @param {string} title
 * @returns {Drawing}
 */
export function pulse(points, title) {
  return {
    says: `${title}, by minute.`,
    height: 170,
    option: (width, found) => ({
      xAxis: nameAxis(
        found,
        points.map((point) => point.at),
      ),
      yAxis: valueAxis(found, { splitNumber: 3 }),
      tooltip: {
        trigger: "axis",
        axisPointer: { type: "shadow" },
        formatter: (/** @type {any[]} */ marks) => tip(marks[0].axisValue, [["", say.money(marks[0].value)]]),
      },
      series: [
        {
          type: "bar",
          data: points.map((point) => point.value),
          color: found.accent,
          itemStyle: { borderRadius: [2, 2, 0, 0] },
        },
      ],
    }),
  };
}
