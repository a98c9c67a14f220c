// @ts-check
// Charts of sums: by day, by name, and from one place to another.

import { MOST_SERIES, colourOf, crossed, nameAxis, tip, valueAxis } from "./charts.js";
import * as say from "./format.js";

const LETTER_PX = 6.6; // how wide one is in a chart

/** @typedef {import("./charts.js").Table} Table */
/** @typedef {import("./charts.js").Drawing} Drawing */
/** @typedef {import("./charts.js").Colours} Colours */

/**
 * Days or weeks on the ground, money stacked by a second column.
 * @param {Table} table @param {{x: string, by: string, y: string}} of
 * @returns {Drawing}
 */
export function stack(table, { x, by, y }) {
  const { series } = crossed(table.rows, x, by, y);
  const days = filledDays([...new Set(table.rows.map((row) => String(row[x])))].sort());
  const bars = days.length <= 62;
  const keys = series.map(([name]) => name);
  const all = table.rows.reduce((sum, row) => sum + (say.number(row[y]) || 0), 0);
  return {
    keys,
    says: `${table.title}: ${say.money(all)} over ${days.length} days, ${day(days[0])} to ${day(days.at(-1))}; most of it ${keys[0] ?? "nothing"}.`,
    link: (mark) => series[mark.seriesIndex]?.[1].get(days[mark.dataIndex])?.href,
    option: (width, found, hidden) => ({
      xAxis: nameAxis(found, days, {
        boundaryGap: bars,
        axisLabel: { color: found.muted, hideOverlap: true, formatter: (/** @type {string} */ d) => say.day(d, false) },
      }),
      yAxis: valueAxis(found),
      tooltip: {
        trigger: "axis",
        axisPointer: { type: bars ? "shadow" : "line" },
        formatter: (/** @type {any[]} */ marks) =>
          tip(say.day(days[marks[0].dataIndex]), [
            ["all", say.money(marks.reduce((sum, mark) => sum + mark.value, 0))],
            ...marks
              .filter((mark) => mark.value)
              .reverse()
              .map(
                (mark) =>
                  /** @type {[string, string, string]} */ ([mark.seriesName, say.money(mark.value), mark.color]),
              ),
          ]),
      },
      series: series.map(([name, held], i) => ({
        name,
        type: bars ? "bar" : "line",
        stack: "all",
        color: colourOf(found, i, name),
        symbol: "none",
        cursor: "pointer",
        barCategoryGap: days.length > 40 ? "12%" : "22%",
        lineStyle: { width: 0 },
        areaStyle: bars ? undefined : { opacity: 0.85 },
        data: hidden.has(name) ? [] : days.map((one) => held.get(one)?.value ?? 0),
        itemStyle: { borderColor: found.card, borderWidth: bars && days.length < 40 ? 0.5 : 0 },
      })),
    }),
  };
}

/** @param {string | undefined} text */
function day(text) {
  return text ? say.day(text) : "no day";
}

/** Days that had nothing are there, as nothing. @param {string[]} days */
function filledDays(days) {
  if (days.length < 2 || !/^\d{4}-\d\d-\d\d$/.test(days[0])) return days;
  const step = 86_400_000;
  const ends = [Date.parse(days[0]), Date.parse(days[days.length - 1])];
  const gaps = days.slice(1).map((one, i) => Date.parse(one) - Date.parse(days[i]));
  if (Math.min(...gaps) !== step || (ends[1] - ends[0]) / step > 1100) return days; // weeks, months
  return Array.from({ length: (ends[1] - ends[0]) / step + 1 }, (_, i) =>
    new Date(ends[0] + i * step).toISOString().slice(0, 10),
  );
}

/**
 * Names down the side, money to the right, parted by a second column if there is one.
 * @param {Table} table @param {{x: string | string[], by?: string, y: string, most?: number}} of
 * @returns {Drawing}
 */
