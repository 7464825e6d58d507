// @ts-check
/** Asks again and again while somebody looks, and says how fresh the page is. */
import { Gone, Later } from "./interface.js";

const LONGEST_MS = 60_000;

/**
 * Call `renew` until the run is gone; it says after how many milliseconds to come again, and in words
 * what the page is now.
 * @param {() => Promise<{ next: number, words: string }>} renew
 */
export async function keepLive(renew) {
  for (let failures = 0; ; ) {
    let wait = 0;
    try {
      const { next, words } = await renew();
      failures = 0;
      wait = next;
      say("good", words);
    } catch (error) {
      if (error instanceof Gone) return say("bad", `Not live: ${error.message}`);
      if (!(error instanceof Later)) throw error;
      failures += 1;
      wait = Math.min(LONGEST_MS, Math.max(error.seconds * 1000, 1000 * 2 ** failures));
      say("bad", `Not live: ${error.message}; trying again`);
    }
    await pause(wait);
  }
}

/**
 * Tell a screen reader, once.
 * @param {string} words
 */
export function announce(words) {
  const place = document.getElementById("announced");
  if (place && place.textContent !== words) place.textContent = words;
}

/** @param {string} tone @param {string} words */
function say(tone, words) {
  const place = document.getElementById("live");
  if (!place) return;
  place.hidden = false;
  place.dataset.tone = tone;
  if (place.textContent !== words) place.textContent = words;
}

/**
 * Wait, and longer where nobody looks.
 * @param {number} milliseconds
 * @returns {Promise<void>}
 */
async function pause(milliseconds) {
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
  if (document.visibilityState === "visible") return;
  await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}
