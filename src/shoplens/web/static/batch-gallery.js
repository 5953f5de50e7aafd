/** Review the photos of a run: confirm or change each one with a key or a tap. */

import { ask } from "./net.js";

const gallery = document.querySelector("[data-gallery]");
const dock = document.querySelector("[data-dock]");
if (gallery && dock) browse([...gallery.children]);

function browse(tiles) {
  const part = (name) => dock.querySelector(`[data-${name}]`);
  const choices = new Map([...dock.querySelectorAll("[data-choice]")].map((button) => [button.dataset.key, button.dataset.choice]));
  const said = [];
  let current = null;

  function select(tile, { focus = true } = {}) {
    current?.removeAttribute("aria-current");
    tiles.forEach((each) => (each.tabIndex = -1));
    current = tile;
    tile.tabIndex = 0;
    tile.setAttribute("aria-current", "true");
    dock.hidden = false;
    describe();
    document.documentElement.style.scrollPaddingBottom = `${dock.offsetHeight}px`;
    if (focus) tile.focus({ preventScroll: true });
    tile.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  function describe() {
    const { name, label, predicted } = current.dataset;
    part("dock-what").textContent = label ? `${name}: ${label}` : name;
    part("confirm").hidden = !predicted;
    part("confirm-words").textContent = `Confirm "${predicted}"`;
    for (const button of dock.querySelectorAll("[data-choice]")) {
      button.setAttribute("aria-pressed", String(button.dataset.choice === label));
    }
  }

  function close() {
    current?.removeAttribute("aria-current");
    dock.hidden = true;
  }

  /** Select another tile; without a selected one, the first key only selects. */
  function walk(steps) {
    const here = tiles.indexOf(current);
    if (here < 0) return select(tiles.find(needsReview) ?? tiles[0]);
    select(tiles[Math.min(Math.max(here + steps, 0), tiles.length - 1)]);
  }

  const columns = () => getComputedStyle(gallery).gridTemplateColumns.split(" ").length;

  /** Send the label, and select the next photo while the request is running. */
  async function say(tile, body) {
    if (tile.getAttribute("aria-busy") === "true") return;
    const before = tile.dataset.label;
    tile.setAttribute("aria-busy", "true");
    part("dock-problem").textContent = "";
    advance(tile);
    try {
      const item = await ask(`/batch/items/${tile.dataset.item}/label`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(body),
      });
      settle(tile, item);
      said.push({ tile, before });
      part("dock-undo").hidden = false;
    } catch (problem) {
      part("dock-problem").textContent = problem.message;
      select(tile);
    } finally {
      tile.removeAttribute("aria-busy");
    }
  }

  function settle(tile, item) {
    Object.assign(tile.dataset, { state: item.state, label: item.label ?? "", changed: "" });
    tile.querySelector("[data-tile-label]").textContent = item.label;
    const words = tile.querySelector("[data-said]");
    words.hidden = false;
    words.textContent = item.label === item.predicted ? "✓ Confirmed" : `✓ Corrected, was ${item.predicted ?? "unknown"}`;
    if (tile === current) describe();
  }

  /** Select the next photo that needs review; after the last one, focus the link to the next page. */
  function advance(tile) {
    const open = (each) => needsReview(each) && each !== tile && each.getAttribute("aria-busy") !== "true";
    const here = tiles.indexOf(tile);
    const next = tiles.slice(here + 1).find(open) ?? tiles.slice(0, here).find(open);
    if (next) return select(next);
    if (tile.dataset.state === "needs_review") {
      part("dock-what").textContent = "Page complete.";
      document.querySelector("[data-more]")?.focus();
    } else if (tiles[here + 1]) select(tiles[here + 1]);
  }

  /** Set the earlier label of the last changed photo again. */
  async function undo() {
    const last = said.pop();
    if (!last) return;
    part("dock-undo").hidden = said.length === 0;
    const { tile, before } = last;
    if (before && before !== tile.dataset.label) {
      await say(tile, { label: before });
      said.pop();
      part("dock-undo").hidden = said.length === 0;
    }
    select(tile);
  }

  const keys = {
    j: () => walk(1), ArrowRight: () => walk(1), k: () => walk(-1), ArrowLeft: () => walk(-1),
    ArrowDown: () => walk(columns()), ArrowUp: () => walk(-columns()), u: undo, Escape: close,
  };
  const keysOfTile = {
    y: () => current.dataset.predicted && say(current, { confirm: true }),
    o: () => current.querySelector(".tile-photo").click(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
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
  part("dock-undo").addEventListener("click", undo);
  part("dock-close").addEventListener("click", close);
  for (const button of dock.querySelectorAll("[data-choice]")) {
    button.addEventListener("click", () => say(current, { label: button.dataset.choice }));
  }
  part("dock-other")?.addEventListener("submit", (event) => {
    event.preventDefault();
    const field = event.target.elements.label;
    if (field.value.trim()) say(current, { label: field.value.trim() });
    field.value = "";
  });
  tiles[0].tabIndex = 0;
  document.querySelector("[data-hint]").hidden = false;
}

function needsReview(tile) {
  return tile.dataset.state === "needs_review";
}
