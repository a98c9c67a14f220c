// @ts-check
// The way from a link to a page: fetch its JSON, draw it, and go on from there.

import { clear, redraw } from "./charts.js";
import { h, say as tell, straight } from "./dom.js";
import { chips, filters } from "./filters.js";
import { PAGES } from "./pages.js";
import { context, errorCard, foot, kpis, loading, missingCard, trust } from "./parts.js";
import { across, go, here } from "./state.js";

const main = /** @type {HTMLElement} */ (document.getElementById("main"));
const GHOST_MS = 200; // what takes less needs no sign of waiting
const AGAIN_MS = 3_000; // after which it is asked whether a page was made anew

/** @type {ReturnType<typeof setTimeout> | undefined} */
let again;

/** @type {AbortController | null} */
let asking = null;
/** @type {(() => void) | null} */
let leave = null;
let shown = "";
let asked = "";

/** Who is here, and what they may do. @type {Promise<any>} */
const session = fetch("/session.json").then(
  (answer) => (answer.ok ? answer.json() : {}),
  () => ({}),
);

/** @param {string} name */
async function load(name = here()) {
  asking?.abort();
  clearTimeout(again);
  const mine = (asking = new AbortController());
  asked = location.pathname + location.search;
  const another = name !== shown;
  const focused = another ? "" : (document.activeElement?.closest("[id]")?.id ?? "");
  const opened = another ? [] : [...main.querySelectorAll("details[open][id]")].map((one) => one.id);
  main.setAttribute("aria-busy", "true");
  mark(name);
  const waiting = setTimeout(() => {
    if (!another) return;
    end();
    replace(loading());
  }, GHOST_MS);
  try {
    const [answer, who] = await Promise.all([
      fetch(`/${name}.json${location.search}`, { signal: mine.signal }).catch(() => null),
      session,
    ]);
    if (answer?.status === 401)
      return location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
    const page = answer ? await said(answer) : GONE;
    if (mine.signal.aborted) return undefined;
    clearTimeout(waiting);
    end();
    if (answer?.ok) draw(name, page, who);
    else failed(name, page);
    settle(name, another, focused, opened);
    if (page.fresh === false) again = setTimeout(() => load(name), AGAIN_MS);
  } catch (error) {
    clearTimeout(waiting);
    if (mine.signal.aborted) return undefined;
    end();
    failed(name, { error: "this page could not be drawn", mend: "the JSON of it is there all the same" });
    settle(name, another, focused, opened);
    throw error; // a fault of ours belongs in the console
  }
  return undefined;
}

const GONE = { error: "the server does not answer", mend: "is `farthing web` still running?" };

/** What an answer says, with the marks of direction that names may have told as such. @param {Response} answer */
async function said(answer) {
  try {
    const page = JSON.parse(await answer.text());
    for (const table of Object.values(page.tables ?? {})) table.rows.forEach(straighten);
    return page;
  } catch {
    return { error: `the server answered ${answer.status}`, mend: "look at what it printed" };
  }
}

/** The texts of a row, of which charts are drawn; links and what is sent back stay. @param {any} row */
function straighten(row) {
  for (const [key, value] of Object.entries(row))
    if (typeof value === "string" && key !== "name" && !key.startsWith("_")) row[key] = straight(value);
}

/** With the filters in force, so that the one at fault can be taken away. @param {string} name @param {any} page */
function failed(name, page) {
  replace(
    chips(),
    errorCard(page.error, page.mend, () => load(name)),
  );
}

/** What was followed and drawn before is let go; to be done before the next is drawn. */
function end() {
  leave?.();
  leave = null;
  clear();
}

/** @param {...any} children */
function replace(...children) {
  main.replaceChildren(...children.flat().filter(Boolean));
}

const WITHOUT_CALLS = ["prices", "live"]; // pages that say something though the ledger has none
const NO_CALLS = {
  why: "there are no calls here yet",
  mend: "`farthing import PATH` reads logs, transcripts or a bucket; or look around with `farthing web --demo`",
};

/** @param {string} name @param {any} page @param {any} who */
function draw(name, page, who) {
  const spec = PAGES[name];
  if (!page.span && !WITHOUT_CALLS.includes(name)) page = { missing: NO_CALLS, ...page };
  const body = page.missing ? [missingCard(page.missing)] : spec.body(page, who);
  replace(
    h(
      "div",
      { class: "head" },
      h("div", {}, h("h1", { tabindex: "-1" }, page.title), h("p", { class: "lead" }, spec.lead), context(page)),
      page.missing && !page.question?.where?.length ? null : (spec.filters ?? filters)(page),
    ),
    chips(),
    page.missing ? null : trust(page),
    page.missing ? null : kpis(page),
    h("div", { class: "cards" }, ...body.filter(Boolean)),
    foot(page),
  );
  leave = spec.live?.(page, main) ?? null;
  document.title = `${page.title} · farthing`;
}

