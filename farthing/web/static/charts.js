// @ts-check
// Charts: from a table of the page to a drawing. Each is an image with a sentence for those who do not see it; its numbers
// stand in a table beside it, so nothing is told by the drawing alone.

import { init } from "./vendor/echarts.js";
import { h } from "./dom.js";
import * as say from "./format.js";
import { go } from "./state.js";

/** @typedef {{title: string, columns: say.Column[], rows: Record<string, any>[], total: Record<string, any>, empty: string}} Table */
/** @typedef {{series: string[], text: string, muted: string, line: string, card: string, up: string, down: string, accent: string}} Colours */
/** @typedef {{name: string, colour: string}} Key */
/**
 * How to draw: `option` for a width and colours, the names of the legend, the sentence, and the link behind each mark.
 * @typedef {{option: (width: number, colours: Colours, hidden: Set<string>) => any, keys?: string[], says: string,
 *   note?: string, link?: (mark: any) => string | undefined, height?: number | ((width: number) => number)}} Drawing
 */

const MOST_SERIES = 7;
const OTHERS = "all others";
const NAMES = ["series", "text", "muted", "line", "card", "up", "down", "accent"];

/** @type {Set<{draw: () => void, end: () => void}>} */
const drawn = new Set();

/** Those of the page before are let go. */
export function clear() {
  for (const chart of drawn) chart.end();
  drawn.clear();
}

/** Colours come from the style sheet: after a change of theme all is drawn anew. */
export function redraw() {
  for (const chart of drawn) chart.draw();
}

/** @returns {Colours} */
function colours() {
  const probe = document.body.appendChild(h("span", { hidden: true }));
  /** @param {string} name */
  const read = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const series = Array.from({ length: MOST_SERIES + 1 }, (_, i) => read(`series-${i + 1}`));
  const rest = Object.fromEntries(NAMES.slice(1).map((name) => [name, read(name)]));
  probe.remove();
  return /** @type {Colours} */ ({ series, ...rest });
}

