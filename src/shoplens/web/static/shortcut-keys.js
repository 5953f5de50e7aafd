/** The page of keyboard shortcuts: another key for an action, and the one that it had. */

import { gettext } from "./messages.js";
import { chosenKeys, isShortcut, keepKeys } from "./shortcuts.js";

const setAllBack = document.querySelector("[data-reset-all]");
const groups = [...document.querySelectorAll("[data-group]")];

function show() {
  let changed = false;
  for (const group of groups) {
    const chosen = chosenKeys(group.dataset.group);
    for (const input of group.querySelectorAll("input")) {
      input.disabled = false;
      input.value = chosen[input.dataset.key] ?? input.dataset.key;
      const differs = input.value !== input.dataset.key;
      input.toggleAttribute("data-changed", differs);
      input.nextElementSibling.hidden = !differs;
      changed ||= differs;
    }
  }
  setAllBack.hidden = !changed;
}

/** Why this action cannot have this key; "" if it can. */
function problemOf(group, input, key) {
  if (!isShortcut(key)) return gettext("Type one letter, digit or sign.");
  const other = [...group.querySelectorAll("input")].find((each) => each !== input && shown(group, each) === key);
  if (!other) return "";
  const action = document.getElementById(other.getAttribute("aria-labelledby")).textContent;
  return gettext("The key %(key)s is taken: %(action)s. Choose another key, or change that one first.", { key, action });
}

function shown(group, input) {
  return chosenKeys(group.dataset.group)[input.dataset.key] ?? input.dataset.key;
}

/** Give an action a key, or say why not. */
function choose(group, input, key) {
  const problem = problemOf(group, input, key);
  group.querySelector(".key-problem").textContent = problem;
  if (!problem) keepKeys(group.dataset.group, { ...chosenKeys(group.dataset.group), [input.dataset.key]: key });
  show();
  input.toggleAttribute("aria-invalid", Boolean(problem));
}

for (const group of groups) {
  for (const input of group.querySelectorAll("input")) {
    input.addEventListener("focus", () => input.select());
    input.addEventListener("input", () => {
      const typed = input.value.replace(shown(group, input), "") || input.value;
      if (typed) choose(group, input, typed.toLowerCase());
      input.select();
    });
    input.addEventListener("blur", show);
    input.nextElementSibling.addEventListener("click", () => {
      choose(group, input, input.dataset.key);
      input.focus();
    });
  }
}
setAllBack.addEventListener("click", () => {
  for (const group of groups) keepKeys(group.dataset.group, {});
  for (const place of document.querySelectorAll(".key-problem")) place.textContent = "";
  show();
  groups[0].querySelector("input").focus();
});
show();
