// @ts-check
// Elements out of values. Text stays text: nothing here reads HTML.

/** @typedef {Node | string | number | null | undefined | false} Child */

/**
 * An element with attributes, listeners (`onclick`) and children. `style` is an object, set property by property, as the
 * content security policy wants it.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Child | Child[])} children
 * @returns {HTMLElement}
 */
export function h(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "style")
      for (const [key, text] of Object.entries(value)) made.style.setProperty(key, String(text));
    else if (name === "title" || name === "aria-label") made.setAttribute(name, straight(String(value)));
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(
    ...children
      .flat()
      .filter((child) => child !== null && child !== undefined && child !== false)
      .map(asNode),
  );
  return made;
}

/** @param {any} child */
function asNode(child) {
  return child instanceof Node ? child : document.createTextNode(straight(String(child)));
}

const DIRECTIONS = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;

/**
 * Marks of direction, with which a name of somebody's would turn round what stands beside it, are seen as what they are.
 * @param {string} text
 */
export function straight(text) {
  return text.replace(DIRECTIONS, "\ufffd");
}

/**
 * Text in which `backticks` mark what is typed.
 * @param {string} text
 * @returns {Child[]}
 */
export function coded(text) {
  return text.split("`").map((part, i) => (i % 2 ? h("code", {}, part) : part));
}

/**
 * Tell what happened to those who do not see it.
 * @param {string} text
 */
export function say(text) {
  const place = document.getElementById("said");
  if (place) place.textContent = text;
}
