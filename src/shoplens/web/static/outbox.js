/** Decisions on their way to the server: one after the other, kept while the server cannot be reached. */

import { ask } from "./net.js";

const FIRST_WAIT_MS = 1_000;
const LONGEST_WAIT_MS = 15_000;

/** `onDone(entry, answer)`, `onRefused(entry, problem)`, `onWaiting(number, problem)` while something waits. `kept` names
 * the decisions of a page and `me` tells people apart who share a browser: decisions are sent from the page and by the
 * person who made them, or not at all. */
export class Outbox {
  #entries = [];
  #running = false;
  #key = "";
  #wait = FIRST_WAIT_MS;
  #wake = null;

  constructor({ kept, me, onDone, onRefused, onWaiting }) {
    Object.assign(this, { onDone, onRefused, onWaiting });
    this.#key = `${kept}-${me}`;
    this.#entries = restored(this.#key);
    addEventListener("online", () => this.#wake?.());
    addEventListener("beforeunload", (event) => this.#wake && event.preventDefault());
    this.#run();
  }

  get size() {
    return this.#entries.length;
  }

  ids() {
    return this.#entries.map((entry) => entry.id);
  }

  add(entry) {
    this.#entries.push(entry);
    this.#keep();
    this.#run();
  }

  /** Take back what was not begun to be sent; whether that was possible. */
  withdraw(id) {
    const at = this.#entries.findLastIndex((entry, index) => entry.id === id && !(index === 0 && this.#running && !this.#wake));
    if (at < 0) return false;
    this.#entries.splice(at, 1);
    this.#keep();
    return true;
  }

  #keep() {
    try {
      sessionStorage.setItem(this.#key, JSON.stringify(this.#entries));
    } catch {
      // without storage they are kept as long as the page is open
    }
  }

  async #run() {
    if (this.#running) return;
    this.#running = true;
    while (this.#entries.length) {
      const entry = this.#entries[0];
      try {
        const answer = await ask(entry.path, {
          method: "POST",
          keepalive: true, // a page that is closed now takes no decision with it
          headers: { "Content-Type": "application/json" },
          ...(entry.body && { body: JSON.stringify(entry.body) }),
        });
        this.#finished(entry);
        this.onDone(entry, answer);
      } catch (problem) {
        if (problem.passing || problem.code === "not_authenticated") await this.#pause(problem);
        else {
          this.#finished(entry);
          this.onRefused(entry, problem);
        }
      }
    }
    this.#running = false;
  }

  #finished(entry) {
    this.#entries = this.#entries.filter((each) => each !== entry);
    this.#keep();
    this.#wait = FIRST_WAIT_MS;
    this.onWaiting(0);
  }

  async #pause(problem) {
    this.onWaiting(this.#entries.length, problem);
    const wait = problem.retryAfterS === null ? this.#wait : problem.retryAfterS * 1000;
    await new Promise((wake) => {
      this.#wake = wake;
      setTimeout(wake, wait);
    });
    this.#wake = null;
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT_MS);
  }
}

function restored(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key) ?? "[]");
  } catch {
    return [];
  }
}
