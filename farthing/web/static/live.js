// @ts-check
// Live: calls appear as the gateway posts them. The stream goes on where it broke off.

import { figure, redraw } from "./charts.js";
import { pulse } from "./lines.js";
import { h } from "./dom.js";
import * as say from "./format.js";
import { card, tableCard } from "./parts.js";
import { query } from "./state.js";

const MOST = 50; // rows on the page
const MINUTES = 30;
const MINUTE_MS = 60_000;

/** @type {import("./table.js").How} */
const SHOWN = { limit: MOST, minor: ["id", "endpoint", "team", "status", "latency_ms"] };

/** @param {any} page */
export function live(page) {
  const told = h(
    "div",
    { class: "livebar" },
    h("p", { id: "live-state" }, h("i", { class: "dot", "aria-hidden": "true" }), h("span", {}, "connecting …")),
    h("p", { class: "dim", id: "live-sum" }, "nothing since this page was opened"),
    h("button", { type: "button", class: "quiet", id: "live-pause", "aria-pressed": "false" }, "Pause"),
  );
  const chart = card(
    "Cost by minute",
    `The last ${MINUTES} minutes, as far as this page has seen`,
    h("div", { id: "live-chart" }),
  );
  return [told, chart, tableCard(page, "recent", SHOWN)];
}

/** Follow the stream until the page is left. @param {any} page @param {HTMLElement} main @returns {() => void} */
export function follow(page, main) {
  if (page.missing) return () => undefined;
  const seen = { calls: 0, usd: 0, unpriced: 0, paused: false };
  const rows = [...page.tables.recent.rows];
  const points = slots(page);
  const state = main.querySelector("#live-state");
  const chart = figure(pulse(points, "Cost"));
  main.querySelector("#live-chart")?.append(chart);
  const asked = query();
  if (page.place) asked.set("place", page.place);
  const stream = new EventSource(`/live/events?${asked}`);
  let waiting = 0;

  const said = (/** @type {string} */ tone, /** @type {string} */ text) => {
    state?.querySelector("i")?.setAttribute("class", `dot ${tone}`);
    const words = state?.querySelector("span");
    if (words) words.textContent = text;
  };
  const paint = () => {
    waiting = 0;
    const sum = main.querySelector("#live-sum");
    if (sum)
      sum.textContent = `${say.whole(seen.calls)} calls, ${say.money(seen.usd)} since this page was opened${seen.unpriced ? `, ${seen.unpriced} without a price` : ""}`;
    if (seen.paused) return;
    const old = [...main.querySelectorAll("section.card")].at(-1);
    const table = { ...page.tables.recent, rows: rows.slice(0, MOST) };
    const fresh = tableCard({ ...page, tables: { recent: table } }, "recent", SHOWN);
    if (!old?.contains(document.activeElement)) old?.replaceWith(fresh); // nobody loses the place they are at
    redraw();
  };
  stream.addEventListener("open", () => said("good beat", "following"));
  stream.addEventListener("error", () =>
    said(
      "warn",
      stream.readyState === EventSource.CLOSED
        ? "the stream ended: load the page again"
        : "the stream broke off: trying again",
    ),
  );
  stream.addEventListener("call", (event) => {
    const row = JSON.parse(event.data);
    rows.unshift(row);
    rows.length = Math.min(rows.length, MOST);
    seen.calls += 1;
    if (row.usd === null) seen.unpriced += 1;
    else seen.usd += say.number(row.usd);
    put(points, Date.parse(row.at) || Date.now(), say.number(row.usd) || 0, page.tz);
    waiting ||= setTimeout(paint, 250);
  });
  main.querySelector("#live-pause")?.addEventListener("click", (event) => {
    seen.paused = !seen.paused;
    const button = /** @type {HTMLElement} */ (event.target);
    button.setAttribute("aria-pressed", String(seen.paused));
    button.textContent = seen.paused ? "Go on" : "Pause";
    if (!seen.paused) paint();
  });
  return () => {
    clearTimeout(waiting);
    stream.close();
  };
}

/** @param {any} page */
function slots(page) {
  const now = Math.floor(Date.now() / MINUTE_MS);
  const points = Array.from({ length: MINUTES }, (_, i) => point((now - MINUTES + 1 + i) * MINUTE_MS, page.tz));
  for (const row of page.tables.recent.rows) put(points, Date.parse(row.at), say.number(row.usd) || 0, page.tz);
  return points;
}

/** @param {number} at @param {string} tz */
function point(at, tz) {
  return {
    at: new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", timeZone: tz || "UTC" }).format(at),
    value: 0,
    slot: Math.floor(at / MINUTE_MS),
  };
}

/** @param {any[]} points @param {number} at @param {number} value @param {string} tz */
function put(points, at, value, tz) {
  const slot = Math.floor(at / MINUTE_MS);
  while (points[points.length - 1].slot < slot && slot - points[points.length - 1].slot <= MINUTES) {
    points.push(point((points[points.length - 1].slot + 1) * MINUTE_MS, tz));
    points.shift();
  }
  const found = points.find((one) => one.slot === slot);
  if (found) found.value += value;
}
