/** Suggestions and products as elements, like templates/_catalogue.html makes them on the server. */

import { gettext } from "./messages.js";
import { element, svg } from "./elements.js";
import { ask, pictureFrom } from "./net.js";
import { barWidth, percent } from "./words.js";

const LEAST_WEIGHT = 0.01;
const WEIGHT_STEP = 0.1;
const KINDS = { photo: gettext("the photo alone"), text: gettext("the text alone"), both: gettext("photo and text") };

export function send(path, body, method = "POST") {
  return ask(path, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

/** The names in "Food > Fruit > Apple". */
export function partsOf(path) {
  return path.split(" > ");
}

/** What the API says of a product or suggests, with paths as lists of names. */
export function withPaths(given) {
  const answer = typeof given.answer === "string" ? { category: given.answer, path: given.answer_path, score: null } : given.answer;
  return {
    ...given,
    suggestions: given.suggestions.map((each) => ({ ...each, path: partsOf(each.path) })),
    answer: answer && { ...answer, path: partsOf(answer.path) },
  };
}

/** A path with its last part in bold; the first `sure` parts are those that the model is sure of. */
export function pathElement(parts, sure = 0) {
  const shown = parts.map((part, index) => element("span", {
    class: index === parts.length - 1 ? "path-leaf" : null, "data-sure": index < sure ? "" : null,
  }, part));
  return element("span", { class: "path" }, ...shown.flatMap((part, index) => (index ? [" › ", part] : [part])));
}

export function bar(score) {
  const made = svg("svg", { class: "bar", width: "100%", height: 6, "aria-hidden": "true" });
  made.append(svg("rect", { class: "bar-track", width: "100%", height: 6, rx: 3 }), svg("rect", { class: "bar-fill", width: barWidth(score), height: 6, rx: 3 }));
  return made;
}

/** The three best categories as buttons with the keys 1 to 3. */
export function optionRows({ suggestions, answer }) {
  return suggestions.slice(0, 3).map((entry, index) => element("li", { class: "option", "data-first": index === 0 ? "" : null },
    element("button", { class: "option-take", type: "button", "data-category": entry.category, "data-key": index + 1 },
      element("kbd", {}, String(index + 1)), pathElement(entry.path, sureParts(entry, answer)),
      element("span", { class: "option-score" }, percent(entry.score)), bar(entry.score))));
}

/** How many parts of a suggestion's path the model is sure of: those that the answer has, too. */
function sureParts(entry, answer) {
  return answer && answer.path.every((part, index) => entry.path[index] === part) ? answer.path.length : 0;
}

/** The sure part of the path as a button, where it is not one of the three itself. */
export function answerButton({ suggestions, answer }) {
  if (!answer || suggestions.slice(0, 3).some((entry) => entry.category === answer.category)) return null;
  const only = gettext("Only");
  return element("button", { class: "button small", type: "button", "data-category": answer.category, "data-key": 0 },
    element("kbd", {}, "0"), ` ${only} `, pathElement(answer.path, answer.path.length), answer.score === null ? "" : ` ${percent(answer.score)}`);
}

/** In words, how sure the model is. */
export function sureness({ suggestions, answer, needs_review: needsReview }) {
  if (!suggestions.length) return gettext("The model has no suggestion.");
  if (!answer) return gettext("Not sure of any category. Best guesses:");
  if (answer.category === suggestions[0].category) return needsReview ? gettext("Probably:") : gettext("Sure:");
  return sureParts(suggestions[0], answer)
    ? gettext("Sure as far as %(category)s. Best guesses below it:", { category: answer.path.at(-1) })
    : gettext("Sure as far as %(category)s. Best guesses:", { category: answer.path.at(-1) });
}

/** What the model looked at, and what it was given and cannot look at. */
export function saw(kind, ignored = null) {
  return (KINDS[kind] ?? gettext("nothing")) + (ignored ? gettext("; it takes no %(ignored)s", { ignored }) : "");
}

/** Show in `box` how much each word of the title speaks for the first suggestion; hide it if it is shown. */
export async function explain(box, channel, { designation, description, suggestions }) {
  const [words, note] = [box.querySelector("[data-why-words]"), box.querySelector("[data-why-note]")];
  box.hidden = !box.hidden;
  if (box.hidden) return;
  words.textContent = designation;
  note.textContent = gettext("Leaving out each word in turn…");
  if (!designation || !suggestions.length) return (note.textContent = gettext("There is no title: the suggestion comes from the photo."));
  try {
    const asked = { channel, designation, description, category: suggestions[0].category };
    const found = await send("/catalogue/explain", asked);
    if (words.textContent !== designation) return; // another product is shown
    words.replaceChildren(...marked(found.designation, found.words));
    note.textContent = noteOf(found.words, suggestions[0]);
  } catch (problem) {
    note.textContent = problem.message;
  }
}

/** The text with the words that count: the stronger, the more the score falls without them. */
function marked(text, words) {
  const parts = [];
  let at = 0;
  for (const { start, end, weight } of words) {
    const step = Math.min(4, Math.ceil(Math.abs(weight) / WEIGHT_STEP));
    const share = gettext("%(weight)s points", { weight: (100 * weight).toFixed(1) });
    parts.push(text.slice(at, start), Math.abs(weight) < LEAST_WEIGHT ? text.slice(start, end)
      : element("mark", { class: `${weight > 0 ? "for" : "against"}-${step}`, title: share }, text.slice(start, end)));
    at = end;
  }
  return [...parts, text.slice(at)];
}

function noteOf(words, best) {
  const strongest = words.reduce((most, each) => (each.weight > most.weight ? each : most), { weight: 0 });
  if (strongest.weight < LEAST_WEIGHT) return gettext("No single word decides: without any one of them %(best)s stays as likely, by the text alone.", { best: best.path.at(-1) });
  return gettext("By the text alone, without “%(text)s” %(best)s would be %(weight)s points less likely. Marked: for; struck through: against.", { text: strongest.text, best: best.path.at(-1), weight: (100 * strongest.weight).toFixed(0) });
}

/** Whether a key press belongs to a field or a control and not to the page. */
export function isForField(event) {
  return event.altKey || event.target.closest("input, select, textarea, [role=combobox]") !== null;
}

/** The address of a product in the API; `rest` comes after its id. */
export function productAddress(channel, product, rest = "") {
  return `/catalogue/products/${product.id}${rest}?${new URLSearchParams({ channel })}`;
}

/** `size` is "thumbnail" or "view". */
export function photoAddress(product, position, size) {
  return `/catalogue/products/${product.id}/photos/${position}?${new URLSearchParams({ channel: product.channel, size })}`;
}

/** The page of a product. */
export function pageOf(product) {
  return `/console/catalogue/products/${product.id}?${new URLSearchParams({ channel: product.channel })}`;
}

/** The heat map of a photo for a category, as an address for an image. Throws Problem. */
export async function heatOf(product, position, category) {
  const query = new URLSearchParams({ channel: product.channel, category });
  return pictureFrom(`/catalogue/products/${product.id}/photos/${position}/heatmap?${query}`);
}
