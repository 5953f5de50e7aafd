/** The page of a channel's thresholds: sliders beside the fields, and a dry run after each change. */

import { gettext } from "./messages.js";

const PAUSE_MS = 300;
const form = document.querySelector("[data-thresholds]");
const result = form.querySelector("[data-result]");
const spoken = form.querySelector("[data-spoken]");
let timer;
let latest = 0;

/** The slider follows the field. */
function follow(row) {
  const input = row.querySelector("[data-number]");
  const slider = row.querySelector("[data-slider]");
  const value = Number(input.value.trim().replace(",", "."));
  slider.value = String(input.value.trim() === "" || Number.isNaN(value) ? 1 : value);
  slider.setAttribute("aria-valuetext", input.value.trim() || input.placeholder);
}

/** Show what is in the form now would change. An answer that a later change overtook is not shown. */
async function tryOut() {
  clearTimeout(timer);
  latest += 1;
  const mine = latest;
  form.dataset.busy = "";
  const body = new URLSearchParams(new FormData(form));
  body.set("part", "result");
  try {
    const response = await fetch("/console/settings/thresholds/try", { method: "POST", body });
    const html = await response.text();
    if (mine !== latest) return;
    if (html.includes("<!doctype")) throw new Error(String(response.status));
    result.innerHTML = html;
    const words = result.querySelector(".notice p, [data-examined]");
    spoken.textContent = words ? words.textContent : "";
  } catch {
    if (mine === latest) spoken.textContent = gettext("The server could not be reached. Change something to try again.");
  } finally {
    if (mine === latest) delete form.dataset.busy;
  }
}

form.addEventListener("input", (event) => {
  if (event.target.name === "note") return;
  const row = event.target.closest("[data-threshold]");
  if (row && event.target.matches("[data-slider]")) row.querySelector("[data-number]").value = event.target.value;
  if (row) follow(row);
  clearTimeout(timer);
  timer = setTimeout(tryOut, PAUSE_MS);
});

form.addEventListener("submit", (event) => {
  if (event.submitter && event.submitter.matches("[data-try]")) {
    event.preventDefault();
    tryOut();
  }
});

/** Enter in a field tries the change; only the button saves. */
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && event.target.matches("input:not([name=note])")) {
    event.preventDefault();
    tryOut();
  }
});

for (const row of form.querySelectorAll("[data-threshold]")) {
  row.querySelector("[data-slider]").hidden = false;
  follow(row);
}