/** After a page is drawn: the focus goes on where it was, or to the new heading. */
function settle(
  /** @type {string} */ name,
  /** @type {boolean} */ another,
  /** @type {string} */ focused,
  /** @type {string[]} */ opened,
) {
  main.setAttribute("aria-busy", "false");
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  if (another && shown) {
    scrollTo(0, 0);
    main.querySelector("h1")?.focus();
  } else if (focused) {
    const at = document.getElementById(focused) ?? main;
    const folded = at.closest("details:not([open])"); // what was filled in is sent, and its box is closed
    const to = /** @type {HTMLElement} */ (folded?.querySelector("summary") ?? at);
    to.focus({ preventScroll: true });
    if (document.activeElement !== to) main.focus({ preventScroll: true }); // a button that was pressed may rest now
  }
  if (shown) tell(`${document.title.split(" · ")[0]} is shown`);
  shown = name;
  performance.mark("farthing:shown");
}

/** The links of the top lead to the same filters elsewhere. @param {string} name */
function mark(name) {
  for (const link of document.querySelectorAll("nav a")) {
    const page = link.getAttribute("href")?.split("?")[0].slice(1) ?? "";
    link.setAttribute("href", across(page));
    if (page === name) {
      link.setAttribute("aria-current", "page");
      const strip = /** @type {HTMLElement} */ (link.parentElement);
      const left = /** @type {HTMLElement} */ (link).offsetLeft - strip.offsetLeft;
      if (left < strip.scrollLeft || left + 90 > strip.scrollLeft + strip.clientWidth) strip.scrollLeft = left - 40;
    } else link.removeAttribute("aria-current");
  }
}

// --- what leads on ---

document.addEventListener("click", (event) => {
  const link = /** @type {HTMLElement} */ (event.target).closest?.("a[href]");
  if (
    !link ||
    event.defaultPrevented ||
    event.button ||
    event.metaKey ||
    event.ctrlKey ||
    event.shiftKey ||
    event.altKey
  )
    return;
  const to = new URL(/** @type {HTMLAnchorElement} */ (link).href);
  if (to.origin !== location.origin || to.hash || link.hasAttribute("download") || !(to.pathname.slice(1) in PAGES))
    return;
  event.preventDefault();
  go(to.pathname + to.search);
});

document.addEventListener("click", (event) => {
  // a box that was opened closes when one looks elsewhere
  for (const box of document.querySelectorAll(".more[open], .trust details[open]")) {
    if (!box.contains(/** @type {Node} */ (event.target))) box.removeAttribute("open");
  }
});

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  for (const box of document.querySelectorAll(".more[open], .trust details[open]")) {
    box.removeAttribute("open");
    box.querySelector("summary")?.focus();
  }
});

addEventListener("farthing:go", () => load());
addEventListener("popstate", () => {
  if (asked !== location.pathname + location.search) load(); // a step within the page is none of ours
});

// --- the theme ---

document.getElementById("theme")?.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("farthing-theme", root.dataset.theme);
  } catch {
    // it holds for this page, then
  }
  redraw();
  tell(`${root.dataset.theme} theme`);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

// --- who is here ---

session.then((who) => {
  for (const link of document.querySelectorAll("nav a")) {
    const page = link.getAttribute("href")?.split("?")[0].slice(1) ?? "";
    if (who.pages && !who.pages.includes(page)) link.remove();
  }
  const place = document.getElementById("who");
  const teams = who.teams?.length ? `only ${who.teams.join(", ")}` : "";
  const leaveIt = async () => {
    const answer = await fetch("/logout", { method: "POST", headers: { "x-csrf-token": who.csrf } });
    location.assign((await answer.json()).next ?? "/login");
  };
  place?.replaceChildren(
    ...(who.demo ? [h("span", { class: "badge" }, "made-up data")] : []),
    ...(teams ? [h("span", { class: "badge" }, teams)] : []),
    ...(who.login
      ? [
          h("span", {}, `${who.name}, ${who.role}`),
          h("button", { type: "button", class: "quiet", onclick: leaveIt }, "Log out"),
        ]
      : []),
  );
});

load();
