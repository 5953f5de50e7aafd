/** One click sends the verdict at once; the correct label and a comment can be added afterwards. */

import { gettext } from "./messages.js";
import { ask } from "./net.js";

const labelsOfModel = new Map();

/** Takes over a feedback form. `data-stage` (ask, more, thanks) decides what the style sheet shows. */
export function liveFeedback(form) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (form.getAttribute("aria-busy") === "true") return;
    // Enter in a field presses the form's first button, but here it means "Send".
    const step = form.dataset.stage === "more" ? "more" : event.submitter.dataset.verdict;
    const said = step === "more" ? explanation(form) : {};
    if (step === "more" && !said.label && !said.comment) return form.elements.label.focus();
    await occupied(form, () => say(form, step, said));
  });
  form.querySelector("[data-skip]").addEventListener("click", () => thank(form, gettext("Marked as incorrect. Thanks!")));
}

async function say(form, step, said) {
  const seen = form.dataset.seen === undefined ? {} : { seen: form.dataset.seen };
  const body = { prediction_id: form.dataset.id, verdict: step === "right" ? "right" : "wrong", ...seen, ...said };
  const stored = await ask("/feedback", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  form.dataset.seen = stored.id; // the next answer of this person follows this one
  if (step === "wrong") return explain(form);
  thank(form, step === "right" ? gettext("Marked as correct. Thanks!") : gettext("Saved. It will be used for the next training."));
}

function explanation(form) {
  const label = form.elements.label.value.trim();
  const comment = form.elements.comment.value.trim();
  return { ...(label && { label }), ...(comment && { comment }) };
}

/** The verdict is stored already; leaving the page here loses nothing. */
function explain(form) {
  form.dataset.stage = "more";
  form.querySelector(".feedback-thanks").textContent = gettext("Marked as incorrect.");
  const field = form.querySelector("[data-correct-label]");
  field.focus();
  suggest(form, field);
}

function thank(form, words) {
  form.dataset.stage = "thanks";
  const thanks = form.querySelector(".feedback-thanks");
  thanks.textContent = words;
  thanks.focus();
}

/** A second click while the first is sent adds no second row. */
async function occupied(form, work) {
  const error = form.querySelector(".feedback-error");
  const buttons = form.querySelectorAll("button");
  form.setAttribute("aria-busy", "true");
  buttons.forEach((button) => button.setAttribute("aria-disabled", "true"));
  error.textContent = "";
  try {
    await work();
  } catch (problem) {
    error.textContent = problem.message;
  } finally {
    form.removeAttribute("aria-busy");
    buttons.forEach((button) => button.removeAttribute("aria-disabled"));
  }
}

/** The model's labels as suggestions; the field accepts any text. */
async function suggest(form, field) {
  const model = form.dataset.model;
  if (!model) return;
  if (!labelsOfModel.has(model)) {
    labelsOfModel.set(model, ask(`/console/models/${encodeURIComponent(model)}/labels.json`).catch(() => []));
  }
  const names = await labelsOfModel.get(model);
  const list = form.querySelector("[data-labels]");
  list.id = field.getAttribute("list");
  list.replaceChildren(...names.map((name) => Object.assign(document.createElement("option"), { value: name })));
}
