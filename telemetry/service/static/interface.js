// @ts-check
/** Asks the interface, and is told when nothing has changed. */

/** A run that is no longer there. */
export class Gone extends Error {}

/** An answer that may come later: the server is away, busy, or its database is. */
export class Later extends Error {
  /** @param {string} message @param {number} [seconds]  when to ask again, if it was said */
  constructor(message, seconds = 0) {
    super(message);
    this.seconds = seconds;
  }
}

/** One address, and what was last answered there. */
export class Source {
  /** @type {string | null} */
  #tag = null;
  /** @type {any} */
  value = null;
  changed = false;

  /** @param {string} address */
  constructor(address) {
    this.address = address;
  }

  /** Ask again; `changed` says whether the answer is another one. */
  async get() {
    const { tag, body } = await ask(this.address, this.#tag);
    this.changed = body !== null;
    if (body !== null) [this.#tag, this.value] = [tag, body];
    return this.value;
  }
}

/**
 * An answer, with its tag; a null body where it is still what the tag stands for.
 * @param {string} address
 * @param {string | null} [tag]
 */
export async function ask(address, tag = null) {
  /** @type {Response} */
  let answer;
  try {
    answer = await fetch(address, {
      headers: { Accept: "application/json", ...(tag ? { "If-None-Match": tag } : {}) },
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
    });
  } catch {
    throw new Later("the server does not answer");
  }
  if (answer.status === 304) return { tag, body: null };
  if (answer.status === 401) {
    location.assign("/login"); // the session has ended
    throw new Later("logged out");
  }
  if (answer.status === 404 || answer.status === 410) throw new Gone("this run is not there any more");
  if (!answer.ok) throw new Later(`the server answered ${answer.status}`, Number(answer.headers.get("Retry-After")) || 0);
  try {
    return { tag: answer.headers.get("ETag"), body: await answer.json() };
  } catch {
    throw new Later("the answer broke off");
  }
}

/**
 * All items of a list, page by page.
 * @param {string} address  with a query
 * @param {string} name  of the list
 * @returns {Promise<any[]>}
 */
export async function all(address, name) {
  const items = [];
  for (let cursor = ""; ; ) {
    const { body } = await ask(address + cursor);
    items.push(...body[name]);
    if (body.next === null) return items;
    cursor = `&cursor=${encodeURIComponent(body.next)}`;
  }
}
