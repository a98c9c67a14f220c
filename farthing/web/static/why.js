// @ts-check
// The two spans of days that are compared.

import { h } from "./dom.js";
import { filters, labelled, leading, periods } from "./filters.js";
import { spans } from "./format.js";
import { go, link, query } from "./state.js";

/** @param {any} page */
export function whyFilters(page) {
  const made = filters(page, { days: false });
  made.prepend(span(page, "from", "Earlier"), span(page, "to", "Later"), other(page));
  return made;
}

/** @param {any} page @param {"from" | "to"} name @param {string} title */
function span(page, name, title) {
  const days = periods(page.span)
    .slice(1)
    .map(([text, from, to]) => /** @type {[string, string]} */ ([text, `${from}..${to}`]));
  const now = query().get(name) ?? "";
  const named = days.find(([, value]) => value === now)?.[0] ?? (now ? spans(page[name] ?? now) : "Automatic");
  const options = /** @type {[string, string][]} */ ([
    ["Automatic", link({ [name]: null })],
    ...days.map(([text, value]) => [text, link({ [name]: value })]),
  ]);
  if (!options.some(([text]) => text === named)) options.unshift([named, location.pathname + location.search]);
  return leading(`why-${name}`, title, options, named);
}

/** Any other days. @param {any} page */
function other(page) {
  const field = (/** @type {string} */ id, /** @type {string} */ text, /** @type {string} */ value) =>
    labelled(id, text, h("input", { type: "date", id, required: true, value }));
  const [a, b] = (page.from ?? "..").split("..");
  const [c, d] = (page.to ?? "..").split("..");
  const read = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (document.getElementById(id)).value;
  const apply = (/** @type {Event} */ event) => {
    event.preventDefault();
    go(
      link({
        from: `${read("why-a")}..${read("why-b")}`,
        to: `${read("why-c")}..${read("why-d")}`,
        since: null,
        until: null,
      }),
    );
  };
  return h(
    "details",
    { class: "more" },
    h("summary", {}, "Other days"),
    h(
      "form",
      { id: "why-form", onsubmit: apply },
      h("div", { class: "pair" }, field("why-a", "Earlier: first day", a), field("why-b", "last day", b)),
      h("div", { class: "pair" }, field("why-c", "Later: first day", c), field("why-d", "last day", d)),
      h("p", {}, h("button", { class: "main", type: "submit" }, "Compare")),
    ),
  );
}
