// @ts-check
/**
 * A chart with what it shows in other forms: in words, point by point (arrow keys, or the pointer), and
 * as a table. Chart.js draws; it is the one global name.
 */
import { make } from "./elements.js";
import { even, scaled, shown } from "./formats.js";
import { colour, fill } from "./look.js";

/** @typedef {Record<string, any>} Item */
/**
 * @typedef {object} Column  a figure of each point
 * @property {string} name
 * @property {string} kind  as in `formats.js`
 * @property {string} unit
 * @property {(item: Item) => number | null} of
 * @property {string} [colour]  drawn in it; without one it is in words and table only
 * @property {import("./look.js").Pattern} [pattern]  of bars
 * @property {number[]} [dash]  of a line
 * @property {string} [marker]  of a line
 */
/**
 * @typedef {object} Spec
 * @property {string} id
 * @property {"line" | "bar"} type
 * @property {boolean} [stacked]
 * @property {boolean} [across]  bars from left to right
 * @property {Column} [along]  the horizontal axis is this figure; without it, one place for each item
 * @property {string} item  what a point is, e.g. "Round"
 * @property {(item: Item) => string} label
 * @property {string} axis  of the vertical axis, with its unit
 */

const TABLE_ROWS = 50;
const MANY = 120;
const LONGEST = 32;
/** @type {any} */
const { Chart } = globalThis;

export class Figure {
  /** @type {any} */
  #chart = null;
  /** @type {Item[]} */
  #items = [];
  /** @type {Column[]} */
  #columns = [];
  #place = -1;
  #rowsShown = TABLE_ROWS;
  #title = make("h3");
  #about = make("p", { class: "note" });
  #canvas = make("canvas");
  #words = make("p", { class: "readout" });
  #box = make("div", { class: "canvas", role: "slider", tabindex: 0, "aria-valuemin": 1 }, this.#canvas);
  #body = make("div", { class: "wide", role: "region", tabindex: 0 });
  #more = make("button", { type: "button", hidden: "" }, "All of them");
  #details = make("details", {}, make("summary", {}, "These figures as a table"), this.#body, this.#more);

