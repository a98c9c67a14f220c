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

export const MOST_SERIES = 7;
export const OTHERS = "all others";
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
    legend.replaceChildren(
      ...drawing.keys.map((name, i) =>
        h(
          "li",
          {},
          h(
            "button",
            {
              type: "button",
              class: "key",
              "aria-pressed": String(!hidden.has(name)),
              title: `show or hide ${name}`,
              onclick: () => {
                if (!hidden.delete(name)) hidden.add(name);
                draw();
                /** @type {HTMLElement} */ (legend.children[i].firstElementChild).focus();
              },
            },
            h("i", { style: { background: colourOf(found, i, name) }, "aria-hidden": "true" }),
            name,
          ),
        ),
      ),
    );
  };

  const watch = new ResizeObserver(() => draw());
  watch.observe(plot);
  drawn.add({
    draw,
    end: () => {
      watch.disconnect();
      chart?.dispose();
    },
  });
  return h(
    "figure",
    {},
    drawing.keys && drawing.keys.length > 1 ? legend : null,
    plot,
    drawing.note ? h("figcaption", { class: "dim" }, drawing.note) : null,
  );
}

/** @param {Colours} found @param {number} i @param {string} name */
export function colourOf(found, i, name) {
  return name === OTHERS ? found.series[MOST_SERIES] : found.series[i % MOST_SERIES];
}

/** What all charts share. @param {any} option @param {Colours} found */
function framed(option, found) {
  return {
    animation: !still(),
    animationDuration: 350,
    animationDurationUpdate: 200,
    textStyle: { fontFamily: "Inter, system-ui, sans-serif", fontSize: 12, color: found.text },
    grid: { left: 4, right: 12, top: 16, bottom: 4, containLabel: true },
    ...option,
    tooltip: {
      confine: true,
      className: "tip",
      backgroundColor: found.card,
      borderColor: found.line,
      padding: 0,
      textStyle: { color: found.text, fontSize: 12 },
      transitionDuration: 0,
      ...option.tooltip,
    },
  };
}

/** @param {Colours} found @param {Record<string, any>} [more] */
export function valueAxis(found, more = {}) {
  return {
    type: "value",
    axisLine: { show: false },
    axisTick: { show: false },
    axisLabel: {
      color: found.muted,
      hideOverlap: true,
      showMinLabel: !more.min, // which stands where it falls, and is said below the chart
      formatter: (/** @type {number} */ v) => say.moneyShort(v),
    },
    splitLine: { lineStyle: { color: found.line, type: "dashed" } },
    ...more,
  };
}

/** @param {Colours} found @param {any} data */
export function nameAxis(found, data, more = {}) {
  return {
    type: "category",
    data,
    axisTick: { show: false },
    axisLine: { lineStyle: { color: found.line } },
    axisLabel: { color: found.muted, hideOverlap: true },
    ...more,
  };
}

/** What a pointer sees: a heading and a value by each name. @param {string} title @param {[string, string, string?][]} lines */
export function tip(title, lines) {
  return h(
    "div",
    { class: "tip-in" },
    h("b", {}, title),
    ...lines.map(([name, value, colour]) =>
      h(
        "div",
        {},
        h("span", {}, colour ? h("i", { style: { background: colour } }) : null, name),
        h("span", { class: "n" }, value),
      ),
    ),
  );
}

/**
 * Sums of `y` by two columns, the dearest series first and those beyond the legend as one.
 * @param {Record<string, any>[]} rows @param {string} x @param {string} by @param {string} y
 */
export function crossed(rows, x, by, y) {
  /** @type {Map<string, Map<string, {value: number, href?: string}>>} */
  const series = new Map();
  const places = [...new Set(rows.map((row) => String(row[x])))];
  for (const row of rows) {
    const name = by ? String(row[by] ?? say.UNKNOWN) : y;
    const held = series.get(name) ?? series.set(name, new Map()).get(name);
    const before = held?.get(String(row[x]));
    held?.set(String(row[x]), {
      value: (before?.value ?? 0) + (say.number(row[y]) || 0),
      href: before ? undefined : row._rows,
    });
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
