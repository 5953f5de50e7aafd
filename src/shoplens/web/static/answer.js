/** Fill the page's <template> elements: a prediction, progress or a problem. The caller puts them into the page. */

import { curlCommand } from "./curl.js";
import { liveFeedback } from "./feedback.js";
import { BEST_GUESS_BELOW, barWidth, comparison, confidence, milliseconds, percent } from "./words.js";

const SHOWN_LABELS = 10;

export function answerElement(result, { fileName, tripMs, thresholds }) {
  const element = clone("answer-template");
  const best = result.labels[0];
  const put = (name, text) => (element.querySelector(`[data-${name}]`).textContent = text);
  put("confidence", confidence(best.score));
  element.querySelector(".answer-head").dataset.sure = best.score < BEST_GUESS_BELOW ? "no" : "yes";
  put("best", best.label);
  put("best-score", percent(best.score));
  put("took", `${result.model.name} ${result.model.version} · ${milliseconds(result.timing.total_ms)} server, ${milliseconds(tripMs)} round trip`);
  put("curl", curlCommand(fileName, result.channel, { keyed: "keyed" in element.querySelector("[data-curl]").dataset }));
  fillDecision(element, result, thresholds);
  element.querySelector("[data-bars]").replaceChildren(...result.labels.slice(0, SHOWN_LABELS).map(labelRow));
  element.querySelector("[data-record]").href = `/console/records/${encodeURIComponent(result.id)}`;
  fillFeedback(element.querySelector("[data-feedback]"), result);
  element.querySelector("[data-copy]").addEventListener("click", (event) => copy(event.currentTarget, element));
  element.dataset.fresh = "";
  return element;
}

export function busyElement() {
  return clone("busy-template");
}

export function problemElement(problem, again, chooseOther) {
  const element = clone("problem-template");
  element.querySelector("[data-detail]").textContent = problem.message;
  element.querySelector("[data-code]").textContent = [problem.code, problem.requestId && `request ${problem.requestId}`]
    .filter(Boolean)
    .join(" · ");
  const [retry, other] = ["again", "other"].map((name) => element.querySelector(`[data-${name}]`));
  retry.hidden = !problem.passing;
  retry.addEventListener("click", again);
  other.hidden = problem.passing;
  other.addEventListener("click", chooseOther);
  return element;
}

/** In one sentence, for screen readers. */
export function spoken(result) {
  const best = result.labels[0];
  return `${confidence(best.score)} ${best.label}, ${percent(best.score)}.`;
}

function clone(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

function labelRow({ label, score }) {
  const row = clone("row-template");
  row.querySelector(".label-name").textContent = label;
  row.querySelector(".label-score").textContent = percent(score);
  row.querySelector(".bar-fill").setAttribute("width", barWidth(score));
  return row;
}

/** A channel without thresholds accepts everything, so it shows no badge. */
function fillDecision(element, { decision, labels }, thresholds) {
  if (!thresholds) return element.querySelector("[data-decision]").remove();
  const badge = clone(`badge-${decision.outcome}`);
  badge.toggleAttribute("data-plain", decision.threshold === null);
  element.querySelector("[data-badge]").replaceWith(badge);
  element.querySelector("[data-reason]").textContent =
    decision.threshold === null ? `Below all thresholds (${thresholds})` : reason(decision, labels);
}

/** The best label is shown anyway; another one that decided is named. */
function reason({ label, threshold }, labels) {
  const words = comparison(labels.find((entry) => entry.label === label)?.score ?? 0, threshold);
  return label === labels[0].label ? words : `${label} ${words}`;
}

function fillFeedback(form, result) {
  form.dataset.id = result.id;
  form.dataset.model = `${result.model.name}@${result.model.version}`;
  form.action = `/console/records/${encodeURIComponent(result.id)}/feedback`;
  const list = `labels-${result.id}`;
  form.querySelector("[data-labels]").id = list;
  form.querySelector("[data-correct-label]").setAttribute("list", list);
  liveFeedback(form);
}

/** Browsers refuse the clipboard on plain HTTP to another machine; then the command is selected instead. */
async function copy(button, element) {
  const code = element.querySelector("[data-curl]");
  const words = button.querySelector("span");
  try {
    await navigator.clipboard.writeText(code.textContent);
    words.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    words.textContent = "Selected";
  }
  setTimeout(() => (words.textContent = "Copy"), 2000);
}
