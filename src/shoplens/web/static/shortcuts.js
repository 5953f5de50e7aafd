/**
 * Shortcuts of a single character can be switched off, or be moved to Alt, for all pages in one place (WCAG 2.1.4).
 *
 * Speech input and trembling hands press letters that nobody meant. The choice is kept in this browser.
 */

const PLACE = "shoplens.shortcuts";
const FIELDS = "input, select, textarea, [contenteditable]";
const PASSED_ON = "passedOn";

let mode = stored();

function stored() {
  try {
    return localStorage.getItem(PLACE) ?? "on";
  } catch {
    return "on"; // the browser keeps nothing
  }
}

/** Before any handler of a page: the window comes first. */
export function guardShortcuts() {
  addEventListener("keydown", (event) => {
    if (mode === "on" || event[PASSED_ON] || !isCharacter(event) || event.ctrlKey || event.metaKey) return;
    if (event.target.closest?.(FIELDS)) return;
    event.stopImmediatePropagation();
    if (mode === "alt" && event.altKey) passOn(event);
  }, { capture: true });
  for (const field of document.querySelectorAll("[data-shortcuts]")) offer(field);
}

/** The letter that was pressed with Alt, as if it had been pressed alone. */
function passOn(event) {
  event.preventDefault();
  const key = /^Key[A-Z]$/.test(event.code) ? event.code.slice(3).toLowerCase() : event.key; // Alt makes other characters on a Mac
  const plain = new KeyboardEvent("keydown", { key, code: event.code, shiftKey: event.shiftKey, bubbles: true, cancelable: true });
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
