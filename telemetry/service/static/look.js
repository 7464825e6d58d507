// @ts-check
/** Colours of the style sheet for what is drawn, each with a pattern or a dash of its own. */

/** @typedef {"plain" | "stripes" | "dots" | "cross"} Pattern */

/** @param {string} name  of a custom property, without dashes */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/**
 * A colour that is told from others without seeing it.
 * @param {string} name
 * @param {Pattern} pattern
 * @returns {string | CanvasPattern}
 */
export function fill(name, pattern) {
  const value = colour(name);
  if (pattern === "plain") return value;
  const size = 8;
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const pen = /** @type {CanvasRenderingContext2D} */ (tile.getContext("2d"));
  pen.fillStyle = value;
  pen.fillRect(0, 0, size, size);
  pen.strokeStyle = pen.fillStyle = colour("ground");
  pen.lineWidth = 1.5;
  if (pattern === "dots") {
    pen.beginPath();
    pen.arc(size / 2, size / 2, 1.6, 0, 2 * Math.PI);
    pen.fill();
  } else {
    stroke(pen, 0, size, size, 0);
    stroke(pen, -1, 1, 1, -1);
    stroke(pen, size - 1, size + 1, size + 1, size - 1);
    if (pattern === "cross") stroke(pen, 0, 0, size, size);
  }
  return pen.createPattern(tile, "repeat") ?? value;
}

/**
 * @param {CanvasRenderingContext2D} pen
 * @param {number} x @param {number} y @param {number} toX @param {number} toY
 */
function stroke(pen, x, y, toX, toY) {
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(toX, toY);
  pen.stroke();
}

/** @param {() => void} changed  called when dark becomes light, or light dark */
export function onTheme(changed) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}
