// @ts-check
// Every page: which tables, drawn how. What they share is in parts.js; what one page does beyond that has its own file.

import { gaps, levels, shares } from "./lines.js";
import { bars, flows, stack } from "./sums.js";
import { waterfall } from "./steps.js";
import { explore, exploreFilters } from "./explore.js";
import { filters } from "./filters.js";
import { follow, live } from "./live.js";
import { chartCard, tableCard } from "./parts.js";
import { pricesFilters, startOf } from "./prices.js";
import { budgetCells } from "./budgets.js";
import { bridge } from "./reconcile.js";
import { savings } from "./savings.js";
import { whyFilters } from "./why.js";

/** @typedef {any} Page the JSON of a page: docs/dashboard.md */
/**
 * @typedef {{lead: string, body: (page: Page, who: any) => any[], filters?: (page: Page) => HTMLElement | null,
 *   live?: (page: Page, main: HTMLElement) => () => void}} Spec
 */

const METER_NAMES = {
  input: "Input",
  output: "Output",
  cache_read: "Cache read",
  cache_write_5m: "Cache write 5m",
  cache_write_1h: "Cache write 1h",
};
const STEP_NAMES = {
  list: "List price",
  endpoint_premium: "Endpoint premium",
  extended_access: "Extended access",
  cache_writes: "Cache writes",
  cache_reads: "Cache reads",
  batch: "Batch",
  long_prompt: "Long prompts",
  fast: "Fast mode",
  contract: "Private offers",
  volume: "Volume tiers",
  shortfall: "Shortfall",
  entries: "Sessions, searches",
  total: "Bill",
};

const HISTORY = { minor: ["platform", "endpoint", "meter"] };

