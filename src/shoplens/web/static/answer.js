/** Fill the page's <template> elements: a prediction, progress or a problem. The caller puts them into the page. */

import { gettext } from "./messages.js";
import { liveFeedback } from "./feedback.js";
import { curlCommand, pythonSnippet, scriptSnippet } from "./snippets.js";
import { BEST_GUESS_BELOW, barWidth, comparison, confidence, labelName, milliseconds, percent } from "./words.js";

const SHOWN_LABELS = 10;

export function answerElement(result, { fileName, tripMs, thresholds, names }) {
  const element = clone("answer-template");
  const best = result.labels[0];
  const put = (name, text) => (element.querySelector(`[data-${name}]`).textContent = text);
  put("confidence", confidence(best.score));
  element.querySelector(".answer-head").dataset.sure = best.score < BEST_GUESS_BELOW ? "no" : "yes";
  put("best", labelName(best.label, names));
  put("best-key", labelName(best.label, names).toLowerCase() === best.label.toLowerCase() ? "" : best.label);
  put("best-score", percent(best.score));
  put("took", gettext("%(name)s %(version)s · %(total_ms)s server, %(trip_ms)s round trip", { name: result.model.name, version: result.model.version, total_ms: milliseconds(result.timing.total_ms), trip_ms: milliseconds(tripMs) }));
  fillSnippets(element, fileName.split("/").pop(), result.channel);
  fillDecision(element, result, { thresholds, names });
  element.querySelector("[data-bars]").replaceChildren(...result.labels.slice(0, SHOWN_LABELS).map((entry) => labelRow(entry, names)));
  element.querySelector("[data-record]").href = `/console/records/${encodeURIComponent(result.id)}`;
  fillFeedback(element.querySelector("[data-feedback]"), result);
  element.querySelector("[data-copy]").addEventListener("click", (event) => copy(event.currentTarget, element));
  element.dataset.fresh = "";
  return element;
}

export function busyElement() {
  return clone("busy-template");
}

/** `smaller` sends a smaller copy; null where that would not help. */
export function problemElement(problem, { again, other, smaller }) {
  const element = clone("problem-template");
  element.querySelector("[data-detail]").textContent = problem.message;
  element.querySelector("[data-code]").textContent = [problem.code, problem.requestId && `request ${problem.requestId}`]
    .filter(Boolean)
    .join(" · ");
  const actions = [["again", problem.passing, again], ["other", !problem.passing, other], ["smaller", smaller, smaller]];
  for (const [name, isShown, action] of actions) {
    const button = element.querySelector(`[data-${name}]`);
    button.hidden = !isShown;
    if (isShown) button.addEventListener("click", action);
  }
  return element;
}

/** In one sentence, for screen readers. */
export function spoken(result, names) {
  const best = result.labels[0];
  return `${confidence(best.score)} ${labelName(best.label, names)}, ${percent(best.score)}.`;
}

function clone(id) {
  return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

function labelRow({ label, score }, names) {
  const row = clone("row-template");
  row.querySelector(".label-name").textContent = labelName(label, names);
  row.querySelector(".label-score").textContent = percent(score);
  row.querySelector(".bar-fill").setAttribute("width", barWidth(score));
  return row;
}

/** A channel without thresholds accepts everything, so it shows no badge. */
function fillDecision(element, { decision, labels }, { thresholds, names }) {
  if (!thresholds) return element.querySelector("[data-decision]").remove();
  const badge = clone(`badge-${decision.outcome}`);
  const noReason = decision.threshold === null && !decision.random_check;
  badge.toggleAttribute("data-plain", noReason);
  element.querySelector("[data-badge]").replaceWith(badge);
  element.querySelector("[data-reason]").textContent =
    noReason ? gettext("Below all thresholds (%(thresholds)s)", { thresholds }) : reason(decision, labels, names);
}

/** The best label is shown anyway; another one that decided is named. */
function reason({ label, threshold, random_check: isRandomCheck }, labels, names) {
  if (isRandomCheck) return gettext("Random check");
  const words = comparison(labels.find((entry) => entry.label === label)?.score ?? 0, threshold);
  return label === labels[0].label ? words : `${labelName(label, names)} ${words}`;
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

const LANGUAGES = { curl: curlCommand, python: pythonSnippet, script: scriptSnippet };
const LANGUAGE_KEY = "shoplens-language";

function fillSnippets(element, fileName, channel) {
  const code = element.querySelector("[data-curl]");
  const buttons = element.querySelectorAll("[data-language]");
  const choose = (language) => {
    code.textContent = LANGUAGES[language](fileName, channel, { keyed: "keyed" in code.dataset });
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.language === language));
  };
  for (const button of buttons) {
    button.addEventListener("click", () => {
      choose(button.dataset.language);
      remember(button.dataset.language);
    });
  }
  choose(remembered());
}

function remember(language) {
  try {
    localStorage.setItem(LANGUAGE_KEY, language);
  } catch {
    // without storage it is chosen again next time
  }
}

function remembered() {
  try {
    const language = localStorage.getItem(LANGUAGE_KEY);
    return Object.hasOwn(LANGUAGES, language) ? language : "curl";
  } catch {
    return "curl";
  }
}

/** Browsers refuse the clipboard on plain HTTP to another machine; then the command is selected instead. */
async function copy(button, element) {
  const code = element.querySelector("[data-curl]");
  const words = button.querySelector("span");
  try {
    await navigator.clipboard.writeText(code.textContent);
    words.textContent = gettext("Copied");
  } catch {
    getSelection().selectAllChildren(code);
    words.textContent = gettext("Selected");
  }
  setTimeout(() => (words.textContent = gettext("Copy")), 2000);
}
