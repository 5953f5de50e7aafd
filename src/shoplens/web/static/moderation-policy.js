/** The page of a policy: sliders beside the fields, marks in the drawings, and a dry run after each change. */

import { gettext, localised } from "./messages.js";

const PAUSE_MS = 300;
const form = document.querySelector("[data-policy]");
const result = form.querySelector("[data-result]");
const spoken = form.querySelector("[data-spoken]");
let timer;
let latest = 0;

/** The typed number within 0 and 1; null for anything else. */
function scoreOf(input) {
  const value = Number(input.value.trim().replace(",", "."));
  return input.value.trim() !== "" && value >= 0 && value <= 1 ? value : null;
}

/** The slider and the mark follow the field. */
function follow(threshold) {
  const score = scoreOf(threshold.querySelector("[data-number]"));
  const slider = threshold.querySelector("[data-slider]");
  slider.value = String(score ?? 1);
  slider.setAttribute("aria-valuetext", score === null ? "never" : String(score));
  const mark = threshold.closest("[data-signal]").querySelector(`[data-mark=${threshold.dataset.which}]`);
  mark.toggleAttribute("hidden", score === null);
  for (const end of ["x1", "x2"]) mark.setAttribute(end, String(100 * (score ?? 0)));
}

function showPart() {
  const chosen = form.elements.as.value;
  for (const part of form.querySelectorAll("[data-part]")) part.hidden = part.dataset.part !== chosen;
}

/** Ask for the result of what is in the form now, and return whether it is a policy.
 * An answer that a later change overtook is not shown. */
async function tryOut(as = form.elements.as.value) {
  clearTimeout(timer);
  latest += 1;
  const mine = latest;
  form.dataset.busy = "";
  const body = new URLSearchParams(new FormData(form));
  body.set("as", as);
  body.set("part", "result");
  try {
    const response = await fetch("/console/moderation/policy/try", { method: "POST", body });
    const html = await response.text();
    if (mine !== latest) return false;
    if (html.includes("<!doctype")) throw new Error(String(response.status));
    result.innerHTML = html;
    const words = result.querySelector("[data-examined], .notice p");
    spoken.textContent = words ? words.textContent : "";
    if (response.ok) complete(as);
    return response.ok;
  } catch {
    if (mine === latest) spoken.textContent = gettext("The server could not be reached. Change something to try again.");
    return false;
  } finally {
    if (mine === latest) delete form.dataset.busy;
  }
}

/** The part of the form that is not shown follows the other one, so that it is right when somebody switches to it. */
function complete(as) {
  const completed = result.querySelector("[data-completed]");
  if (as === "fields") {
    form.elements.source.value = completed.value;
    return;
  }
  const fields = JSON.parse(completed.dataset.fields);
  for (const input of form.querySelectorAll("[data-part=fields] input[name]")) input.value = fields[input.name] ?? "";
  for (const threshold of form.querySelectorAll(".threshold")) follow(threshold);
}

/** What does not make sense has to be put right before somebody can switch. */
async function switchTo(part) {
  const from = part === "toml" ? "fields" : "toml";
  form.elements.as.value = (await tryOut(from)) ? part : from;
  showPart();
}

form.addEventListener("input", (event) => {
  if (event.target.name === "note") return;
  if (event.target.name === "as") {
    switchTo(event.target.value);
    return;
  }
  const threshold = event.target.closest(".threshold");
  if (event.target.matches("[data-slider]")) threshold.querySelector("[data-number]").value = localised(event.target.value);
  if (threshold) follow(threshold);
  clearTimeout(timer);
  timer = setTimeout(() => tryOut(), PAUSE_MS);
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

for (const threshold of form.querySelectorAll(".threshold")) {
  threshold.querySelector("[data-slider]").hidden = false;
  follow(threshold);
}
showPart();