export function bars(table, { x, by = "", y, most = 15 }) {
  const known = table.rows.filter((row) => !Number.isNaN(say.number(row[y])));
  const named = known.map((row) => ({
    ...row,
    "": [x]
      .flat()
      .map((key) => row[key] ?? say.UNKNOWN)
      .join(" · "),
  }));
  const { places, series } = crossed(named, "", by, y);
  const sums = places.map((place) => ({
    place,
    sum: series.reduce((sum, [, held]) => sum + (held.get(place)?.value ?? 0), 0),
  }));
  const shown = sums
    .sort((a, b) => b.sum - a.sum)
    .slice(0, most)
    .map(({ place }) => place)
    .reverse();
  const largest = sums[0];
  return {
    keys: by ? series.map(([name]) => name) : undefined,
    note: unseen(table.rows.length - known.length),
    says: `${table.title}: ${largest ? `most is ${largest.place}, ${say.money(largest.sum)}` : "nothing"}.`,
    height: Math.max(120, shown.length * 30 + 40),
    link: (mark) => series[mark.seriesIndex]?.[1].get(shown[mark.dataIndex])?.href,
    option: (width, found, hidden) => ({
      grid: { left: 4, right: 70, top: 4, bottom: 4, containLabel: true },
      yAxis: nameAxis(found, shown, {
        axisLabel: {
          color: found.text,
          width: Math.min(240, width * 0.38),
          overflow: "truncate",
          formatter: (/** @type {string} */ name) => say.shortened(name, Math.min(240, width * 0.38) / LETTER_PX),
        },
      }),
      xAxis: valueAxis(found, { splitNumber: 4 }),
      tooltip: {
        trigger: "axis",
        axisPointer: { type: "shadow" },
        formatter: (/** @type {any[]} */ marks) =>
          tip(
            shown[marks[0].dataIndex],
            marks
              .filter((mark) => mark.value)
              .map((mark) => [by ? mark.seriesName : "cost", say.money(mark.value), mark.color]),
          ),
      },
      series: series.map(([name, held], i) => ({
        name,
        type: "bar",
        stack: "all",
        barMaxWidth: 16,
        cursor: "pointer",
        color: by ? colourOf(found, i, name) : found.accent,
        data: hidden.has(name) ? [] : shown.map((place) => held.get(place)?.value ?? 0),
        itemStyle: { borderRadius: by ? 0 : 3 },
        label: by
          ? undefined
          : {
              show: true,
              position: "right",
              color: found.text,
              formatter: (/** @type {any} */ mark) => say.money(mark.value, { whole: true }),
            },
      })),
    }),
  };
}

/** What has no price has no bar: unknown is not nothing. @param {number} rows */
function unseen(rows) {
  return rows
    ? `${rows} without a price ${rows === 1 ? "is" : "are"} not drawn; the table has ${rows === 1 ? "it" : "them"}.`
    : undefined;
}

// --- where it went ---

/**
 * From one column to another, as wide as the money.
 * @param {Table} table @param {{from: string, to: string, y: string, names?: Record<string, string>}} of
 * @returns {Drawing}
 */
export function flows(table, { from, to, y, names = {} }) {
  const { places, series } = crossed(table.rows, to, from, y);
  const links = series.flatMap(([name, held]) =>
    [...held]
      .filter(([, one]) => one.value > 0)
      .map(([place, one]) => ({ source: `${name}\u200b`, target: place, value: one.value, href: one.href })),
  );
  const targets = places.filter((place) => links.some((one) => one.target === place));
  const sum = (/** @type {string} */ end, /** @type {"source" | "target"} */ side) =>
    links.filter((one) => one[side] === end).reduce((all, one) => all + one.value, 0);
  const called = (/** @type {string} */ name) => names[name] ?? name.replace("\u200b", "");
  return {
    says: `${table.title}: ${series
      .slice(0, 5)
      .map(([name]) => `${name} ${say.money(sum(`${name}\u200b`, "source"))}`)
      .join("; ")}.`,
    height: (width) => Math.max(280, width < 480 ? 300 : 0, series.length * 34),
    link: (mark) => mark.data.href ?? links.find((one) => one.source === mark.name)?.href,
    option: (width, found) => ({
      tooltip: {
        formatter: (/** @type {any} */ mark) =>
          mark.dataType === "edge"
            ? tip(`${called(mark.data.source)} → ${called(mark.data.target)}`, [["", say.money(mark.data.value)]])
            : tip(called(mark.name), [["", say.money(mark.value)]]),
      },
      series: [
        {
          type: "sankey",
          left: 2,
          right: Math.min(118, width * 0.35),
          top: 8,
          bottom: 8,
          nodeWidth: 10,
          nodeGap: 14,
          draggable: false,
          cursor: "pointer",
          layoutIterations: 0,
          emphasis: { focus: "adjacency" },
          data: [
            ...series
              .map(([name], i) => ({ name: `${name}\u200b`, itemStyle: { color: colourOf(found, i, name) } }))
              .filter((one) => links.some((link) => link.source === one.name)), // what has no price flows nowhere
            ...targets.map((name, i) => ({ name, itemStyle: { color: found.series[(i + 3) % MOST_SERIES] } })),
          ],
          links,
          lineStyle: { color: "source", opacity: 0.28, curveness: 0.5 },
          itemStyle: { borderWidth: 0 },
          label: {
            color: found.text,
            fontSize: 12,
            textBorderColor: found.card,
            textBorderWidth: 3,
            formatter: (/** @type {any} */ mark) => called(mark.name),
          },
        },
      ],
    }),
  };
}