function still() {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

/**
 * The figure of a drawing.
 * @param {Drawing} drawing
 */
export function figure(drawing) {
  const plot = h("div", { class: "plot", role: "img", "aria-label": drawing.says });
  const legend = h("ul", { class: "legend" });
  const hidden = /** @type {Set<string>} */ (new Set());
  /** @type {any} */
  let chart = null;

  const draw = () => {
    const width = plot.clientWidth;
    if (!width) return;
    const tall = typeof drawing.height === "function" ? drawing.height(width) : (drawing.height ?? 280);
    plot.style.height = `${tall}px`;
    if (!chart) {
      chart = init(plot, null, { renderer: "svg" });
      chart.on("click", (/** @type {any} */ mark) => {
        const href = drawing.link?.(mark);
        if (href) go(href);
      });
    }
    chart.resize();
    const found = colours();
    chart.setOption(framed(drawing.option(width, found, hidden), found), { notMerge: true });
    paintLegend(found);
  };

  const paintLegend = (/** @type {Colours} */ found) => {
    if (!drawing.keys || drawing.keys.length < 2) return;
    legend.replaceChildren(...drawing.keys.map((name, i) => h("li", {}, h("button", {
      type: "button", class: "key", "aria-pressed": String(!hidden.has(name)), title: `show or hide ${name}`,
      onclick: () => {
        if (!hidden.delete(name)) hidden.add(name);
        draw();
        /** @type {HTMLElement} */ (legend.children[i].firstElementChild).focus();
      },
    }, h("i", { style: { background: colourOf(found, i, name) }, "aria-hidden": "true" }), name))));
  };

  const watch = new ResizeObserver(() => draw());
  watch.observe(plot);
  drawn.add({ draw, end: () => { watch.disconnect(); chart?.dispose(); } });
  return h("figure", {}, drawing.keys && drawing.keys.length > 1 ? legend : null, plot, drawing.note ? h("figcaption", { class: "dim" }, drawing.note) : null);
}

/** @param {Colours} found @param {number} i @param {string} name */
function colourOf(found, i, name) {
  return name === OTHERS ? found.series[MOST_SERIES] : found.series[i % MOST_SERIES];
}

/** What all charts share. @param {any} option @param {Colours} found */
function framed(option, found) {
  return {
    animation: !still(), animationDuration: 350, animationDurationUpdate: 200,
    textStyle: { fontFamily: "Inter, system-ui, sans-serif", fontSize: 12, color: found.text },
    grid: { left: 4, right: 12, top: 16, bottom: 4, containLabel: true },
    ...option,
    tooltip: {
      confine: true, className: "tip", backgroundColor: found.card, borderColor: found.line, padding: 0,
      textStyle: { color: found.text, fontSize: 12 }, transitionDuration: 0, ...option.tooltip,
    },
  };
}

/** @param {Colours} found */
function valueAxis(found, more = {}) {
  return {
    type: "value", axisLine: { show: false }, axisLabel: { color: found.muted, hideOverlap: true, formatter: (/** @type {number} */ v) => say.moneyShort(v) },
    splitLine: { lineStyle: { color: found.line, type: "dashed" } }, ...more,
  };
}

/** @param {Colours} found @param {any} data */
function nameAxis(found, data, more = {}) {
  return {
    type: "category", data, axisTick: { show: false }, axisLine: { lineStyle: { color: found.line } },
    axisLabel: { color: found.muted, hideOverlap: true }, ...more,
  };
}

/** What a pointer sees: a heading and a value by each name. @param {string} title @param {[string, string, string?][]} lines */
function tip(title, lines) {
  return h("div", { class: "tip-in" }, h("b", {}, title), ...lines.map(([name, value, colour]) => h("div", {},
    h("span", {}, colour ? h("i", { style: { background: colour } }) : null, name), h("span", { class: "n" }, value))));
}

// --- many values by day, or by any name -------------------------------------------------------------------------------

/**
 * Sums of `y` by two columns, the dearest series first and those beyond the legend as one.
 * @param {Record<string, any>[]} rows @param {string} x @param {string} by @param {string} y
 */
function crossed(rows, x, by, y) {
  /** @type {Map<string, Map<string, {value: number, href?: string}>>} */
  const series = new Map();
  const places = [...new Set(rows.map((row) => String(row[x])))];
  for (const row of rows) {
    const name = by ? String(row[by] ?? say.UNKNOWN) : y;
    const held = series.get(name) ?? series.set(name, new Map()).get(name);
    const before = held?.get(String(row[x]));
    held?.set(String(row[x]), { value: (before?.value ?? 0) + (say.number(row[y]) || 0), href: before ? undefined : row._rows });
  }
  /** @param {Map<string, {value: number}>} held */
  const total = (held) => [...held.values()].reduce((sum, one) => sum + one.value, 0);
  const sorted = [...series].sort(([, a], [, b]) => total(b) - total(a));
  if (sorted.length > MOST_SERIES + 1) {
    const rest = /** @type {Map<string, {value: number}>} */ (new Map());
    for (const [, held] of sorted.splice(MOST_SERIES)) {
      for (const [place, one] of held) rest.set(place, { value: (rest.get(place)?.value ?? 0) + one.value });
    }
    sorted.push([OTHERS, rest]);
  }
  return { places, series: sorted };
}

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
      xAxis: nameAxis(found, days, { boundaryGap: bars, axisLabel: { color: found.muted, hideOverlap: true, formatter: (/** @type {string} */ d) => say.day(d, false) } }),
      yAxis: valueAxis(found),
      tooltip: {
        trigger: "axis", axisPointer: { type: bars ? "shadow" : "line" },
        formatter: (/** @type {any[]} */ marks) => tip(say.day(days[marks[0].dataIndex]), [
          ["all", say.money(marks.reduce((sum, mark) => sum + mark.value, 0))],
          ...marks.filter((mark) => mark.value).reverse().map((mark) => /** @type {[string, string, string]} */ ([mark.seriesName, say.money(mark.value), mark.color])),
        ]),
      },
      series: series.map(([name, held], i) => ({
        name, type: bars ? "bar" : "line", stack: "all", color: colourOf(found, i, name), symbol: "none", cursor: "pointer",
        barCategoryGap: days.length > 40 ? "12%" : "22%", lineStyle: { width: 0 }, areaStyle: bars ? undefined : { opacity: 0.85 },
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
  return Array.from({ length: (ends[1] - ends[0]) / step + 1 }, (_, i) => new Date(ends[0] + i * step).toISOString().slice(0, 10));
}

/**
 * Names down the side, money to the right, parted by a second column if there is one.
 * @param {Table} table @param {{x: string | string[], by?: string, y: string, most?: number}} of
 * @returns {Drawing}
 */
export function bars(table, { x, by = "", y, most = 15 }) {
  const known = table.rows.filter((row) => !Number.isNaN(say.number(row[y])));
  const named = known.map((row) => ({ ...row, "": [x].flat().map((key) => row[key] ?? say.UNKNOWN).join(" · ") }));
  const { places, series } = crossed(named, "", by, y);
  const sums = places.map((place) => ({ place, sum: series.reduce((sum, [, held]) => sum + (held.get(place)?.value ?? 0), 0) }));
  const shown = sums.sort((a, b) => b.sum - a.sum).slice(0, most).map(({ place }) => place).reverse();
  const largest = sums[0];
  return {
    keys: by ? series.map(([name]) => name) : undefined,
    note: unseen(table.rows.length - known.length),
    says: `${table.title}: ${largest ? `most is ${largest.place}, ${say.money(largest.sum)}` : "nothing"}.`,
    height: Math.max(120, shown.length * 30 + 40),
    link: (mark) => series[mark.seriesIndex]?.[1].get(shown[mark.dataIndex])?.href,
    option: (width, found, hidden) => ({
      grid: { left: 4, right: 70, top: 4, bottom: 4, containLabel: true },
      yAxis: nameAxis(found, shown, { axisLabel: { color: found.text, width: Math.min(240, width * 0.38), overflow: "truncate" } }),
      xAxis: valueAxis(found, { splitNumber: 4 }),
      tooltip: {
        trigger: "axis", axisPointer: { type: "shadow" },
        formatter: (/** @type {any[]} */ marks) => tip(shown[marks[0].dataIndex], marks.filter((mark) => mark.value).map((mark) => [by ? mark.seriesName : "cost", say.money(mark.value), mark.color])),
      },
      series: series.map(([name, held], i) => ({
        name, type: "bar", stack: "all", barMaxWidth: 16, cursor: "pointer", color: by ? colourOf(found, i, name) : found.accent,
        data: hidden.has(name) ? [] : shown.map((place) => held.get(place)?.value ?? 0),
        itemStyle: { borderRadius: by ? 0 : 3 },
        label: by ? undefined : { show: true, position: "right", color: found.text, formatter: (/** @type {any} */ mark) => say.money(mark.value, { whole: true }) },
      })),
    }),
  };
}

/** What has no price has no bar: unknown is not nothing. @param {number} rows */
function unseen(rows) {
  return rows ? `${rows} without a price ${rows === 1 ? "is" : "are"} not drawn; the table has ${rows === 1 ? "it" : "them"}.` : undefined;
}

// --- steps from one amount to another -----------------------------------------------------------------------------------

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
    return { name: short[row[key]] ?? say.spans(row[label]), full: say.spans(row[label]), value, from, to: at, ends, href: row._rows };
  });
  const begins = ground(steps);
  return {
    note: begins ? `The axis begins at ${say.money(begins, { whole: true })}, so that the steps can be seen.` : undefined,
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
  const names = nameAxis(found, steps.map((step) => step.name), up
    ? { axisLabel: { color: found.text, interval: 0, width: Math.max(60, width / steps.length - 14), overflow: "break", lineHeight: 15 } }
    : { inverse: true, axisLabel: { color: found.text, width: width * 0.36, overflow: "break", lineHeight: 14 } });
  const values = valueAxis(found, { min: begins, ...(up ? {} : { splitNumber: 3 }) });
  return {
    grid: { left: 4, right: up ? 8 : 74, top: 22, bottom: 4, containLabel: true },
    xAxis: up ? names : values,
    yAxis: up ? values : names,
    tooltip: { formatter: (/** @type {any} */ mark) => tip(steps[mark.dataIndex].full, [["", say.money(steps[mark.dataIndex].value, { sign: !steps[mark.dataIndex].ends })]]) },
    series: [{
      type: "custom", cursor: "pointer", data: steps.map((step, i) => [i, Math.max(step.from, begins), step.to]),
      encode: up ? { x: 0, y: [1, 2] } : { y: 0, x: [1, 2] },
      renderItem: (/** @type {any} */ _, /** @type {any} */ api) => fallenStep(steps, api, up, found, begins),
    }],
  };
}

/** One block of a waterfall, its amount, and the line to the next. */
function fallenStep(/** @type {any[]} */ steps, /** @type {any} */ api, /** @type {boolean} */ up, /** @type {Colours} */ found, /** @type {number} */ begins) {
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
  const said = { text: say.money(step.value, { sign: !step.ends, whole: true }), fill: found.text, fontSize: 12, fontFamily: "Inter, system-ui, sans-serif" };
  const words = up
    ? { ...said, x: a[0], y: low - 5, align: "center", verticalAlign: "bottom" }
    : { ...said, x: low + long + 6, y: a[1], align: "left", verticalAlign: "middle" };
  const next = up
    ? { x1: b[0] + thick / 2, y1: b[1], x2: b[0] + band - thick / 2, y2: b[1] }
    : { x1: b[0], y1: b[1] + thick / 2, x2: b[0], y2: b[1] + band - thick / 2 };
  return {
    type: "group",
    children: [
      ...(i < steps.length - 1 ? [{ type: "line", shape: next, style: { stroke: found.muted, lineWidth: 1, lineDash: [2, 3] }, silent: true }] : []),
      { type: "rect", shape, style: { fill } },
      { type: "text", style: words },
    ],
  };
}

// --- where it went -----------------------------------------------------------------------------------------------------

/**
 * From one column to another, as wide as the money.
 * @param {Table} table @param {{from: string, to: string, y: string, names?: Record<string, string>}} of
 * @returns {Drawing}
 */
export function flows(table, { from, to, y, names = {} }) {
  const { places, series } = crossed(table.rows, to, from, y);
  const links = series.flatMap(([name, held]) => [...held].filter(([, one]) => one.value > 0)
    .map(([place, one]) => ({ source: `${name}\u200b`, target: place, value: one.value, href: one.href })));
  const targets = places.filter((place) => links.some((one) => one.target === place));
  const sum = (/** @type {string} */ end, /** @type {"source" | "target"} */ side) =>
    links.filter((one) => one[side] === end).reduce((all, one) => all + one.value, 0);
  const called = (/** @type {string} */ name) => names[name] ?? name.replace("\u200b", "");
  return {
    says: `${table.title}: ${series.slice(0, 5).map(([name]) => `${name} ${say.money(sum(`${name}\u200b`, "source"))}`).join("; ")}.`,
    height: (width) => Math.max(280, width < 480 ? 300 : 0, series.length * 34),
    link: (mark) => mark.data.href ?? links.find((one) => one.source === mark.name)?.href,
    option: (width, found) => ({
      tooltip: {
        formatter: (/** @type {any} */ mark) => mark.dataType === "edge"
          ? tip(`${called(mark.data.source)} → ${called(mark.data.target)}`, [["", say.money(mark.data.value)]])
          : tip(called(mark.name), [["", say.money(mark.value)]]),
      },
      series: [{
        type: "sankey", left: 2, right: Math.min(118, width * 0.35), top: 8, bottom: 8, nodeWidth: 10, nodeGap: 14, draggable: false, cursor: "pointer",
        layoutIterations: 0, emphasis: { focus: "adjacency" },
        data: [
          ...series.map(([name], i) => ({ name: `${name}\u200b`, itemStyle: { color: colourOf(found, i, name) } })),
          ...targets.map((name, i) => ({ name, itemStyle: { color: found.series[(i + 3) % MOST_SERIES] } })),
        ],
        links,
        lineStyle: { color: "source", opacity: 0.28, curveness: 0.5 }, itemStyle: { borderWidth: 0 },
        label: {
          color: found.text, fontSize: 12, textBorderColor: found.card, textBorderWidth: 3,
          formatter: (/** @type {any} */ mark) => called(mark.name),
        },
      }],
    }),
  };
}

// --- lines ---------------------------------------------------------------------------------------------------------------

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
      xAxis: nameAxis(found, points.map((point) => point.value[0]), { boundaryGap: false, axisLabel: { color: found.muted, hideOverlap: true, formatter: (/** @type {string} */ d) => say.day(d, false) } }),
      yAxis: valueAxis(found, { min: 0, max: 100, axisLabel: { color: found.muted, formatter: "{value} %" } }),
      tooltip: { trigger: "axis", formatter: (/** @type {any[]} */ marks) => tip(say.day(marks[0].axisValue), [["", `${Number(marks[0].value[1]).toFixed(1)} %`]]) },
      series: [{ type: "line", data: points, symbol: points.length > 1 ? "none" : "circle", cursor: "pointer", color: found.series[1], lineStyle: { width: 2 }, areaStyle: { opacity: 0.14 } }],
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
      xAxis: { type: "time", axisLine: { lineStyle: { color: found.line } }, axisLabel: { color: found.muted, hideOverlap: true } },
      yAxis: valueAxis(found, { min: 0 }),
      tooltip: {
        trigger: "axis",
        formatter: (/** @type {any[]} */ marks) => tip(say.day(new Date(marks[0].axisValue).toISOString()), marks.map((mark) => [mark.seriesName, `$${mark.value[1]}`, mark.color])),
      },
      series: keys.map((name, i) => ({
        name, type: "line", step: "end", symbolSize: 6, color: colourOf(found, i, name), lineStyle: { width: 2 },
        data: hidden.has(name) ? [] : [...(series.get(name) ?? []), { value: [today, series.get(name)?.at(-1)?.[1]], symbol: "none" }],
      })),
    }),
  };
}

