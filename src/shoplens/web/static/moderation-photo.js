/** The page of one photo: show it as it is, and the heat map. */

import { heatOf } from "./moderation-view.js";

const desk = document.querySelector("[data-one]");
const shot = desk?.querySelector("[data-shot]");
const picture = desk?.querySelector("[data-heat]");
const nothing = desk?.querySelector("[data-slot=heat-words]");

async function toggleHeat(button) {
  if (!picture.hidden) {
    URL.revokeObjectURL(picture.src);
    picture.hidden = nothing.hidden = true;
    return button.setAttribute("aria-pressed", "false");
  }
  try {
    const { address, clear } = await heatOf(desk.dataset.one);
    picture.src = address;
    picture.hidden = false;
    nothing.hidden = !clear;
    button.setAttribute("aria-pressed", "true");
  } catch (problem) {
    document.querySelector("[data-slot=problem]").textContent = problem.message;
  }
}

desk?.addEventListener("click", (event) => {
  const action = event.target.closest("[data-do]")?.dataset.do;
  if (action === "show") shot.toggleAttribute("data-shown");
  if (action === "heat") toggleHeat(event.target.closest("[data-do]"));
});