/** @type {Record<string, Spec>} */
export const PAGES = {
  bill: {
    lead: "What it comes to, how that was made, and where the money went.",
    body: (page) => [
      chartCard(page, "daily", stack(page.tables.daily, { x: "day", by: "model", y: "usd" }), {
        under: "At the price in force on each day",
      }),
      half(
        chartCard(
          page,
          "waterfall",
          waterfall(page.tables.waterfall, { label: "label", y: "usd", short: STEP_NAMES }),
          { under: "From list price to what it comes to" },
        ),
      ),
      half(
        chartCard(
          page,
          "flows",
          flows(page.tables.flows, { from: "model", to: "meter", y: "usd", names: METER_NAMES }),
          { under: "Model → kind of token" },
        ),
      ),
      tableCard(page, "teams", { bar: "usd", hide: ["unpriced_calls"], under: "Dearest first" }),
      tableCard(page, "models", { bar: "usd", under: "Dearest first" }),
    ],
  },
  explore: {
    lead: "Grouped and filtered by anything, down to the single call and the rate that made it.",
    filters: exploreFilters,
    body: explore,
  },
  why: {
    lead: "Why the cost moved from one span of days to another: the steps sum to the difference exactly.",
    filters: whyFilters,
    body: (page) => [
      chartCard(page, "steps", waterfall(page.tables.steps, { label: "name", y: "usd" }), {
        under: "Each step is what one cause alone moved, in a fixed order",
      }),
    ],
  },
  reconcile: {
    lead: "Ours against AWS's: every dollar of the difference by its cause.",
    filters: (page) => filters(page, { keys: false }),
    body: (page) => [
      chartCard(page, "sides", waterfall(bridge(page), { label: "label", y: "usd" }), {
        title: "From ours to AWS's",
        under: "Every dollar of the difference by its cause",
      }),
      tableCard(page, "causes", {
        under: "What explains the difference, then what nothing explains yet",
        minor: ["lines", "where"],
      }),
      tableCard(page, "models", {
        bar: "billed_usd",
        minor: ["endpoint", "ours", "billed", "price_usd"],
        under: "Tokens and dollars of both sides; the difference parted into quantity and price",
      }),
      half(tableCard(page, "meters", { hide: ["ours", "billed"], minor: ["price_usd"] })),
      half(tableCard(page, "days", { hide: ["ours", "billed"], limit: 5, minor: ["price_usd"] })),
    ],
  },
  savings: { lead: "The cheapest plan that the owners of workloads allow, with its proof.", body: savings },
  cache: {
    lead: "How much of prompts is read from the cache, how long callers stay away, and what no plan can beat.",
    body: (page) => [
      half(
        chartCard(page, "days", shares(page.tables.days, { x: "day", y: "share" }), {
          under: "Share of prompt tokens that were read from the cache",
        }),
      ),
      half(
        chartCard(page, "gaps", gaps(page.tables.gaps, { from: "from_s", to: "to_s", y: "calls", noun: "calls" }), {
          under: "An entry lives 5 minutes or an hour: what comes later pays for it again",
        }),
      ),
      tableCard(page, "bound", {
        bar: "usd",
        fold: ["notes"],
        minor: ["calls", "replayed_usd", "traced", "notes"],
        under: "No caching of these calls costs less than the bound",
      }),
      tableCard(page, "broken", { under: "Calls that found less in the cache than the call before had left there" }),
    ],
  },
  endpoints: {
    lead: "What each model costs at each endpoint, and what the endpoint adds.",
    body: (page) => [
      chartCard(page, "endpoints", bars(page.tables.endpoints, { x: "model", by: "endpoint", y: "usd" }), {
        title: "Cost by model and endpoint",
        under: "The premium is what a global endpoint would not have cost",
        open: true,
        how: { bar: "usd", limit: 30, minor: ["routing", "calls"] },
      }),
    ],
  },
  batch: {
    lead: "What went as batches, and what the rest would save if it could wait.",
    body: (page) => [
      chartCard(page, "batch", bars(withSaving(page.tables.batch), { x: ["workload", "model"], y: "saved_usd" }), {
        title: "Most to be saved by batches",
        under: "At most: if every call of it could wait",
        open: true,
        how: { bar: "saved_usd", limit: 30, minor: ["calls", "batch_usd"] },
      }),
    ],
  },
  budgets: {
    lead: "What is spent of each budget, what is left and what is to come.",
    filters: (page) => filters(page, { keys: false }),
    body: (page) => [
      tableCard(page, "budgets", {
        limit: 100,
        major: ["percent"],
        minor: ["period", "limit_usd", "left_usd", "forecast_usd", "low_usd", "high_usd"],
        cells: budgetCells,
      }),
    ],
  },
  prices: {
    lead: "The rates in force, how they came to be, where they are from, and what changes soon.",
    filters: pricesFilters,
    body: (page) => [
      half(
        chartCard(
          page,
          "history",
          levels(startOf(page.tables.history, "input"), {
            x: "starts",
            by: "model",
            y: "usd_per_million",
            today: page.generated_at,
          }),
          { title: "Input, $ per million tokens", under: "At the endpoint with the lowest rate", how: HISTORY },
        ),
      ),
      half(
        chartCard(
          page,
          "history",
          levels(startOf(page.tables.history, "output"), {
            x: "starts",
            by: "model",
            y: "usd_per_million",
            today: page.generated_at,
          }),
          { title: "Output, $ per million tokens", under: "At the endpoint with the lowest rate", how: HISTORY },
        ),
      ),
      tableCard(page, "ahead", { under: "Of models in use", minor: ["calls", "usd"] }),
      tableCard(page, "now", {
        limit: 20,
        hide: ["zone"],
        major: ["input", "output"],
        minor: ["starts", "above"],
      }),
      tableCard(page, "sources", { major: ["source"], minor: ["accessed"] }),
    ],
  },
  live: {
    lead: "Calls as they are made, priced as they come.",
    filters: (page) => filters(page, { days: false }),
    body: live,
    live: follow,
  },
};

/** @param {HTMLElement} made */
function half(made) {
  made.classList.add("half");
  return made;
}

/** @param {any} table */
function withSaving(table) {
  return { ...table, rows: table.rows.filter((/** @type {any} */ row) => Number(row.saved_usd) > 0) };
}
