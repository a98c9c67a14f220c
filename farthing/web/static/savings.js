// @ts-check
// Savings: the plan lever by lever, each advice with its proof, and the buttons that put it in force and take it back.

import { waterfall } from "./steps.js";
import { coded, h, say as tell } from "./dom.js";
import { labelled } from "./filters.js";
import * as say from "./format.js";
import { card, chartCard, tableCard } from "./parts.js";
import { capital } from "./table.js";

const LEVERS = {
  model: "Model",
  batch: "Batch",
  cache: "Caching",
  caching: "Caching",
  endpoint: "Endpoint",
  channel: "Batch",
  schedule: "Order",
  content: "Content",
};
const DAYS = 90; // an applied advice ends by itself, unless it is said otherwise
const FIRST = 8;

/** @param {any} page @param {any} who */
export function savings(page, who) {
  const steps = page.tables.waterfall;
  return [
    half(
      chartCard(page, "waterfall", waterfall(steps, { label: "label", y: "usd", short: LEVERS, key: "lever" }), {
        under: "What each lever saves, one after the other, of what is allowed and proved",
      }),
    ),
    half(page.tables.rules ? tableCard(page, "rules", { hide: ["note"], minor: ["says"] }) : null),
    adviceCard(page, who),
    half(page.tables.policy ? policyCard(page, who) : null), // the policy is of all teams
    half(page.tables.versions ? versionsCard(page, who) : null),
  ];
}

/** @param {HTMLElement | null} made */
function half(made) {
  made?.classList.add("half");
  return made;
}

// --- advice ---

/** @param {any} page @param {any} who */
function adviceCard(page, who) {
  const rows = page.tables.advice.rows;
  const ready = rows.filter((/** @type {any} */ row) => row.counts);
  const wanting = rows.filter((/** @type {any} */ row) => !row.counts);
  const button = h("button", { type: "button", class: "main", id: "advice-apply", disabled: true }, "Apply");
  const chosen = () =>
    [...document.querySelectorAll("input[name=advice]:checked")].map(
      (box) => /** @type {HTMLInputElement} */ (box).value,
    );
  const sum = () => {
    const names = chosen();
    const worth = ready
      .filter((/** @type {any} */ row) => names.includes(row.name))
      .reduce((/** @type {number} */ all, /** @type {any} */ row) => all + (say.number(row.saved_usd) || 0), 0);
    button.toggleAttribute("disabled", !names.length);
    button.textContent = names.length ? `Apply ${names.length}, about ${say.money(worth)} in these days` : "Apply";
  };
  button.addEventListener("click", () => confirm(page, who, chosen()));
  /** @type {Map<string, string>} */
  const held = new Map(
    (page.tables.policy?.rows ?? [])
      .filter((/** @type {any} */ row) => /^(in|begins) /.test(row.now))
      .map((/** @type {any} */ row) => [row.name, row.now]),
  );
  const listed = (/** @type {any[]} */ some) =>
    h("ul", { class: "advice" }, ...some.map((row) => advice(row, who, held.get(row.name) ?? "", sum)));
  return card(
    page.tables.advice.title,
    rows.length ? "What owners allow and evidence shows can be applied here; the rest says what is missing" : null,
    rows.length ? null : h("p", { class: "empty" }, "Nothing to advise on this usage."),
    ready.length
      ? [listed(ready), who.may_apply ? h("p", {}, button) : h("p", { class: "dim" }, "An admin can apply these.")]
      : rows.length
        ? h(
            "p",
            { class: "empty" },
            "Nothing can be applied yet: say in farthing.toml what may be done to each workload, or settle what is named below.",
          )
        : null,
    wanting.length ? [h("h3", {}, "Not yet"), folded(wanting, listed)] : null,
  );
}

/** @param {any[]} rows @param {(rows: any[]) => HTMLElement} listed */
function folded(rows, listed) {
  if (rows.length <= FIRST + 2) return listed(rows);
  const place = h("div", {}, listed(rows.slice(0, FIRST)));
  place.append(
    h(
      "p",
      { class: "under" },
      h(
        "button",
        {
          type: "button",
          class: "quiet",
          onclick: () => {
            place.replaceChildren(listed(rows));
            /** @type {HTMLElement | null} */ (place.querySelectorAll("li a")[FIRST])?.focus();
          },
        },
        `Show all ${rows.length}`,
      ),
    ),
  );
  return place;
}

/** @param {any} row @param {any} who @param {string} now what the policy does with it @param {() => void} changed */
function advice(row, who, now, changed) {
  const box =
    row.counts && who.may_apply && !now
      ? h("input", { type: "checkbox", name: "advice", value: row.name, onchange: changed })
      : null;
  const title = h("b", {}, sentence(row.says));
  return h(
    "li",
    { class: row.counts ? "" : "off" },
    h(
      "div",
      { class: "what" },
      box ? h("label", {}, box, title) : title,
      h(
        "p",
        { class: "dim" },
        now ? h("span", { class: "badge" }, capital(now)) : null,
        h("span", { class: "badge" }, /** @type {any} */ (LEVERS)[row.lever] ?? row.lever),
        h("a", { href: row._rows ?? page_rows(row) }, row.workload),
        ` on ${row.model}`,
      ),
      row.counts ? null : h("p", { class: "whynot" }, ...coded(sentence(row.why_not || "not proved yet"))),
      proof(row),
    ),
    h(
      "div",
      { class: "worth" },
      h("b", { class: row.counts ? "down" : "" }, row.saved_usd === null ? "not known" : say.money(row.saved_usd)),
      row.saved_usd !== null && say.money(row.low_usd) !== say.money(row.high_usd)
        ? h("span", { class: "dim" }, `${say.money(row.low_usd)} to ${say.money(row.high_usd)}`)
        : null,
    ),
  );
}

