/** The results of many photos as a table that sorts, filters and pages; the arrow keys move through it. */

import { gettext, language } from "./messages.js";
import { element } from "./elements.js";
import { csvOf, download } from "./photo-csv.js";
import { labelName, percent } from "./words.js";

const PAGE_ROWS = 100;
const REDRAW_MS = 250;
const CSV_COLUMNS = ["file_name", "channel", "state", "label", "label_name", "score", "decision", "reason", "prediction_id", "model"];

/** What stands in the column Decision, and what the filter calls it. */
export const STATES = { accept: gettext("Accepted"), review: gettext("Needs review"), reject: gettext("Rejected"), done: gettext("Done"), failed: gettext("Failed"), waiting: gettext("Waiting") };

export function stateOf(answer, hasThresholds) {
  if (answer?.state === "problem") return "failed";
  if (answer?.state !== "done") return "waiting";
  return hasThresholds ? answer.result.decision.outcome : "done";
}

const SORT_KEYS = {
  file: ({ photo }) => photo.name,
  label: ({ answer, label }) => label ?? answer?.problem?.message ?? "\uffff",
  score: ({ answer }) => answer?.result?.labels[0].score ?? -1,
  decision: ({ state }) => Object.keys(STATES).indexOf(state),
};

/** `channel()` gives the channel's name, names of labels, and whether it has thresholds and shows stored photos. */
export class PhotoGrid {
  #photos = [];
  #channel;
  #onChoose;
  #root;
  #sort = { key: null, falling: false };
  #page = 0;
  #shown = [];
  #rows = new Map();
  #urls = new Set();
  #timer = null;
  #chosen = null;

  constructor(root, { photos, channel, onChoose }) {
    this.#root = root;
    this.#photos = photos;
    this.#channel = channel;
    this.#onChoose = onChoose;
    this.#body.addEventListener("keydown", (event) => this.#key(event));
    this.#body.addEventListener("click", (event) => this.#clicked(event));
    for (const button of root.querySelectorAll("[data-sort]")) button.addEventListener("click", () => this.#sortBy(button));
    for (const field of [this.#search, this.#wanted]) field.addEventListener("input", () => this.#narrowed());
    root.querySelector("[data-narrow]").addEventListener("submit", (event) => event.preventDefault());
    root.querySelector("[data-csv]").addEventListener("click", () => this.#download());
    for (const [name, step] of [["before", -1], ["after", 1]]) root.querySelector(`[data-${name}]`).addEventListener("click", () => this.#turn(step));
  }

  get #body() {
    return this.#root.querySelector("tbody");
  }

  get #search() {
    return this.#root.querySelector("[data-search-photos]");
  }

  get #wanted() {
    return this.#root.querySelector("[data-wanted]");
  }

  /** Something changed: a row that is shown follows at once, order and counts a little later. */
  changed(photo) {
    const row = this.#rows.get(photo);
    if (row) this.#fill(row, this.#entry(photo));
    this.#timer ??= setTimeout(() => this.draw(), REDRAW_MS);
  }

  choose(photo) {
    this.#chosen = photo;
    for (const [each, row] of this.#rows) mark(row, each === photo);
  }

  /** Show the page on which the rows of these photos are, and put them in order. */
  draw() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const found = this.#photos.map((photo) => this.#entry(photo)).filter((entry) => this.#matches(entry));
    const state = this.#wanted.value;
    this.#shown = this.#ordered(found.filter((entry) => !state || entry.state === state));
    this.#page = Math.max(0, Math.min(this.#page, Math.ceil(this.#shown.length / PAGE_ROWS) - 1));
    this.#count(found);
    this.#show(this.#shown.slice(this.#page * PAGE_ROWS, (this.#page + 1) * PAGE_ROWS));
  }

  #entry(photo) {
    const channel = this.#channel();
    const answer = photo.answers.get(channel.name);
    const label = answer?.result && labelName(answer.result.labels[0].label, channel.names);
    return { photo, answer, label, state: stateOf(answer, channel.thresholds) };
  }

  #matches({ photo, answer, label }) {
    const words = this.#search.value.trim().toLowerCase();
    const text = () => [photo.name, label, answer?.result?.labels[0].label, answer?.problem?.message].join("\n").toLowerCase();
    return !words || text().includes(words);
  }

