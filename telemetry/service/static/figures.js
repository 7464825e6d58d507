// @ts-check
/** The charts of a run: what each shows of its rounds. No figure is worked out here. */
import { make } from "./elements.js";
import { Figure } from "./figure.js";
import { onTheme } from "./look.js";

/** @typedef {import("./figure.js").Column} Column */
/** @typedef {import("./rounds.js").Round} Round */
/** @typedef {import("./roundtable.js").Metric} Metric */

/** @type {(name: string, of: (item: Round) => number | null, look?: Partial<Column>) => Column} */
const grams = (name, of, look = {}) => ({ name, kind: "grams", unit: "g", of, ...look });
/** @type {(name: string, of: (item: Round) => number | null, look?: Partial<Column>) => Column} */
const count = (name, of, look = {}) => ({ name, kind: "count", unit: "", of, ...look });

const SPENT = grams("CO2eq so far", (row) => row.cumulative_emissions_kg);
const numberOf = (/** @type {Round} */ row) => String(row.round);

const EMISSIONS = [
  grams("Server", (row) => row.server_emissions_kg, { colour: "server", pattern: "plain" }),
  grams("Clients", (row) => row.clients_emissions_kg, { colour: "clients", pattern: "stripes" }),
  grams("Total", (row) => row.total_emissions_kg),
];
const OUTCOMES = [
  count("Reported", (row) => row.reported, { colour: "good", pattern: "plain" }),
  count("Missing", (row) => row.missing, { colour: "clients", pattern: "stripes" }),
  count("Rejected", (row) => row.rejected, { colour: "odd", pattern: "dots" }),
  count("Failed", (row) => row.failed, { colour: "bad", pattern: "cross" }),
  /** @type {Column} */ ({ name: "Coverage", kind: "percent", unit: "%", of: (row) => row.coverage }),
];
/** @type {Column[]} */
const PHASE = [{ name: "Energy", kind: "watt_hours", unit: "Wh", of: (phase) => phase.kwh, colour: "server" }];

export class Figures {
  #metric = new Figure({ id: "chart-metric", type: "line", item: "Round", label: numberOf, axis: "" });
  #emissions = new Figure({ id: "chart-emissions", type: "bar", stacked: true, item: "Round", label: numberOf, axis: "CO2eq, g" });
  #price = new Figure({ id: "chart-price", type: "line", along: SPENT, item: "Round", label: numberOf, axis: "" });
  #outcomes = new Figure({ id: "chart-outcomes", type: "bar", stacked: true, item: "Round", label: numberOf, axis: "Clients" });
  #phases = new Figure({ id: "chart-phases", type: "bar", across: true, item: "Phase", label: (phase) => phase.name, axis: "Energy, Wh" });
  #all = [this.#metric, this.#emissions, this.#price, this.#outcomes, this.#phases];
  #chosen = "";
  #choice = make("select", { id: "metric" });
  #chooser = make("p", { class: "choose", hidden: "" }, make("label", { for: "metric" }, "Training metric"), this.#choice);
  #waiting = make("p", { class: "empty" });
  #again = () => {};

  /** @param {HTMLElement} section */
  constructor(section) {
    section.append(this.#chooser, this.#waiting, ...this.#all.map((figure) => figure.element));
    for (const figure of this.#all) figure.element.hidden = true;
    section.hidden = false;
    onTheme(() => this.#all.forEach((figure) => figure.restyle()));
    this.#choice.addEventListener("change", () => {
      this.#chosen = this.#choice.value;
      this.#again();
    });
  }

  /**
   * @param {any} run
   * @param {Round[]} closed  by number, the set-up included
   * @param {Metric[]} metrics
   */
  show(run, closed, metrics) {
    this.#again = () => this.show(run, closed, metrics);
    const played = closed.filter((row) => row.round > 0);
    this.#waiting.hidden = closed.length > 0;
    this.#waiting.textContent = run.ended_at ? "No round is there to draw." : "Charts appear with the first round that closes.";
    this.#offer([...new Set(metrics.map((metric) => metric.name))], run.run.value_metric);
    this.#showMetric(run, played);
    if (!run.run.tracked) return;
    const again = played.some((row) => row.attempt > 1) ? " Of a round that was tried again, the last attempt." : "";
    this.#emissions.show("CO2eq per round", `What is known of the server and of its clients; round 0 is the set-up.${again}`, EMISSIONS, closed);
    this.#outcomes.show("Clients’ outcomes per round", `What became of each request to train. Coverage is the share that reported.${again}`, OUTCOMES, played);
    const phases = Object.entries(run.so_far.phase_energy_kwh).map(([name, kwh]) => ({ name, kwh }));
    this.#phases.show("The server’s energy by phase", "On its meter, the open round included, before clients on its own machine are split off.", PHASE, phases);
  }

  /** @param {any} run @param {Round[]} played */
  #showMetric(run, played) {
    const name = this.#chosen;
    const has = (/** @type {string} */ split) => played.some((row) => name in row[`${split}_metrics`]);
    const of = (/** @type {string} */ split) => (/** @type {Round} */ row) => row[`${split}_metrics`][name] ?? null;
    /** @type {Column[]} */
    const columns = [
      { name: `${name} (evaluate)`, kind: "number", unit: "", of: of("evaluate"), colour: "metric", marker: "circle" },
      { name: `${name} (train)`, kind: "number", unit: "", of: of("train"), colour: "odd", marker: "triangle", dash: [6, 4] },
    ];
    const used = columns.filter((_, place) => has(place ? "train" : "evaluate"));
    this.#metric.show(`${name} per round`, "Over the clients that sent a number, by their examples.", used, played);
    if (!run.run.tracked) return;
    const spent = played.filter((row) => row.cumulative_emissions_kg !== null);
    this.#price.show(`${name} against CO2eq`, "What each round’s value had cost by its end: measured, from the run’s start.", used.slice(0, 1), spent);
  }

  /** @param {string[]} names @param {string} first */
  #offer(names, first) {
    if (!names.includes(this.#chosen)) this.#chosen = names.includes(first) ? first : (names[0] ?? "");
    const offered = [...this.#choice.options].map((option) => option.value);
    for (const name of names) if (!offered.includes(name)) this.#choice.append(make("option", { value: name }, name));
    this.#choice.value = this.#chosen;
    this.#chooser.hidden = names.length < 2;
  }
}
