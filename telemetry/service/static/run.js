// @ts-check
/** One run, live. */
import { bind } from "./bind.js";
import { Figures } from "./figures.js";
import { Source } from "./interface.js";
import { announce, keepLive } from "./live.js";
import { Rounds } from "./rounds.js";
import { RoundTable } from "./roundtable.js";
import { shown } from "./formats.js";

const EVERY_MS = 2000;
const ENDED_EVERY_MS = 30_000;
/** The account reads every round: not with each of them, where they are short. */
const ACCOUNT_EVERY_MS = 10_000;

const page = /** @type {HTMLElement} */ (document.getElementById("page"));
const address = `/api/v1/runs/${encodeURIComponent(page.dataset.run ?? "")}`;
const run = new Source(address);
const account = new Source(`${address}/method`);
const rounds = new Rounds(address);
const table = new RoundTable();
const figures = new Figures(/** @type {HTMLElement} */ (document.getElementById("charts")));
let accountAt = -ACCOUNT_EVERY_MS;
let last = 0;

table.turned = () => {
  renewPage();
  document.getElementById("rounds-name")?.scrollIntoView();
};

await keepLive(async () => {
  const found = await run.get();
  const ended = found.ended_at !== null;
  if (run.changed) {
    await rounds.renew(found);
    found.so_far.metrics.forEach(table.addColumn.bind(table));
  }
  if (ended ? account.value === null || run.changed : performance.now() - accountAt > ACCOUNT_EVERY_MS) {
    await account.get();
    accountAt = performance.now();
  }
  if (run.changed || account.changed) {
    renewPage();
    figures.show(found, rounds.closed, table.metrics);
    tell(found);
  }
  return { next: ended ? ENDED_EVERY_MS : EVERY_MS, words: ended ? "Ended" : "Live" };
});

function renewPage() {
  bind(page, { ...run.value, account: account.value, rounds: table.slice(rounds.newestFirst) });
}

/** @param {any} found */
function tell(found) {
  const done = found.so_far.rounds_done;
  if (done === last) return;
  if (last) announce(`Round ${done} is closed. CO2eq so far: ${shown(found.so_far.emissions_kg, "grams")} grams.`);
  last = done;
}