  /** @param {Spec} spec */
  constructor(spec) {
    this.spec = spec;
    this.#about.id = `${spec.id}-about`;
    this.#title.id = `${spec.id}-title`;
    this.#box.setAttribute("aria-labelledby", this.#title.id);
    this.#box.setAttribute("aria-describedby", this.#about.id);
    this.#body.setAttribute("aria-labelledby", this.#title.id);
    this.#canvas.setAttribute("aria-hidden", "true");
    this.#words.setAttribute("aria-hidden", "true"); // the slider says the same
    this.element = make(
      "figure",
      { class: "chart", id: spec.id },
      make("figcaption", {}, this.#title, this.#about),
      this.#box,
      this.#words,
      this.#details,
    );
    this.#box.addEventListener("keydown", (event) => this.#key(event));
    this.#details.addEventListener("toggle", () => this.#table());
    this.#more.addEventListener("click", () => {
      this.#rowsShown = Infinity;
      this.#table();
      this.#body.focus();
    });
  }

  /**
   * @param {string} title
   * @param {string} about
   * @param {Column[]} columns
   * @param {Item[]} items
   */
  show(title, about, columns, items) {
    this.#title.textContent = title;
    this.#about.textContent = about;
    const shapes = (/** @type {Column[]} */ some) => some.map((one) => one.name + one.colour).join("\n");
    const same = shapes(columns) === shapes(this.#columns);
    const atEnd = this.#place < 0 || this.#place === this.#items.length - 1;
    [this.#items, this.#columns] = [items, columns];
    this.element.hidden = !items.some((item) => columns.some((column) => column.of(item) !== null));
    if (this.element.hidden) return;
    this.#draw(same);
    this.#go(atEnd ? items.length - 1 : Math.min(this.#place, items.length - 1), false);
    this.#table();
  }

  /** Draw again in the colours of now. */
  restyle() {
    if (!this.element.hidden && this.#items.length) this.#draw(false);
  }

  // --- drawing -----------------------------------------------------------------------------------

  /** @param {boolean} same  whether only figures are others */
  #draw(same) {
    const { along, label } = this.spec;
    const drawn = this.#columns.filter((column) => column.colour);
    const value = (/** @type {Column} */ column, /** @type {Item} */ item) => numberOf(column, item);
    const labels = this.#items.map(label);
    const data = drawn.map((column) =>
      along ? this.#items.map((item) => ({ x: value(along, item), y: value(column, item) })) : this.#items.map((item) => value(column, item)),
    );
    if (same && this.#chart) {
      this.#chart.data.labels = labels;
      drawn.forEach((column, place) => {
        Object.assign(this.#chart.data.datasets[place], { data: data[place], ...this.#style(column) });
      });
      this.#chart.update("none");
      return;
    }
    this.#chart?.destroy();
    const datasets = drawn.map((column, place) => ({ label: column.name, data: data[place], ...this.#style(column) }));
    this.#chart = new Chart(this.#canvas, { type: this.spec.type, data: { labels, datasets }, options: this.#options() });
  }

  /** @param {Column} column */
  #style(column) {
    const value = colour(column.colour ?? "text");
    const many = this.#items.length > MANY;
    if (this.spec.type === "bar") {
      return { backgroundColor: fill(column.colour ?? "text", many ? "plain" : (column.pattern ?? "plain")), maxBarThickness: 56, categoryPercentage: many ? 1 : 0.82, barPercentage: many ? 1 : 0.95 };
    }
    return {
      borderColor: value,
      backgroundColor: value,
      borderDash: column.dash ?? [],
      borderWidth: 2,
      pointStyle: column.marker ?? "circle",
      pointRadius: many ? 0 : 3.5,
      pointHitRadius: 12,
      pointHoverRadius: 6,
      spanGaps: false,
    };
  }

  #options() {
    const { along, stacked, item, axis, across } = this.spec;
    const [text, soft, line] = [colour("text"), colour("soft"), colour("line")];
    const drawn = this.#columns.filter((column) => column.colour);
    const font = { size: 12, family: getComputedStyle(document.body).fontFamily };
    const ticks = { color: soft, padding: 6, maxRotation: 0, autoSkipPadding: 16, font };
    const title = (/** @type {string} */ words) => ({ display: words !== "", text: clipped(words), color: soft, font });
    const places = {
      type: along ? "linear" : "category",
      stacked,
      offset: !along,
      beginAtZero: true,
      grid: { color: line, drawTicks: false, display: Boolean(along) },
      border: { color: line },
      ticks: { ...ticks, autoSkip: !across },
      title: across ? { display: false } : title(along ? `${along.name}, ${along.unit}` : item),
    };
    const figures = {
      stacked,
      beginAtZero: this.spec.type === "bar",
      grid: { color: line, drawTicks: false },
      border: { display: false },
      ticks: { ...ticks, ...(this.#columns[0]?.kind === "count" ? { precision: 0 } : {}) },
      title: title(axis || (drawn.length === 1 ? (drawn[0]?.name ?? "") : "")),
    };
    return {
      animation: false,
      responsive: true,
      maintainAspectRatio: false,
      indexAxis: across ? "y" : "x",
      interaction: { mode: "nearest", axis: across ? "y" : "x", intersect: false },
      onHover: (/** @type {any} */ _, /** @type {{ index: number }[]} */ active) => {
        if (active[0]) this.#go(active[0].index, false);
      },
      scales: across ? { x: figures, y: places } : { x: places, y: figures },
      plugins: {
        legend: {
          display: drawn.length > 1,
          align: "start",
          onClick: null,
          labels: { color: text, usePointStyle: this.spec.type === "line", boxWidth: this.spec.type === "line" ? 8 : 24, boxHeight: this.spec.type === "line" ? 7 : 12, padding: 14, font: { ...font, size: 13 } },
        },
        tooltip: {
          callbacks: {
            title: (/** @type {{ dataIndex: number }[]} */ points) => (points[0] ? this.#name(points[0].dataIndex) : ""),
            label: (/** @type {any} */ point) => this.#said(drawn[point.datasetIndex], point.dataIndex),
          },
        },
      },
    };
  }

  // --- point by point ----------------------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  #key(event) {
    const last = this.#items.length - 1;
    /** @type {Record<string, number>} */
    const places = { ArrowLeft: this.#place - 1, ArrowDown: this.#place - 1, ArrowRight: this.#place + 1, ArrowUp: this.#place + 1, PageDown: this.#place - 10, PageUp: this.#place + 10, Home: 0, End: last };
    const wanted = places[event.key];
    if (wanted === undefined) return;
    event.preventDefault();
    this.#go(Math.max(0, Math.min(last, wanted)), true);
  }

  /** @param {number} place @param {boolean} mark  whether the chart shows it, too */
  #go(place, mark) {
    this.#place = place;
    if (!this.#items[place]) return;
    const words = [this.#name(place), ...this.#columns.map((column) => this.#said(column, place))].join(" · ");
    this.#words.textContent = words;
    this.#box.setAttribute("aria-valuemax", String(this.#items.length));
    this.#box.setAttribute("aria-valuenow", String(place + 1));
    this.#box.setAttribute("aria-valuetext", words);
    if (!mark) return;
    const active = this.#chart.data.datasets.map((/** @type {any} */ _, /** @type {number} */ datasetIndex) => ({ datasetIndex, index: place }));
    this.#chart.setActiveElements(active);
    this.#chart.tooltip.setActiveElements(active, { x: 0, y: 0 });
    this.#chart.update("none");
  }

  /** @param {number} place */
  #name(place) {
    const item = this.#items[place];
    return item ? `${this.spec.item} ${this.spec.label(item)}` : "";
  }

  /** @param {Column | undefined} column @param {number} place */
  #said(column, place) {
    const item = this.#items[place];
    if (!column || !item) return "";
    const value = column.of(item);
    return `${column.name} ${shown(value, column.kind)}${value === null ? "" : column.unit && ` ${column.unit}`}`;
  }

  // --- as a table --------------------------------------------------------------------------------

  #table() {
    if (!this.#details.open || this.element.hidden) return;
    const columns = this.spec.along ? [this.spec.along, ...this.#columns] : this.#columns;
    const decimals = columns.map((column) => even(this.#items.map((item) => numberOf(column, item))));
    const heads = columns.map((column) => make("th", { scope: "col", class: "num" }, column.unit ? `${column.name}, ${column.unit}` : column.name));
    const newestFirst = [...this.#items].reverse();
    const rows = newestFirst.slice(0, this.#rowsShown).map((item) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, this.spec.label(item)),
        ...columns.map((column, place) => {
          const value = column.of(item);
          const exact = value === null ? null : scaled(value, column.kind);
          return make("td", { class: "num" }, make("data", { value: exact }, shown(value, column.kind, decimals[place])));
        }),
      ),
    );
    const head = make("thead", {}, make("tr", {}, make("th", { scope: "col" }, this.spec.item), ...heads));
    this.#body.replaceChildren(make("table", { class: "even" }, head, make("tbody", {}, ...rows)));
    this.#more.hidden = rows.length === newestFirst.length;
    this.#more.textContent = `All ${newestFirst.length} rows`;
  }
}

/** A name may be of any length, an axis is not. @param {string} words */
const clipped = (words) => (words.length > LONGEST ? `${words.slice(0, LONGEST)}…` : words);

/** @param {Column} column @param {Item} item */
function numberOf(column, item) {
  const value = column.of(item);
  return value === null ? null : scaled(value, column.kind);
}
