// @ts-check
/**
 * How values look: `pages/formats.py` in JavaScript. A test holds the two equal.
 * Figures come in the units of the interface (kg, kWh, shares) and are shown in g, Wh and per cent.
 */

export const UNKNOWN = "–";
const MOST_DECIMALS = 9;
const GROUPED_FROM = 10_000;
const SMALLEST = 1e-4;
const GREATEST = 1e15;

/** @type {Readonly<Record<string, number>>} */
const FACTORS = Object.freeze({
  count: 1,
  number: 1,
  seconds: 1,
  percent: 100,
  grams: 1e3,
  watt_hours: 1e3,
  megabytes: 1e-6,
});

/**
 * A figure for the eye: four digits, or so many decimals where a column needs to be even.
 * What is not 0 never looks like 0.
 * @param {number} value
 * @param {number | null} [decimals]
 * @returns {string}
 */
export function short(value, decimals = null) {
  const size = Math.abs(value);
  if (size === 0 && decimals === null) return "0";
  if (size >= GREATEST) return exponential(value);
  if (decimals !== null) {
    const text = fixed(value, decimals);
    return value !== 0 && !/[1-9]/.test(text) ? short(value) : text;
  }
  if (size >= GROUPED_FROM) return fixed(value, 0);
  if (size < SMALLEST) return exponential(value);
  const text = fixed(value, Math.max(0, 3 - exponent(size)));
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

/**
 * Decimals by which the figures of a column have one form: four digits of the greatest.
 * @param {(number | null)[]} values
 * @returns {number | null}
 */
export function even(values) {
  const greatest = values.reduce((most, value) => Math.max(Number(most), Math.abs(value ?? 0)), 0);
  if (!greatest) return null;
  return Math.min(MOST_DECIMALS, Math.max(0, 3 - exponent(greatest)));
}

/**
 * A value of the interface as text; a dash where it is unknown.
 * @param {any} value
 * @param {string} kind
 * @param {number | null} [decimals]
 * @returns {string}
 */
export function shown(value, kind, decimals = null) {
  if (value === null || value === undefined) return UNKNOWN;
  if (isFigure(kind)) return short(scaled(value, kind), kind === "count" ? 0 : decimals);
  if (kind === "moment") return `${value.slice(0, 10)} ${value.slice(11, 19)} UTC`;
  if (kind === "words") return value.replaceAll("_", " ");
  return String(value);
}

/**
 * A figure in the unit that is shown.
 * @param {number} value
 * @param {string} kind
 */
export const scaled = (value, kind) => value * (FACTORS[kind] ?? 1);

/** @param {string} kind */
export const isFigure = (kind) => kind in FACTORS;

/** @param {number} value @param {number} decimals */
function fixed(value, decimals) {
  const [whole = "", part] = value.toFixed(decimals).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return part === undefined ? grouped : `${grouped}.${part}`;
}

/** @param {number} value */
const exponential = (value) => value.toExponential(2).replace("+", "");

/** @param {number} size */
const exponent = (size) => Number(size.toExponential(3).split("e")[1]);
