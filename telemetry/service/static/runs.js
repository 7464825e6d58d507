// @ts-check
/** The list of runs, live. */
import { bind } from "./bind.js";
import { Source } from "./interface.js";
import { keepLive } from "./live.js";

const EVERY_MS = 5000;

const page = /** @type {HTMLElement} */ (document.getElementById("page"));
const runs = new Source(/** @type {string} */ (page.dataset.address));

await keepLive(async () => {
  const answer = await runs.get();
  if (runs.changed) {
    bind(page, answer);
    const older = page.querySelector("a[data-cursor]");
    if (older && answer.next) older.setAttribute("href", `/?cursor=${encodeURIComponent(answer.next)}`);
  }
  return { next: EVERY_MS, words: "Live" };
});
