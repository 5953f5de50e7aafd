/** Decide photos from the keyboard: single photo or grid, with the next photos at hand so that nothing has to wait. */

import { gettext, language, ngettext } from "./messages.js";
import { element, imageElement } from "./elements.js";
import { besideOf, heatOf, imageOf, queueWord, referenceList, signalList, why, wordsOf } from "./moderation-view.js";
import { ask } from "./net.js";
import { Outbox } from "./outbox.js";

const CLAIMED = { single: 12, grid: 30 };
const REFILL_BELOW = { single: 6, grid: 12 };
const MOST_CLAIMED = 60;
const RENEW_MS = 45_000;
const LOOK_AGAIN_MS = 10_000;
const BESIDE_AFTER_MS = 150;
const PREFETCHED = 4;
const MOST_UNDONE = 20;
const VIEWS = ["blur", "grey", "plain"];
const VIEW_WORDS = { blur: gettext("View: blurred"), grey: gettext("View: grey"), plain: gettext("View: as they are") };
const DONE = { accept: gettext("Accepted"), reject: gettext("Rejected"), skip: gettext("Skipped"), escalate: gettext("Escalated"), undo: gettext("Taken back") };

const root = document.querySelector("[data-moderation]");
if (root) start();

function start() {
  const { channel } = root.dataset;
  const slot = (name) => root.querySelector(`[data-slot="${name}"]`);
  const boot = JSON.parse(root.dataset.boot);
  let photos = boot.photos;
  let at = 0;
  let filling = null;
  let besideTimer = 0;
  let heat = null;
  const settled = new Set();
  const selected = new Set();
  const undoable = JSON.parse(root.dataset.undoable).reverse();
  const besides = new Map();
  const outbox = new Outbox({ kept: "shoplens-decisions", me: root.dataset.me, onDone, onRefused, onWaiting });
  for (const id of outbox.ids()) settled.add(id);
  const mode = () => root.dataset.mode;
  const current = () => photos[at];

  // What the server said

  function onDone(entry, answer) {
    progress(answer.progress ?? answer);
    if (entry.kind === "undo") putBack(answer.photo);
    if (photos.length === 0) refill();
  }

  function onRefused(entry, problem) {
    const here = undoable.lastIndexOf(entry.id);
    if (here >= 0 && entry.kind !== "undo") undoable.splice(here, 1);
    const link = element("a", { href: `/console/moderation/photos/${entry.id}` }, gettext("Look at the photo"));
    slot("problem").replaceChildren(`${problem.message} `, link);
    if (["not_authenticated", "permission_denied"].includes(problem.code)) return;
    settled.delete(entry.id);
    refill();
  }

  function onWaiting(number, problem) {
    const line = slot("offline");
    line.hidden = number === 0;
    if (!number) return line.replaceChildren();
    const kept = ngettext("%(number)s decision is kept and sent", "%(number)s decisions are kept and sent", number);
    if (problem.code === "not_authenticated") line.replaceChildren(gettext("You are signed out. %(kept)s once you have ", { kept }), element("a", { href: "/sign-in?next=/console/moderation" }, gettext("signed in")), ".");
    else line.textContent = gettext("The server cannot be reached. %(kept)s as soon as it answers.", { kept });
  }

  function progress({ waiting, with_others: others, today, per_minute: pace, agreed, compared, pause }) {
    const words = {
      waiting: waiting >= 10_000 ? "10,000+" : waiting.toLocaleString(language), with_others: others.toLocaleString(language),
      today: today.toLocaleString(language), per_minute: pace === null ? "–" : pace.toFixed(1),
      agreement: compared ? `${Math.round((100 * agreed) / compared)}%` : "–", pause: String(pause ?? 0),
    };
    for (const [name, text] of Object.entries(words)) for (const place of root.querySelectorAll(`[data-word="${name}"]`)) place.textContent = text;
    slot("pause").hidden = pause === null;
    boot.progress.waiting = waiting;
  }

  // Claims

  /** Renew what is here, and get more. Only one request at a time. */
  function refill() {
    filling ??= claim().finally(() => (filling = null));
    return filling;
  }

  async function claim() {
    // What is on its way to the server is held too, so that nobody else gets it before.
    const holding = [...new Set([...photos.map((photo) => photo.id), ...outbox.ids()])].slice(0, MOST_CLAIMED);
    const count = Math.min(MOST_CLAIMED, Math.max(CLAIMED[mode()], photos.length) + outbox.size);
    let answer;
    try {
      answer = await post("/moderation/claims", { channel, count, holding });
    } catch (problem) {
      if (!problem.passing) slot("problem").textContent = problem.message;
      return;
    }
    if (outbox.size === 0) progress(answer.progress);
    const here = current()?.id;
    const known = new Map(photos.map((photo) => [photo.id, photo]));
    const fresh = answer.photos.filter((photo) => !known.has(photo.id) && !settled.has(photo.id));
    const kept = photos.filter((photo) => !answer.lost.includes(photo.id));
    const changed = fresh.length > 0 || kept.length < photos.length;
    photos = [...kept, ...fresh];
    at = Math.max(0, photos.findIndex((photo) => photo.id === here));
    if (changed || photos.length === 0) show();
    prefetch();
  }

  function post(path, body) {
    return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  }

  function prefetch() {
    for (const photo of photos.slice(at + 1, at + 1 + PREFETCHED)) if (mode() === "single") new Image().src = imageOf(photo, "view");
  }

  // Show

  function show() {
    const photo = current();
    slot("single").hidden = mode() !== "single" || !photo;
    slot("grid").hidden = mode() !== "grid" || !photo;
    slot("empty").hidden = Boolean(photo) || boot.progress.waiting > 0;
    slot("others").hidden = Boolean(photo) || boot.progress.waiting === 0;
    root.querySelector("[data-mode-word]").textContent = mode() === "grid" ? gettext("Single") : gettext("Grid");
    for (const place of root.querySelectorAll("[data-view-word]")) place.textContent = VIEW_WORDS[root.dataset.view];
    for (const button of root.querySelectorAll("[data-do=undo]")) button.disabled = undoable.length === 0;
    if (mode() === "grid") showGrid();
    else if (photo) showSingle(photo);
    if (!photo) closeReasons();
  }

  function showSingle(photo) {
    if (slot("single").dataset.id === photo.id) return;
    slot("single").dataset.id = photo.id;
    closeReasons(); // not when photos only arrive behind: somebody may be choosing a reason
    root.querySelector("[data-shot]").removeAttribute("data-shown");
    hideHeat();
    slot("photo").replaceChildren(imageElement(imageOf(photo, "view"), { alt: gettext("Photo %(id)s", { id: photo.id.slice(-6) }), decoding: "async" }));
    slot("queue").textContent = queueWord(photo);
    slot("why").textContent = why(photo);
    slot("signals").replaceChildren(...signalList(photo));
    slot("references").replaceChildren(referenceList(photo));
    fillBeside(besides.get(photo.id));
    clearTimeout(besideTimer);
    if (!besides.has(photo.id)) besideTimer = setTimeout(() => showBeside(photo), BESIDE_AFTER_MS);
  }

  function fillBeside({ words, beside } = { words: [], beside: [] }) {
    slot("words").replaceChildren(...words);
    slot("beside").replaceChildren(...beside);
  }

  async function showBeside(photo) {
    try {
      const context = await ask(`/moderation/photos/${photo.id}/context`);
      besides.set(photo.id, { words: wordsOf(context), beside: besideOf(context) });
      if (current()?.id === photo.id) fillBeside(besides.get(photo.id));
    } catch {
      // the photo can be decided without it
    }
  }

  function showGrid() {
    const gallery = root.querySelector("[data-gallery]");
    const old = new Map([...gallery.children].map((tile) => [tile.dataset.id, tile]));
    gallery.replaceChildren(...photos.map((photo) => old.get(photo.id) ?? tileOf(photo)));
    const focused = gallery.contains(document.activeElement) || document.activeElement === document.body;
    [...gallery.children].forEach((tile, index) => {
      tile.tabIndex = index === at ? 0 : -1;
      tile.toggleAttribute("aria-current", index === at);
      tile.toggleAttribute("data-selected", selected.has(tile.dataset.id));
      const box = tile.querySelector("input");
      if (box) box.checked = selected.has(tile.dataset.id);
    });
    if (focused) gallery.children[at]?.focus({ preventScroll: true });
    gallery.children[at]?.scrollIntoView({ block: "nearest" });
    slot("selected").textContent = selected.size ? gettext("%(selected)s selected", { selected: selected.size }) : gettext("Keys act on the marked photo, or on the selection");
  }

  function tileOf(photo) {
    const box = element("input", { type: "checkbox", name: "photo", value: `${photo.id}:${photo.revision}`, tabindex: -1 });
    return element("div", { class: "tile mod-tile", "data-id": photo.id, tabindex: -1, role: "group", "aria-label": why(photo) },
      element("span", { class: "tile-photo" }, imageElement(imageOf(photo, "thumbnail"), { class: "tile-img", alt: "", width: 256, height: 256 })),
      element("label", { class: "tile-label" }, box, element("strong", {}, queueWord(photo))),
      element("p", { class: "tile-refs" }, why(photo)));
  }

  function say(words) {
    slot("spoken").textContent = words;
  }

  // Decide

  /** The photos that a key acts on. */
  function targets() {
    if (mode() === "grid" && selected.size) return photos.filter((photo) => selected.has(photo.id));
    return current() ? [current()] : [];
  }

  function act(kind, more = {}) {
    const chosen = targets();
    if (!chosen.length) return;
    closeReasons();
    slot("problem").textContent = "";
    for (const photo of chosen) send(kind, photo, more);
    selected.clear();
    at = Math.min(at, Math.max(0, photos.length - 1));
    show();
    prefetch();
    const number = chosen.length > 1 ? ` (${ngettext("%(number)s photo", "%(number)s photos", chosen.length)})` : "";
    say(`${DONE[kind]}${number}. ${photos.length ? why(current()) : ""}`);
    if (photos.length < REFILL_BELOW[mode()]) refill();
  }

  /** The photo leaves the page at once; the request runs behind. */
  function send(kind, photo, more) {
    photos = photos.filter((each) => each.id !== photo.id);
    settled.add(photo.id);
    if (kind === "skip") {
      settled.delete(photo.id);
      outbox.add({ id: photo.id, kind, path: `/moderation/photos/${photo.id}/skip` });
      return;
    }
    undoable.push(photo.id);
    if (undoable.length > MOST_UNDONE) undoable.shift();
    const seen = photo.revision;
    if (kind === "escalate") outbox.add({ id: photo.id, kind, photo, path: `/moderation/photos/${photo.id}/escalate`, body: { seen } });
    else outbox.add({ id: photo.id, kind, photo, path: `/moderation/photos/${photo.id}/decision`, body: { decision: kind, seen, ...more } });
  }

  function undo() {
    const id = undoable.pop();
    if (!id) return say(gettext("Nothing to undo"));
    slot("problem").textContent = "";
    outbox.add({ id, kind: "undo", path: `/moderation/photos/${id}/undo` });
    say(DONE.undo);
  }

  /** The photo is the current one again. */
  function putBack(photo) {
    settled.delete(photo.id);
    if (photo.queue === null) return refill();
    photos = [photo, ...photos.filter((each) => each.id !== photo.id)];
    at = 0;
    besides.delete(photo.id);
    delete slot("single").dataset.id;
    show();
  }

  // Reasons

  function openReasons() {
    if (!targets().length) return;
    slot("reasons").hidden = false;
    for (const button of root.querySelectorAll("[data-do=reject]")) button.setAttribute("aria-expanded", "true");
    slot("reasons").querySelector("button").focus();
  }

  function closeReasons() {
    if (slot("reasons").hidden) return;
    const inside = slot("reasons").contains(document.activeElement);
    slot("reasons").hidden = true;
    for (const button of root.querySelectorAll("[data-do=reject]")) button.setAttribute("aria-expanded", "false");
    if (inside) (mode() === "grid" ? root.querySelector("[data-gallery]").children[at] : root.querySelector("[data-bar] [data-do=reject]"))?.focus();
  }

  function walkReasons(step) {
    const buttons = [...slot("reasons").querySelectorAll("button")];
    buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length].focus();
  }

  // Look

  function walk(step) {
    if (!photos.length) return;
    at = Math.min(Math.max(at + step, 0), photos.length - 1);
    show();
    prefetch();
    if (mode() === "grid") root.querySelector("[data-gallery]").children[at].focus();
  }

  const columns = () => getComputedStyle(root.querySelector("[data-gallery]")).gridTemplateColumns.split(" ").length;

  function cycleView() {
    root.dataset.view = VIEWS[(VIEWS.indexOf(root.dataset.view) + 1) % VIEWS.length];
    root.querySelector("[data-view-choice]").value = root.dataset.view;
    for (const each of root.querySelectorAll("[data-shown]")) each.removeAttribute("data-shown");
    show();
    say(VIEW_WORDS[root.dataset.view]);
    choose({});
  }

  function choose(more) {
    const { view, letters, pauseAfter } = root.dataset;
    const chosen = { view, letters: letters === "on", pause_after: pauseAfter ? Number(pauseAfter) : null, ...more };
    ask("/moderation/moderator", { method: "PUT", keepalive: true, headers: { "Content-Type": "application/json" }, body: JSON.stringify(chosen) })
      .catch((problem) => (slot("problem").textContent = problem.message));
  }

  function reveal() {
    const place = mode() === "grid" ? root.querySelector("[data-gallery]").children[at] : root.querySelector("[data-shot]");
    place?.toggleAttribute("data-shown");
  }

  function hideHeat() {
    if (heat) URL.revokeObjectURL(heat);
    heat = null;
    root.querySelector("[data-heat]").hidden = true;
    slot("heat-words").hidden = true;
    root.querySelector("[data-do=heat]").setAttribute("aria-pressed", "false");
  }

  async function toggleHeat() {
    const photo = current();
    if (heat || mode() === "grid" || !photo) return hideHeat();
    const picture = root.querySelector("[data-heat]");
    try {
      const { address, clear } = await heatOf(photo.id);
      if (current()?.id !== photo.id) return URL.revokeObjectURL(address);
      heat = address;
      picture.src = heat;
      picture.hidden = false;
      slot("heat-words").hidden = !clear;
      root.querySelector("[data-do=heat]").setAttribute("aria-pressed", "true");
    } catch (problem) {
      slot("problem").textContent = problem.message;
    }
  }

  function switchMode() {
    closeReasons();
    root.dataset.mode = mode() === "grid" ? "single" : "grid";
    selected.clear();
    delete slot("single").dataset.id;
    show();
    if (mode() === "grid") root.querySelector("[data-gallery]").children[at]?.focus();
    refill();
  }

  function select(index = at) {
    const photo = photos[index];
    if (!photo || mode() !== "grid") return;
    if (!selected.delete(photo.id)) selected.add(photo.id);
    show();
  }

  function selectAll() {
    if (mode() !== "grid") return;
    if (selected.size === photos.length) selected.clear();
    else for (const photo of photos) selected.add(photo.id);
    show();
  }

  const help = root.querySelector("[data-help]");
  const does = {
    accept: () => act("accept"), reject: () => (slot("reasons").hidden ? openReasons() : closeReasons()), skip: () => act("skip"),
    escalate: () => act("escalate"), undo, heat: toggleHeat, blur: cycleView, mode: switchMode, show: reveal, all: selectAll,
    help: () => (help.open ? help.close() : help.showModal()),
  };
  const letters = {
    a: "accept", r: "reject", s: "skip", e: "escalate", u: "undo", g: "mode", b: "blur", h: "heat", v: "show", "?": "help", "*": "all",
  };
  const moves = {
    ArrowRight: () => walk(1), ArrowLeft: () => walk(-1),
    ArrowDown: () => mode() === "grid" && walk(columns()), ArrowUp: () => mode() === "grid" && walk(-columns()),
  };

  /** What a key does; undefined if nothing. */
  function meaning(event) {
    const hasLetters = root.dataset.letters === "on";
    if (!slot("reasons").hidden) {
      if (event.key === "Escape") return closeReasons;
      if (["ArrowRight", "ArrowDown"].includes(event.key)) return () => walkReasons(1);
      if (["ArrowLeft", "ArrowUp"].includes(event.key)) return () => walkReasons(-1);
      const reason = hasLetters && slot("reasons").querySelectorAll("button")[Number(event.key) - 1];
      if (reason) return () => reason.click();
    }
    if (moves[event.key]) return moves[event.key];
    if (!hasLetters) return undefined;
    if (event.key === "x" || (event.key === " " && event.target.closest(".mod-tile"))) return mode() === "grid" ? () => select() : undefined;
    return does[letters[event.key.length === 1 ? event.key.toLowerCase() : event.key]];
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), select, textarea, summary")) return;
    if (help.open && event.key !== "?") return;
    const action = meaning(event);
    if (!action) return;
    event.preventDefault();
    if (!event.repeat || moves[event.key]) action();
  });

  root.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do], [data-reason]");
    const tile = event.target.closest(".mod-tile");
    if (button) {
      event.preventDefault();
      if (button.dataset.reason) act("reject", { reason: button.dataset.reason });
      else does[button.dataset.do]();
    } else if (tile && mode() === "grid") {
      event.preventDefault();
      at = photos.findIndex((photo) => photo.id === tile.dataset.id);
      select();
    }
  });
  root.querySelector("[data-pause]").addEventListener("submit", (event) => {
    event.preventDefault();
    slot("pause").hidden = true;
    choose({ paused: true });
  });
  addEventListener("pagehide", () => {
    const release = photos.map((photo) => photo.id);
    const leaving = new Blob([JSON.stringify({ channel, count: 0, release })], { type: "application/json" });
    navigator.sendBeacon("/moderation/claims", leaving);
  });
  setInterval(() => !document.hidden && photos.length && refill(), RENEW_MS);
  setInterval(() => !document.hidden && !photos.length && refill(), LOOK_AGAIN_MS);
  addEventListener("pageshow", (event) => event.persisted && refill());
  if (current() && mode() === "single") slot("single").dataset.id = current().id;
  show();
  refill();
}
