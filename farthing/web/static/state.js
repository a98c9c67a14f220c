// @ts-check
// Where we are is the link: every filter is in the query string, and nowhere else.

/** @returns {string} the page's name, `bill` of /bill */
export function here() {
  return location.pathname.replace(/^\/+|\/+$/g, "") || "bill";
}

export function query() {
  return new URLSearchParams(location.search);
}

/**
 * The link to a page with the query changed: null takes a parameter away, a list sets it several times.
 * @param {Record<string, string | string[] | null>} changes
 * @param {string} [page]
 */
export function link(changes, page = here()) {
  const asked = query();
  for (const [name, value] of Object.entries(changes)) {
    asked.delete(name);
    for (const one of value === null ? [] : [value].flat()) if (one !== "") asked.append(name, one);
  }
  const text = asked.toString();
  return text ? `/${page}?${text}` : `/${page}`;
}

/** What every page understands; the rest belongs to one page and stays behind. */
const SHARED = ["since", "until", "where", "tz", "assume", "currency"];

/** The link to another page that keeps the filters. @param {string} page */
export function across(page) {
  const kept = new URLSearchParams();
  for (const [name, value] of query()) if (SHARED.includes(name)) kept.append(name, value);
  const text = kept.toString();
  return text ? `/${page}?${text}` : `/${page}`;
}

/** The value that `where` holds a key to, if it is one plain value. @param {string} key */
export function held(key) {
  const found = query()
    .getAll("where")
    .filter((text) => text.startsWith(`${key}=`));
  return found.length === 1 ? found[0].slice(key.length + 1).replace(/\[([*?,])\]/g, "$1") : "";
}

/** The list of `where` with one key set, or free for "". @param {string} key @param {string} value */
export function holding(key, value) {
  const rest = query()
    .getAll("where")
    .filter((text) => !text.startsWith(`${key}=`));
  return value ? [...rest, `${key}=${value.replace(/[*?,]/g, "[$&]")}`] : rest;
}

/**
 * Go to a link of ours without loading the shell again; app.js listens. `onwards`: in the place of where we are.
 * @param {string} href @param {boolean} [onwards]
 */
export function go(href, onwards = false) {
  if (href === location.pathname + location.search) return;
  if (onwards) history.replaceState(null, "", href);
  else history.pushState(null, "", href);
  dispatchEvent(new CustomEvent("farthing:go"));
}
