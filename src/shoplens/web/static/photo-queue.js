/** The photos that wait to be sent: a few at a time, with a pause, and patience while the server cannot be reached. */

import { gettext } from "./messages.js";

const MOST_AT_ONCE = 4;
const QUICK_S = 1.5;
const SLOW_S = 4;
const FIRST_WAIT_S = 3;
const LONGEST_WAIT_S = 30;
const PACE_PHOTOS = 60;

const OUTAGE_STATUS = [401, 429, 503];

/** Whether it is a problem of the line or the whole server, not of one photo: the photo waits and is sent again. */
export function isOutage(problem) {
  return problem.code === "network" || OUTAGE_STATUS.includes(problem.status);
}

/** `work(task)` sends one and throws a Problem only for an outage; `onChange()` is called when the queue stops or goes on. */
export class PhotoQueue {
  #waiting = [];
  #running = 0;
  #wait = FIRST_WAIT_S;
  #timer = null;
  #atOnce = 1;
  paused = false;
  outage = null;

  constructor({ work, onChange }) {
    Object.assign(this, { work, onChange });
    addEventListener("online", () => this.outage && this.resume());
  }

  get size() {
    return this.#waiting.length;
  }

  get running() {
    return this.#running;
  }

  add(task, { first = false } = {}) {
    if (first) this.#waiting.unshift(task);
    else this.#waiting.push(task);
    this.#pump();
  }

  /** Put the task that `matches` before all others. */
  hurry(matches) {
    const at = this.#waiting.findIndex(matches);
    if (at > 0) this.#waiting.unshift(...this.#waiting.splice(at, 1));
  }

  clear() {
    this.#waiting = [];
    this.resume();
  }

  /** An upload took so long: several at once make a quick line full, and a slow one too slow for the server. */
  uploaded(seconds) {
    if (seconds > SLOW_S) this.#atOnce = 1;
    else if (seconds < QUICK_S) this.#atOnce = Math.min(this.#atOnce + 1, MOST_AT_ONCE);
  }

  pause() {
    this.paused = true;
    this.onChange();
  }

  resume() {
    clearTimeout(this.#timer);
    this.paused = false;
    this.outage = null;
    this.onChange();
    this.#pump();
  }

  #pump() {
    while (!this.paused && !this.outage && this.#running < this.#atOnce && this.#waiting.length > 0) {
      const task = this.#waiting.shift();
      this.#running += 1;
      this.work(task)
        .then(() => (this.#wait = FIRST_WAIT_S))
        .catch((problem) => this.#stop(task, problem))
        .finally(() => {
          this.#running -= 1;
          this.#pump();
        });
    }
  }

  /** Nothing is lost: the photo goes back to the front, and the queue goes on by itself. */
  #stop(task, problem) {
    this.#waiting.unshift(task);
    if (this.outage) return;
    const waitS = Math.max(this.#wait, problem.retryAfterS ?? 0);
    this.outage = { problem, waitS };
    this.#wait = Math.min(2 * this.#wait, LONGEST_WAIT_S);
    if (!this.paused) this.#timer = setTimeout(() => this.resume(), waitS * 1000);
    this.onChange();
  }
}

/** Photos per second, over the last ones, without the time in which the queue stood still. */
export class Pace {
  #moments = [];

  settled() {
    this.#moments.push(performance.now());
    if (this.#moments.length > PACE_PHOTOS) this.#moments.shift();
  }

  restart() {
    this.#moments = [];
  }

  /** null until enough is known. */
  get perSecond() {
    const [first, last] = [this.#moments[0], this.#moments.at(-1)];
    return this.#moments.length < 5 || last - first < 500 ? null : ((this.#moments.length - 1) * 1000) / (last - first);
  }
}

/** "about 2 min left" in steps that do not flicker. */
export function timeLeft(seconds) {
  if (seconds < 10) return gettext("a few seconds left");
  if (seconds < 60) return gettext("about %(seconds)s s left", { seconds: Math.ceil(seconds / 10) * 10 });
  if (seconds < 5400) return gettext("about %(seconds)s min left", { seconds: Math.ceil(seconds / 60) });
  return gettext("about %(seconds)s h left", { seconds: (seconds / 3600).toFixed(1) });
}