  #ordered(entries) {
    const key = SORT_KEYS[this.#sort.key];
    if (!key) return entries;
    const collator = new Intl.Collator(undefined, { numeric: true });
    const sign = this.#sort.falling ? -1 : 1;
    const compared = (a, b) => (typeof a === "number" ? a - b : collator.compare(a, b));
    return entries.sort((a, b) => sign * compared(key(a), key(b)));
  }

  /** Each choice says how many of the photos with these words it would show. */
  #count(found) {
    const tally = {};
    for (const { state } of found) tally[state] = (tally[state] ?? 0) + 1;
    for (const option of this.#wanted.options) {
      const count = option.value ? (tally[option.value] ?? 0) : found.length;
      option.textContent = `${option.dataset.name} (${count.toLocaleString(language)})`;
      option.hidden = count === 0 && option.value !== "" && !option.selected;
    }
    const shown = this.#shown.length;
    this.#root.querySelector("[data-csv-count]").textContent = shown.toLocaleString(language);
    this.#root.querySelector("[data-csv]").disabled = shown === 0;
    this.#root.querySelector("[data-none]").hidden = shown > 0;
    const pager = this.#root.querySelector("[data-pager]");
    pager.hidden = shown <= PAGE_ROWS;
    const first = this.#page * PAGE_ROWS;
    pager.querySelector("[data-where]").textContent =
      gettext("%(first)s–%(shown)s of %(shown_2)s", { first: (first + 1).toLocaleString(language), shown: Math.min(first + PAGE_ROWS, shown).toLocaleString(language), shown_2: shown.toLocaleString(language) });
    pager.querySelector("[data-before]").disabled = this.#page === 0;
    pager.querySelector("[data-after]").disabled = first + PAGE_ROWS >= shown;
  }

  /** Rows that stay keep their elements, so that focus and pictures stay, too. */
  #show(entries) {
    const focused = document.activeElement;
    const kept = new Map(entries.map(({ photo }) => [photo, this.#rows.get(photo)]));
    for (const [photo, row] of this.#rows) if (!kept.has(photo)) this.#drop(row);
    const rows = entries.map((entry) => {
      const row = kept.get(entry.photo) ?? this.#made(entry);
      this.#rows.set(entry.photo, row);
      this.#fill(row, entry);
      return row;
    });
    for (const photo of [...this.#rows.keys()]) if (!kept.has(photo)) this.#rows.delete(photo);
    if (rows.length !== this.#body.children.length || rows.some((row, at) => row !== this.#body.children[at])) {
      this.#body.replaceChildren(...rows);
      if (focused?.isConnected) focused.focus({ preventScroll: true });
    }
    this.choose(this.#chosen);
    if (!rows.some((row) => row.querySelector("button").tabIndex === 0)) rows[0]?.querySelector("button").setAttribute("tabindex", "0");
  }

  #made({ photo, answer }) {
    const row = element(
      "tr",
      {},
      element("td", { class: "cell-photo" }),
      element("th", { class: "cell-file", scope: "row" }, element("button", { type: "button", tabindex: "-1" }, photo.name)),
      element("td", { class: "cell-label" }),
      element("td", { class: "cell-score number" }),
      element("td", { class: "cell-decision" }),
    );
    row.photo = photo;
    row.cells[0].append(this.#picture(photo, answer));
    return row;
  }

  /** The stored copy where there is one; else the file itself, whose address is given back once it is loaded. */
  #picture(photo, answer) {
    const picture = Object.assign(document.createElement("img"), { loading: "lazy", alt: "", decoding: "async", width: 48, height: 48 });
    const isStored = this.#channel().shows && answer?.result && answer.result.image?.kept !== "nothing";
    if (isStored) picture.src = `/predictions/${encodeURIComponent(answer.result.id)}/image?size=thumbnail`;
    else if (photo.file) {
      const url = URL.createObjectURL(photo.file);
      this.#urls.add(url);
      const release = () => this.#release(url);
      picture.addEventListener("load", release, { once: true });
      picture.addEventListener("error", release, { once: true });
      picture.src = url;
      picture.dataset.url = url;
    } else return suffixTile(photo.name);
    picture.addEventListener("error", () => picture.replaceWith(suffixTile(photo.name)), { once: true });
    return picture;
  }

  #release(url) {
    if (this.#urls.delete(url)) URL.revokeObjectURL(url);
  }

  #drop(row) {
    const url = row.querySelector("img")?.dataset.url;
    if (url) this.#release(url);
    row.remove();
  }

  #fill(row, { answer, label, state }) {
    const [, , labelCell, scoreCell, decisionCell] = row.cells;
    const key = [answer?.state, answer?.words, state, this.#channel().name].join("|");
    if (row.dataset.key === key) return;
    row.dataset.key = key;
    row.dataset.state = state;
    const problem = answer?.problem;
    labelCell.textContent = problem?.message ?? label ?? "";
    scoreCell.textContent = answer?.result ? percent(answer.result.labels[0].score) : "";
    const badge = document.getElementById(`badge-${state}`);
    const words = !answer ? gettext("Not classified") : state === "waiting" ? (answer.words ?? gettext("Waiting")) : STATES[state];
    decisionCell.replaceChildren(badge ? badge.content.cloneNode(true) : element("span", { class: "state" }, words));
  }

  // Moving

  #clicked(event) {
    const row = event.target.closest("tr");
    if (!row) return;
    row.querySelector("button").focus({ preventScroll: true });
    this.#onChoose(row.photo, { opened: true });
  }

  #key(event) {
    const last = this.#shown.length - 1;
    const here = this.#shown.findIndex(({ photo }) => photo === event.target.closest("tr")?.photo);
    const goal = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: last, PageDown: here + 10, PageUp: here - 10 }[event.key];
    if (goal === undefined || here < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const { photo } = this.#shown[Math.max(0, Math.min(goal, last))];
    this.#goTo(photo);
    this.#onChoose(photo, { opened: false });
  }

  #goTo(photo) {
    const page = Math.floor(this.#shown.findIndex((entry) => entry.photo === photo) / PAGE_ROWS);
    if (page !== this.#page) {
      this.#page = page;
      this.draw();
    }
    this.#rows.get(photo)?.querySelector("button").focus();
  }

  /** Choose the next photo of the list, or the one before. */
  step(by) {
    const here = this.#shown.findIndex(({ photo }) => photo === this.#chosen);
    const next = this.#shown[here + by];
    if (next) this.#onChoose(next.photo, { opened: true });
  }

  /** "3 of 17": where the chosen photo is in the list. */
  get place() {
    const here = this.#shown.findIndex(({ photo }) => photo === this.#chosen);
    return here < 0 ? "" : gettext("%(here)s of %(shown)s", { here: (here + 1).toLocaleString(language), shown: this.#shown.length.toLocaleString(language) });
  }

  #turn(step) {
    this.#page += step;
    this.draw();
    this.#root.querySelector("table").scrollIntoView({ block: "start" });
  }

  #narrowed() {
    this.#page = 0;
    this.draw();
  }

  /** A first click sorts upwards, a second one downwards, a third one by arrival again. */
  #sortBy(button) {
    const key = button.dataset.sort;
    const isSame = this.#sort.key === key;
    this.#sort = isSame && this.#sort.falling ? { key: null, falling: false } : { key, falling: isSame };
    for (const each of this.#root.querySelectorAll("[data-sort]")) {
      const order = this.#sort.key === each.dataset.sort ? (this.#sort.falling ? "descending" : "ascending") : "none";
      each.closest("th").setAttribute("aria-sort", order);
    }
    this.#narrowed();
  }

  #download() {
    this.draw();
    const { name, names } = this.#channel();
    const rows = this.#shown.map(({ photo, answer, state }) => {
      const result = answer?.result;
      const best = result?.labels[0];
      const label = best ? [best.label, labelName(best.label, names), best.score] : ["", "", ""];
      const model = result ? `${result.model.name}@${result.model.version}` : "";
      return [photo.name, name, STATES[state], ...label, result?.decision.outcome ?? "", answer?.problem?.message ?? "", result?.id ?? "", model];
    });
    download("photos.csv", csvOf(CSV_COLUMNS, rows), "text/csv;charset=utf-8");
  }
}

function mark(row, isChosen) {
  const button = row.querySelector("button");
  button.tabIndex = isChosen ? 0 : -1;
  if (isChosen) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

function suffixTile(name) {
  return element("span", { class: "thumb-none" }, name.includes(".") ? name.split(".").pop().slice(0, 5).toUpperCase() : "?");
}
