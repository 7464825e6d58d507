// @ts-check
/** The table of rounds: which page of it is shown, and columns for metrics that turn up later. */
import { make } from "./elements.js";

/** @typedef {import("./rounds.js").Round} Round */
/** @typedef {{ name: string, split: string }} Metric */

const PER_PAGE = 50;

export class RoundTable {
  #page = 1;
  #pages = 1;
  #table = /** @type {HTMLTableElement} */ (document.getElementById("rounds"));
  #navigation = /** @type {HTMLElement} */ (document.getElementById("rounds-pages"));
  /** @type {Set<string>} */
  #columns = new Set();
  /** Called when another page is asked for. */
  turned = () => {};

  constructor() {
    const wanted = Number(new URLSearchParams(location.search).get("page"));
    if (wanted > 1) this.#page = wanted;
    for (const { name, split } of this.metrics) {
      this.#columns.add(JSON.stringify([`${split}_metrics`, name]));
    }
    this.#navigation.addEventListener("click", (event) => this.#turn(event));
  }

  /** @returns {Metric[]} those that have a column */
  get metrics() {
    return [...this.#table.querySelectorAll("th[data-metric]")].map(metricOf);
  }

  /**
   * The rounds of the page that is shown.
   * @param {Round[]} newestFirst
   */
  slice(newestFirst) {
    this.#pages = Math.max(1, Math.ceil(newestFirst.length / PER_PAGE));
    this.#page = Math.min(this.#page, this.#pages);
    this.#navigation.hidden = this.#pages < 2;
    const words = this.#navigation.querySelector("span");
    if (words) words.textContent = `Page ${this.#page} of ${this.#pages}`;
    this.#link("newer", this.#page - 1);
    this.#link("older", this.#page + 1);
    document.getElementById("no-rounds")?.toggleAttribute("hidden", newestFirst.length > 0);
    return newestFirst.slice((this.#page - 1) * PER_PAGE, this.#page * PER_PAGE);
  }

  /**
   * Give a metric a column, if it has none yet.
   * @param {Metric} metric
   */
  addColumn({ name, split }) {
    const path = JSON.stringify([`${split}_metrics`, name]);
    if (this.#columns.has(path)) return;
    this.#columns.add(path);
    this.#table.tHead?.rows[0]?.append(
      make("th", { scope: "col", class: "num", "data-metric": JSON.stringify([name, split]) }, `${name} (${split})`),
    );
    const body = /** @type {HTMLTableSectionElement} */ (this.#table.tBodies[0]);
    const template = /** @type {HTMLTemplateElement} */ (body.querySelector("template"));
    for (const row of [template.content.firstElementChild, ...body.rows]) {
      row?.append(make("td", { class: "num" }, make("data", { "data-path": path, "data-as": "number" })));
    }
    body.dataset.even = JSON.stringify([...JSON.parse(body.dataset.even ?? "[]"), [path, "number"]]);
  }

  /** @param {string} name @param {number} number */
  #link(name, number) {
    const link = this.#navigation.querySelector(`[data-page=${name}]`);
    const there = number >= 1 && number <= this.#pages;
    if (there) link?.setAttribute("href", `?page=${number}#rounds-name`);
    else link?.removeAttribute("href");
    link?.toggleAttribute("aria-disabled", false);
    if (!there) link?.setAttribute("aria-disabled", "true");
  }

  /** @param {Event} event */
  #turn(event) {
    const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
    if (!link) return;
    event.preventDefault();
    this.#page += link.getAttribute("data-page") === "older" ? 1 : -1;
    this.turned();
  }
}

/** @param {Element} cell @returns {Metric} */
function metricOf(cell) {
  const [name, split] = JSON.parse(cell.getAttribute("data-metric") ?? "[]");
  return { name, split };
}
