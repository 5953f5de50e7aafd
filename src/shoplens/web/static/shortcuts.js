/**
 * Shortcuts of a single character can be switched off, be moved to Alt, or get other keys, for all pages in one place
 * (WCAG 2.1.4).
 *
 * Speech input and trembling hands press letters that nobody meant. The choice is kept in this browser. Pages know
 * their own keys only: what is pressed becomes the key of the page before any handler of it sees the event.
 */

const PLACE = "shoplens.shortcuts";
const FIELDS = "input, select, textarea, [contenteditable]";
const PASSED_ON = "passedOn";
const KEYS = "shoplens.keys";

let mode = stored();
const meant = meanings(chosenKeys(document.body.dataset.keys));

function stored() {
  try {
    return localStorage.getItem(PLACE) ?? "on";
  } catch {
    return "on"; // the browser keeps nothing
  }
}

/** The keys that this browser has for actions of a page, by the keys that these have by themselves. */
export function chosenKeys(page) {
  try {
    return JSON.parse(localStorage.getItem(KEYS) ?? "{}")[page] ?? {};
  } catch {
    return {}; // the browser keeps nothing, or something else
  }
}

/** Keep the keys of a page; those that are as they were are left out. */
export function keepKeys(page, chosen) {
  const changed = Object.fromEntries(Object.entries(chosen).filter(([key, other]) => key !== other));
  try {
    const all = JSON.parse(localStorage.getItem(KEYS) ?? "{}");
    localStorage.setItem(KEYS, JSON.stringify({ ...all, [page]: changed }));
  } catch {
    // the browser keeps nothing
  }
}

/** Whether a text can be the key of an action. */
export function isShortcut(text) {
  return [...text].length === 1 && text !== " ";
}

/** What each pressed key means on the page. A key that became free does what its new owner did, so nothing is lost. */
function meanings(chosen) {
  const found = new Map(Object.entries(chosen).map(([key, pressed]) => [pressed, key]));
  const free = Object.keys(chosen).filter((key) => !found.has(key));
  const displaced = [...found.keys()].filter((pressed) => !(pressed in chosen));
  free.forEach((key, index) => found.set(key, displaced[index]));
  return found;
}

/** Before any handler of a page: the window comes first. */
export function guardShortcuts() {
  addEventListener("keydown", (event) => {
    if (event[PASSED_ON] || !isCharacter(event) || event.ctrlKey || event.metaKey) return;
    if (event.target.closest?.(FIELDS)) return;
    if (mode === "on" && (event.altKey || !meant.has(event.key))) return;
    event.stopImmediatePropagation();
    if (mode === "on" || (mode === "alt" && event.altKey)) passOn(event);
  }, { capture: true });
  if (meant.size) {
    showKeys(document.body);
    new MutationObserver((changes) => changes.forEach(({ addedNodes }) => addedNodes.forEach(showKeys))).observe(document.body, { childList: true, subtree: true });
  }
  overview();
  for (const field of document.querySelectorAll("[data-shortcuts]")) offer(field);
}

/** The hints of the page show the keys of this browser. */
function showKeys(part) {
  if (part.nodeType !== Node.ELEMENT_NODE) return;
  const pressedFor = new Map([...meant].map(([pressed, key]) => [key, pressed]));
  for (const hint of part.matches("kbd") ? [part] : part.querySelectorAll("kbd")) {
    const key = hint.dataset.key ?? hint.textContent.trim();
    const pressed = pressedFor.get(key.toLowerCase());
    if (pressed === undefined) continue;
    hint.dataset.key = key;
    const shown = key === key.toLowerCase() ? pressed : pressed.toUpperCase();
    if (hint.textContent !== shown) hint.textContent = shown;
  }
}

/** On a page without an overview of its own, "?" leads to the page of all shortcuts. */
function overview() {
  const { keys } = document.body.dataset;
  if (!keys || document.querySelector("[data-do=help]")) return;
  document.addEventListener("keydown", (event) => {
    if (event.key !== "?" || event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.(FIELDS)) return;
    location.assign(`/console/shortcuts#of-${keys}`);
  });
}

/** What was pressed, alone or with Alt, as if the key of the page had been pressed alone. */
function passOn(event) {
  event.preventDefault();
  const key = /^Key[A-Z]$/.test(event.code) ? event.code.slice(3).toLowerCase() : event.key; // Alt makes other characters on a Mac
  const plain = new KeyboardEvent("keydown", { key: meant.get(key) ?? key, code: event.code, shiftKey: event.shiftKey, bubbles: true, cancelable: true });
  plain[PASSED_ON] = true;
  event.target.dispatchEvent(plain);
}

function isCharacter(event) {
  return event.key.length === 1 && event.key !== " ";
}

function offer(field) {
  const select = field.querySelector("select");
  select.value = mode;
  select.addEventListener("change", () => {
    mode = select.value;
    try {
      localStorage.setItem(PLACE, mode);
    } catch {
      // it holds for this page
    }
  });
  field.hidden = false;
}
