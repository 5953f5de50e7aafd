/** Review the photos of a run: answer for each one with a key or a tap. */

import { gettext, language } from "./messages.js";
import { ask } from "./net.js";

/** A look lasts a minute on the server. */
const LOOK_AGAIN_MS = 30_000;
const MOST_LOOKS = 50;
const ANSWERS = { none_of_these: gettext("None of these"), not_usable: gettext("Not usable") };
const STATES = { done: gettext("Done"), needs_review: gettext("Needs review"), quarantined: gettext("Quarantined"), dismissed: gettext("Dismissed") };

const gallery = document.querySelector("[data-gallery]");
const dock = document.querySelector("[data-dock]");
if (gallery && dock) browse([...gallery.children]);

function browse(tiles) {
  const part = (name) => dock.querySelector(`[data-${name}]`);
  const choices = new Map([...dock.querySelectorAll("[data-choice]")].map((button) => [button.dataset.key, button.dataset.choice]));
  const known = new Set([...dock.querySelectorAll("[data-labels] option")].map((option) => option.value));
  const said = [];
  const names = JSON.parse(gallery.dataset.names);
  const named = (label) => names[label] ?? label;
  const toReview = tiles.filter(needsReview).length;
  let current = null;
  let looking = 0;

  function select(tile, { focus = true, others = [] } = {}) {
    current?.removeAttribute("aria-current");
    tiles.forEach((each) => (each.tabIndex = -1));
    current = tile;
    tile.tabIndex = 0;
    tile.setAttribute("aria-current", "true");
    dock.hidden = false;
    describe();
    document.documentElement.style.scrollPaddingBottom = `${dock.offsetHeight}px`;
    if (focus) tile.focus({ preventScroll: true });
    look([tile, ...others]);
    tile.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  /** Tell the server what is looked at. Of several photos, the first that nobody else looks at is selected. */
  async function look(wanted) {
    clearTimeout(looking);
    const [tile] = wanted;
    const open = wanted.filter(needsReview).slice(0, MOST_LOOKS);
    if (!open.length || open[0] !== tile) return;
    let answer;
    try {
      answer = await ask("/batch/looks", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ items: open.map((each) => each.dataset.item) }),
      });
    } catch {
      return; // reviewing continues: two answers for one photo are still distinguished
    }
    for (const each of open) each.toggleAttribute("data-held", answer.held.includes(each.dataset.item));
    for (const item of answer.settled) {
      const each = open.find((one) => one.dataset.item === item.id);
      if (each && each.getAttribute("aria-busy") !== "true") settle(each, item);
    }
    if (current !== tile || tile.getAttribute("aria-busy") === "true") return;
    const given = open.find((each) => each.dataset.item === answer.item);
    if (given && given !== tile) return select(given);
    describe();
    looking = setTimeout(() => !document.hidden && current === tile && !dock.hidden && look([tile]), LOOK_AGAIN_MS);
  }

  function describe() {
    const { name, label, predicted, held } = current.dataset;
    part("dock-what").textContent = label ? `${name}: ${named(label)}` : name;
    if (held !== undefined) part("dock-what").textContent += ". Somebody else is looking at this photo.";
    part("pass").hidden = !needsReview(current);
    showCount();
    const guesses = guessesOf(current);
    for (const button of dock.querySelectorAll("[data-guess]")) {
      const guess = guesses[Number(button.dataset.guess)];
      button.hidden = guess === undefined;
      button.querySelector("span").textContent = guess === undefined ? "" : named(guess);
    }
    part("confirm").hidden = !predicted;
    part("confirm-words").textContent = gettext("Confirm \"%(predicted)s\"", { predicted: named(predicted) });
    for (const button of dock.querySelectorAll("[data-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.choice === label));
    }
  }

  /** How many photos of this page were reviewed: "7 of 39". */
  function showCount() {
    const left = tiles.filter(needsReview).length;
    part("dock-count").textContent = toReview ? gettext("%(left)s of %(to_review)s on this page", { left: toReview - left, to_review: toReview }) : "";
  }

  function close() {
    current?.removeAttribute("aria-current");
    dock.hidden = true;
    lookAway();
  }

  /** Let others have the photo at once instead of after a minute. */
  function lookAway() {
    clearTimeout(looking);
    if (!current || !needsReview(current)) return;
    const nothing = new Blob(['{"items":[]}'], { type: "application/json" });
    navigator.sendBeacon("/batch/looks", nothing);
  }

  /** Select another tile; without a selected one, the first key only selects. */
  function walk(steps) {
    const here = tiles.indexOf(current);
    if (here < 0) {
      const [first, ...others] = tiles.filter(needsReview);
      return select(first ?? tiles[0], { others });
    }
    select(tiles[Math.min(Math.max(here + steps, 0), tiles.length - 1)]);
  }

  const columns = () => getComputedStyle(gallery).gridTemplateColumns.split(" ").length;

  /** Send an answer, and select the next photo while the request is running. */
  async function say(tile, answer) {
    if (tile.getAttribute("aria-busy") === "true") return;
    const before = { ...tile.dataset };
    advance(tile);
    if (await send(tile, "label", answer)) {
      said.push([{ tile, before }]);
      part("dock-undo").hidden = false;
    } else select(tile);
  }

  /** One change of one photo; whether it was made. The server refuses it if somebody else changed the photo. */
  async function send(tile, action, body = {}) {
    tile.setAttribute("aria-busy", "true");
    part("dock-problem").textContent = "";
    try {
      const item = await ask(`/batch/items/${tile.dataset.item}/${action}`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ ...body, seen: Number(tile.dataset.revision) }),
      });
      settle(tile, item);
      return true;
    } catch (problem) {
      part("dock-problem").textContent = problem.message;
      if (problem.code === "item_changed") await refresh(tile);
      return false;
    } finally {
      tile.removeAttribute("aria-busy");
    }
  }

  /** Show the photo as it is on the server. */
  async function refresh(tile) {
    try {
      settle(tile, await ask(`/batch/items/${tile.dataset.item}`));
    } catch {
      // the problem that led here is shown already
    }
  }

  function settle(tile, item) {
    if (Number(tile.dataset.revision) === item.revision) return;
    recount(tile.dataset.state, item.state);
    Object.assign(tile.dataset, {
      state: item.state, label: item.label ?? "", answer: item.answer ?? "", proposed: item.proposed ?? "",
      revision: item.revision,
    });
    tile.toggleAttribute("data-changed", Boolean(item.answer));
    tile.querySelector("[data-tile-label]").textContent = item.label ? named(item.label) : ANSWERS[item.answer] ?? STATES[item.state];
    const words = tile.querySelector("[data-said]");
    words.hidden = !item.answer;
    words.textContent = `✓ ${answerWords({ ...item, predicted: item.predicted && named(item.predicted) })}`;
    if (tile === current) describe();
    else showCount();
  }

  /** The whole photo, as large as the window. */
  function zoom() {
    const box = document.querySelector("[data-zoom-box]");
    if (box.open) return box.close();
    if (!current.querySelector(".tile-photo img")) return; // there is none to show
    box.querySelector("img").src = `/batch/items/${current.dataset.item}/photo?size=view`;
    box.querySelector("img").alt = current.dataset.name;
    box.showModal();
  }

  /** Select the next photo that needs review; after the last one, focus the link to the next page. */
  function advance(tile) {
    const open = (each) => needsReview(each) && each !== tile && each.getAttribute("aria-busy") !== "true";
    const here = tiles.indexOf(tile);
    const [next, ...others] = [...tiles.slice(here + 1), ...tiles.slice(0, here)].filter(open);
    if (next) return select(next, { others });
    if (tile.dataset.state === "needs_review") {
      part("dock-what").textContent = gettext("Page complete.");
      document.querySelector("[data-more]")?.focus();
    } else if (tiles[here + 1]) select(tiles[here + 1]);
  }

  /** The photo goes to the end of this person's queue, here and on the server. */
  async function skip(tile) {
    if (!needsReview(tile) || tile.getAttribute("aria-busy") === "true") return;
    advance(tile);
    tiles.push(...tiles.splice(tiles.indexOf(tile), 1));
    gallery.append(tile);
    part("dock-problem").textContent = "";
    try {
      await ask(`/batch/items/${tile.dataset.item}/skip`, { method: "POST" });
    } catch (problem) {
      part("dock-problem").textContent = problem.message;
    }
  }

  /** Withdraw the last answer: the photo is again as it was, and nothing is learned from the answer. */
  async function undo() {
    const last = said.pop();
    if (!last) return;
    for (const { tile, before } of last.toReversed()) {
      const undone = await send(tile, "reopen");
      if (undone && before.answer) await send(tile, "label", earlierAnswer(before)); // given by a person, too
    }
    part("dock-undo").hidden = said.length === 0;
    select(last[0].tile);
  }

  const keys = {
    j: () => walk(1), ArrowRight: () => walk(1), k: () => walk(-1), ArrowLeft: () => walk(-1),
    ArrowDown: () => walk(columns()), ArrowUp: () => walk(-columns()), u: undo, Escape: close,
  };
  const keysOfTile = {
    y: () => current.dataset.predicted && say(current, { confirm: true }),
    n: () => say(current, { none_of_these: true }),
    x: () => say(current, { not_usable: true }),
    s: () => skip(current),
    o: () => current.querySelector(".tile-photo").click(),
    z: zoom,
    2: () => guess(0),
    3: () => guess(1),
  };

  function guess(place) {
    const label = guessesOf(current)[place];
    if (label !== undefined) return say(current, { label });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    const box = document.querySelector("[data-zoom-box]");
    if (box.open && event.key.toLowerCase() !== "z") return; // Escape closes it; nothing behind it is answered
    const chosen = current && !dock.hidden;
    const label = choices.get(event.key.toLowerCase());
    let act = keys[event.key];
    if (chosen && event.key === "Enter" && event.target === current) act = keysOfTile.y;
    else if (chosen && label !== undefined && !event.shiftKey) act = () => say(current, { label });
    else if (chosen) act ??= keysOfTile[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });

  gallery.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    // Keyboard activation (detail is 0) and clicks with a modifier follow the link.
    if (!tile || event.target.closest("form") || event.detail === 0 || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    select(tile);
  });
  gallery.addEventListener("focusin", (event) => event.target.matches(".tile") && event.target !== current && select(event.target, { focus: false }));

  part("confirm").addEventListener("click", keysOfTile.y);
  part("zoom").addEventListener("click", zoom);
  for (const button of dock.querySelectorAll("[data-guess]")) {
    button.addEventListener("click", () => guess(Number(button.dataset.guess)));
  }
  part("none").addEventListener("click", keysOfTile.n);
  part("unusable").addEventListener("click", keysOfTile.x);
  part("pass").addEventListener("click", keysOfTile.s);
  part("dock-undo").addEventListener("click", undo);
  part("dock-close").addEventListener("click", close);
  for (const button of dock.querySelectorAll("[data-choice]")) {
    button.addEventListener("click", () => say(current, { label: button.dataset.choice }));
  }
  part("dock-other")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const field = event.target.elements.label;
    const label = field.value.trim();
    // A category that the model does not have is proposed: it is never a label.
    if (label) say(current, known.has(label) ? { label } : { none_of_these: true, proposed: label });
    field.value = "";
  });
  addEventListener("pagehide", lookAway);
  tiles[0].tabIndex = 0;
  document.querySelector("[data-hint]").hidden = false;
}