// --- gaps ----------------------------------------------------------------------------------------------------------------

const TTLS = [[300, "5 min"], [3600, "1 h"]];
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
    return { starts, ends: Number.isNaN(ends) ? starts * 4 : Math.max(ends, starts * 1.05), open: Number.isNaN(ends), value: say.number(row[y]) || 0, href: row._rows };
  });
  const within = (/** @type {number} */ limit) => bins.filter((bin) => bin.ends <= limit).reduce((sum, bin) => sum + bin.value, 0);
  const all = within(Infinity) || 1;
  return {
    says: `${table.title}: ${say.share(within(300) / all)} within 5 minutes, ${say.share(within(3600) / all)} within an hour.`,
    link: (mark) => bins[mark.dataIndex]?.href,
    height: 260,
    option: (width, found) => ({
      grid: { left: 4, right: 16, top: 30, bottom: 4, containLabel: true },
      xAxis: {
        type: "value", min: Math.min(...bins.map((bin) => at(bin.starts)), 0), max: Math.max(...bins.map((bin) => at(bin.ends)), at(7200)),
        axisLine: { lineStyle: { color: found.line } }, splitLine: { show: false },
        axisTick: { customValues: MARKS_S.map(at), lineStyle: { color: found.line } },
        axisLabel: { color: found.muted, hideOverlap: true, customValues: MARKS_S.map(at), formatter: (/** @type {number} */ v) => say.seconds(Math.round(10 ** v)) },
      },
      yAxis: valueAxis(found, { axisLabel: { color: found.muted, formatter: (/** @type {number} */ v) => say.count(v) } }),
      tooltip: {
        formatter: (/** @type {any} */ mark) => {
          const bin = bins[mark.dataIndex];
          return bin && tip(bin.open ? `over ${say.seconds(bin.starts)}` : `${say.seconds(bin.starts)} to ${say.seconds(bin.ends)}`, [[noun, say.whole(bin.value)]]);
        },
      },
      series: [{
        type: "custom", cursor: "pointer", data: bins.map((bin, i) => [i, at(bin.starts), at(bin.ends), bin.value]), encode: { x: [1, 2], y: 3 },
        renderItem: (/** @type {any} */ _, /** @type {any} */ api) => {
          const bin = bins[api.value(0)];
          const [x0, top] = api.coord([at(bin.starts), bin.value]);
          const [x1, ground] = api.coord([at(bin.ends), 0]);
          const fill = bin.ends <= 300 ? found.down : bin.ends <= 3600 ? found.series[4] : found.up;
          return { type: "rect", shape: { x: x0 + 0.5, y: top, width: Math.max(x1 - x0 - 1, 1), height: ground - top, r: [2, 2, 0, 0] }, style: { fill } };
        },
        markLine: {
          silent: true, symbol: "none", lineStyle: { color: found.text, type: "dashed" },
          data: TTLS.map(([life, name]) => ({ xAxis: at(Number(life)), label: { formatter: String(name), color: found.text, position: "end" } })),
        },
      }],
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
      xAxis: nameAxis(found, points.map((point) => point.at)),
      yAxis: valueAxis(found, { splitNumber: 3 }),
      tooltip: { trigger: "axis", axisPointer: { type: "shadow" }, formatter: (/** @type {any[]} */ marks) => tip(marks[0].axisValue, [["", say.money(marks[0].value)]]) },
      series: [{ type: "bar", data: points.map((point) => point.value), color: found.accent, itemStyle: { borderRadius: [2, 2, 0, 0] } }],
    }),
  };
}
