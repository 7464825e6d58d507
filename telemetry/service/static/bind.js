// @ts-check
/**
 * Renews a page from an answer of the interface. What goes where is written in the page itself
 * (`pages/bound.py`); values are only ever set as text.
 */
import { even, isFigure, scaled, shown } from "./formats.js";

/** @typedef {Record<string, number | null>} Decimals  of a column, by its path as written */

/** @type {Map<string, string[]>} */
const paths = new Map();

/**
 * The value at a path; null where there is none.
 * @param {any} item
 * @param {string} path  names with points between them, or a JSON list of names
 * @returns {any}
 */
export function at(item, path) {
  let names = paths.get(path);
  if (!names) {
    names = /** @type {string[]} */ (path.startsWith("[") ? JSON.parse(path) : path.split("."));
    paths.set(path, names);
  }
  return names.reduce(
    (found, name) => (found !== null && typeof found === "object" && Object.hasOwn(found, name) ? found[name] : null),
    item,
  );
}

/**
 * Renew an element and what is in it.
 * @param {Element} element
 * @param {any} item  of the answer
 * @param {Decimals} [decimals]
 */
export function bind(element, item, decimals = {}) {
  if (!(element instanceof HTMLElement)) return;
  const { path, each, link, state, share, together } = element.dataset;
  if (element.dataset.if !== undefined) element.hidden = !has(item, element.dataset.if);
  if (element.dataset.unless !== undefined) element.hidden = has(item, element.dataset.unless);
  if (element.hidden && element.dataset.each === undefined && path === undefined) {
    // What is in it may be shown later, by another answer: that one renews it.
    return;
  }
  if (link !== undefined) set(element, "href", `/runs/${encodeURIComponent(at(item, link))}`);
  if (state !== undefined) set(element, "data-word", at(item, state));
  if (share !== undefined) {
    const value = at(item, share);
    set(element, "value", value === null ? null : Math.min(1, value));
  }
  for (const column of JSON.parse(together ?? "[]")) decimals = { ...decimals, ...inOneColumn(column, item) };
  if (each !== undefined) bindEach(element, at(item, each) ?? []);
  else if (path !== undefined) write(element, at(item, path), decimals[path] ?? null);
  else for (const child of element.children) bind(child, item, decimals);
}

/** @param {any} item @param {string} path */
function has(item, path) {
  const value = at(item, path);
  if (Array.isArray(value)) return value.length > 0;
  return value !== null && value !== false && value !== "";
}

/**
 * @param {HTMLElement} element
 * @param {any[]} items
 */
function bindEach(element, items) {
  const template = element.querySelector(":scope > template");
  const pattern = template instanceof HTMLTemplateElement ? template.content.firstElementChild : null;
  if (!pattern) return;
  /** @type {Decimals} */
  const decimals = {};
  for (const [path, kind] of JSON.parse(element.dataset.even ?? "[]")) {
    decimals[path] = even(items.map((item) => nullOr(at(item, path), kind)));
  }
  const there = [...element.children].filter((child) => child !== template);
  items.forEach((item, place) => {
    const copy = there[place] ?? element.appendChild(/** @type {Element} */ (pattern.cloneNode(true)));
    bind(copy, item, decimals);
  });
  there.slice(items.length).forEach((left) => left.remove());
}

/**
 * @param {[string, string][]} figures  path and kind
 * @param {any} item
 * @returns {Decimals}
 */
function inOneColumn(figures, item) {
  const decimals = even(figures.map(([path, kind]) => nullOr(at(item, path), kind)));
  return Object.fromEntries(figures.map(([path]) => [path, decimals]));
}

/** @param {number | null} value @param {string} kind */
const nullOr = (value, kind) => (value === null ? null : scaled(value, kind));

/**
 * @param {HTMLElement} element
 * @param {any} value
 * @param {number | null} decimals
 */
function write(element, value, decimals) {
  const kind = element.dataset.as ?? "text";
  const known = value !== null && value !== undefined;
  const text = shown(value, kind, decimals) + (known ? (element.dataset.unit ?? "") : "");
  if (element.textContent !== text) element.textContent = text;
  if (isFigure(kind)) set(element, "value", known ? scaled(value, kind) : null);
  if (kind === "moment") set(element, "datetime", known ? value : null);
}

/**
 * @param {Element} element
 * @param {string} name
 * @param {any} value  null takes the attribute away
 */
function set(element, name, value) {
  if (value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, String(value));
}
