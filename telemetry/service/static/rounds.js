// @ts-check
/** The rounds of a run: closed ones are asked for once, and anew when the run is sealed or taken up again. */
import { all } from "./interface.js";

/** @typedef {Record<string, any>} Round  as the interface gives it */

const AT_ONCE = 1000;

export class Rounds {
  /** @type {Map<string, Round>} */
  #rows = new Map();
  #expected = -1;
  /** @type {string | null | undefined} */
  #seal;

  /** @param {string} address  of the run */
  constructor(address) {
    this.address = `${address}/rounds?limit=${AT_ONCE}`;
  }

  /**
   * Bring up to date with a run as it was just answered.
   * @param {any} run
   */
  async renew(run) {
    const counts = /** @type {number[]} */ (Object.values(run.totals_of_closed_rounds.rounds));
    const expected = counts.reduce((sum, count) => sum + count, 0);
    const again = run.sha256 !== this.#seal; // taken up again, or put in order at its end
    if (!again && this.#rows.size) await this.#take(Math.min(this.#last(), run.so_far.round ?? 0));
    // A round of before may have come late, or be tried once more: then all are asked for.
    if (again || !this.#rows.size || (this.#closed() < expected && expected !== this.#expected)) {
      await this.#take(0);
      this.#expected = expected;
    }
    this.#seal = run.sha256;
  }

  /** Every attempt at every round, the newest first. */
  get newestFirst() {
    return [...this.#rows.values()].sort((a, b) => b.round - a.round || b.attempt - a.attempt);
  }

  /** The last attempt at each closed round, the set-up included, by number. */
  get closed() {
    /** @type {Map<number, Round>} */
    const last = new Map();
    for (const row of this.newestFirst.reverse()) if (row.closed) last.set(row.round, row);
    return [...last.values()];
  }

  /** @param {number} from */
  async #take(from) {
    const found = await all(`${this.address}&from=${from}`, "rounds");
    for (const [key, row] of this.#rows) if (!row.closed || row.round >= from) this.#rows.delete(key);
    for (const row of found) this.#rows.set(`${row.round}.${row.attempt}`, row);
  }

  #last() {
    return Math.max(0, ...[...this.#rows.values()].filter((row) => row.closed).map((row) => row.round));
  }

  #closed() {
    return [...this.#rows.values()].filter((row) => row.closed && row.round > 0).length;
  }
}