/** The counters of the page follow each answer; they are the words of the server until then. */
function recount(from, to) {
  if (from === to) return;
  for (const [state, step] of [[from, -1], [to, 1]]) {
    for (const place of document.querySelectorAll(`[data-word="${state}"]`)) {
      place.textContent = (Number(place.textContent.replaceAll(",", "")) + step).toLocaleString(language);
    }
  }
}

function answerWords({ answer, predicted, proposed }) {
  const unknown = gettext("unknown");
  if (answer === "corrected") return gettext("Corrected, was %(predicted)s", { predicted: predicted ?? unknown });
  if (answer === "none_of_these") return proposed ? gettext("None of these: %(proposed)s", { proposed }) : gettext("None of these");
  return answer === "not_usable" ? gettext("Not usable") : gettext("Confirmed");
}

/** The answer that a photo had, to be given again. */
function earlierAnswer({ answer, label, proposed }) {
  if (answer === "none_of_these") return { none_of_these: true, ...(proposed && { proposed }) };
  return answer === "not_usable" ? { not_usable: true } : { label };
}

/** The labels that came second and third. */
function guessesOf(tile) {
  return JSON.parse(tile.dataset.guesses || "[]");
}

function needsReview(tile) {
  return tile.dataset.state === "needs_review";
}