/** @param {any} row */
function page_rows(row) {
  return `/explore?where=${encodeURIComponent(`workload=${row.workload}`)}`;
}

/** What an advice rests on: billed, replayed, advised, bound, and how it came out. @param {any} row */
function proof(row) {
  const lines = /** @type {[string, any][]} */ ([
    ["Billed", row.billed_usd],
    ["Replay of today", row.replayed_usd],
    ["As advised", row.advised_usd],
    ["Bound: no plan is below", row.bound_usd],
  ]).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const words = /** @type {[string, any][]} */ ([
    ["Calibration", row.calibration && `${row.calibration}: replay against bill`],
    ["Exact", row.exact === undefined ? "" : row.exact ? "yes" : "no: a range"],
    ["Evidence", row.evidence],
    ["Risk", row.risk],
    ["Before", row.before],
    ["After", row.after],
    ["Change", row.change],
  ]).filter(([, value]) => value);
  if (!lines.length && !words.length) return null;
  return h(
    "details",
    { class: "numbers" },
    h("summary", {}, "Its proof"),
    h(
      "dl",
      { class: "proof" },
      ...lines.map(([name, value]) => [h("dt", {}, name), h("dd", { class: "n" }, say.money(value))]).flat(),
      ...words
        .map(([name, value]) => [
          h("dt", {}, name),
          h("dd", {}, typeof value === "object" ? h("code", {}, JSON.stringify(value)) : String(value)),
        ])
        .flat(),
    ),
  );
}

/** @param {string} text */
function sentence(text) {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : "";
}

// --- put in force, taken back ---

/** @param {any} page @param {any} who */
function policyCard(page, who) {
  const made = tableCard(page, "policy", {
    limit: 30,
    under: page.policy_path ? `Written to ${page.policy_path}` : undefined,
    cells: who.may_apply
      ? {
          name: (/** @type {any} */ row) => [
            row.name,
            " ",
            row.state === "off" ? null : undoButton(who, row.name, `Take back ${row.name}`, "Take back"),
          ],
        }
      : {},
  });
  return made;
}

/** @param {any} page @param {any} who */
function versionsCard(page, who) {
  const made = tableCard(page, "versions", { limit: 10 });
  if (who.may_apply && page.tables.versions.rows.length)
    made.append(h("p", {}, undoButton(who, "", "Undo the last writing of the policy", "Undo the last")));
  return made;
}

/** @param {any} who @param {string} what @param {string} title @param {string} text */
function undoButton(who, what, title, text) {
  return h(
    "button",
    {
      type: "button",
      class: "quiet",
      "aria-label": title,
      onclick: () => post(who, "/savings/undo", { what }, "Taken back"),
    },
    text,
  );
}

/** @param {any} page @param {any} who @param {string[]} names */
function confirm(page, who, names) {
  const ends = new Date(Date.parse(page.generated_at) + DAYS * 86_400_000).toISOString().slice(0, 10);
  const date = /** @type {HTMLInputElement} */ (
    h("input", { type: "date", id: "apply-expires", required: true, value: ends, min: page.generated_at.slice(0, 10) })
  );
  const reason = /** @type {HTMLInputElement} */ (
    h("input", { id: "apply-reason", autocomplete: "off", placeholder: "optional" })
  );
  const dialog = /** @type {HTMLDialogElement} */ (
    h(
      "dialog",
      { "aria-labelledby": "apply-title" },
      h(
        "form",
        {
          onsubmit: async (/** @type {Event} */ event) => {
            event.preventDefault();
            dialog.close();
            await post(
              who,
              `/savings/apply${location.search}`,
              { names, expires: date.value, reason: reason.value },
              "Applied",
            );
          },
        },
        h(
          "h2",
          { id: "apply-title" },
          `Apply ${names.length} ${names.length === 1 ? "piece of advice" : "pieces of advice"}?`,
        ),
        h(
          "p",
          { class: "dim" },
          "They go into the policy file that gateway and hooks read, with your name. It can be taken back at any time.",
        ),
        h("ul", {}, ...names.map((name) => h("li", {}, name))),
        labelled("apply-expires", "In force until", date),
        labelled("apply-reason", "Reason", reason),
        h(
          "p",
          { class: "buttons" },
          h("button", { class: "main", type: "submit" }, "Apply"),
          h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Not now"),
        ),
      ),
    )
  );
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

/** @param {any} who @param {string} path @param {any} body @param {string} done */
async function post(who, path, body, done) {
  const headers = { "content-type": "application/json", "x-csrf-token": who.csrf ?? "" };
  const answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }).catch(() => null);
  const said = (await answer?.json().catch(() => ({}))) ?? {
    error: "the server does not answer",
    mend: "is it still running?",
  };
  const left = [...(said.conflicts ?? []), ...(said.left_out ?? [])].map(String);
  const text = answer?.ok
    ? [`${done}: version ${said.version} of the policy.`, ...left].join(" ")
    : `${sentence(said.error ?? "it was refused")} ${sentence(said.mend ?? "")}`;
  dispatchEvent(new CustomEvent("farthing:go"));
  const note = h(
    "div",
    { class: `toast ${answer?.ok ? "" : "bad"}` },
    text,
    h("button", { type: "button", class: "quiet", onclick: () => note.remove() }, "Close"),
  );
  document.querySelector(".toast")?.remove();
  document.body.append(note);
  tell(text);
}
