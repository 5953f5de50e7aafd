/** Choose a threshold with a slider: what it would decide without a person, and how much of that is right. */

import { gettext, localised } from "./messages.js";

const part = document.querySelector("[data-thresholds]");
if (part) choose(part);

function choose(part) {
  const [at, shares, accuracies] = ["thresholds", "shares", "accuracies"].map((name) => JSON.parse(part.dataset[name]));
  const slider = part.querySelector("input");
  const said = part.querySelector("[data-words]");

  function show() {
    const here = Number(slider.value);
    const right = accuracies[here] === null ? gettext("none of the photos") : gettext("%(here)s of these right", { here: percent(accuracies[here]) });
    said.textContent = gettext("At %(here)s: %(here_2)s automatic, %(right)s", { here: localised(at[here].toFixed(2)), here_2: percent(shares[here]), right });
    slider.setAttribute("aria-valuetext", said.textContent);
  }

  slider.max = String(at.length - 1);
  slider.value = String(Math.max(0, at.findIndex((value) => value >= 0.8)));
  slider.addEventListener("input", show);
  part.hidden = false;
  show();
}

function percent(share) {
  return localised(`${Math.round(share * 100)}%`);
}
