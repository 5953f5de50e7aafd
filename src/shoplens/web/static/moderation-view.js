/** Show one photo: its signals, references and what is beside it, as the server's pages show them. */

import { gettext, language, localised, marked, ngettext } from "./messages.js";
import { element, moment, svg } from "./elements.js";
import { Problem } from "./net.js";
import { barWidth } from "./words.js";

const QUEUE_WORDS = { held: gettext("Held"), reported: gettext("Reported"), appeal: gettext("Appeal"), second_opinion: gettext("Second opinion"), escalated: gettext("Escalated"), check: gettext("Random check") };
const STATE_WORDS = { held: gettext("Held"), published: gettext("Published"), refused: gettext("Refused") };
const OUTCOMES = { held: "review", published: "accept", refused: "reject" };
/** As in presenting.py; the signals of a shop's models are as they are named. */
const SIGNAL_TITLES = {
  nsfw: gettext("Nudity"), not_product: gettext("Not the product"), blur: gettext("Blurred"), dark: gettext("Too dark"), overexposed: gettext("Overexposed"),
  small: gettext("Too small"), text: gettext("Text in the photo"), border: gettext("Even border"), near_refused: gettext("Like a refused photo"),
  near_accepted: gettext("Like an accepted photo"), strikes: gettext("Refused before"), duplicate: gettext("Sent before"),
};
/** As thresholds of the policy and the sentences of its decisions have them. */
const twoDigits = (score) => localised(score.toFixed(2));
const FIRST_SIGNALS = 6;
const BANDS = ["reject", "review", "accept"];
const ENTRY_WORDS = { second_opinion: marked("%(done)s as a second opinion by %(by_name)s"), appeal: marked("%(done)s on appeal by %(by_name)s") };

export function imageOf(photo, size) {
  return `/moderation/photos/${photo.id}/image?size=${size}`;
}

export function queueWord(photo) {
  return QUEUE_WORDS[photo.queue] ?? "";
}

export function why(photo) {
  const rule = photo.rule ? `${photo.rule[0].toUpperCase()}${photo.rule.slice(1).replace(/\.$/, "")}.` : "";
  if (photo.queue === "reported") return `${ngettext("Reported by %(number)s shopper.", "Reported by %(number)s shoppers.", photo.reports)} ${rule}`.trim();
  if (photo.queue === "appeal") return gettext("The shopper appealed. %(rule)s", { rule }).trim();
  if (photo.queue === "escalated") return gettext("Passed on to the next person. %(rule)s", { rule }).trim();
  return rule || gettext("Waits for a person.");
}

export function signalList(photo) {
  const known = (signal) => signal.review_at !== null || signal.reject_at !== null;
  const rank = (signal) => BANDS.indexOf(bandOf(signal));
  const ordered = [...photo.signals].sort((a, b) => rank(a) - rank(b) || known(b) - known(a) || b.score - a.score);
  const [first, rest] = [ordered.slice(0, FIRST_SIGNALS), ordered.slice(FIRST_SIGNALS)];
  const list = (signals) => element("ul", { class: "signals" }, ...signals.map(signalRow));
  if (!rest.length) return [list(first)];
  return [list(first), element("details", { class: "more" }, element("summary", {}, gettext("%(rest)s more", { rest: rest.length })), list(rest))];
}

function bandOf({ score, review_at: review, reject_at: reject }) {
  if (reject !== null && score >= reject) return "reject";
  return review !== null && score >= review ? "review" : "accept";
}

function signalRow(signal) {
  const { name, score, detail, review_at: review, reject_at: reject } = signal;
  const title = Object.hasOwn(SIGNAL_TITLES, name) ? SIGNAL_TITLES[name] : name;
  const words = [`${title} ${twoDigits(score)}`, review !== null && gettext("review from %(review)s", { review: twoDigits(review) }), reject !== null && gettext("refuse from %(reject)s", { reject: twoDigits(reject) })];
  const bar = svg("svg", { class: "bar", width: "100%", height: 10, role: "img", "aria-label": words.filter(Boolean).join(", ") });
  bar.append(
    svg("rect", { class: "bar-track", y: 2, width: "100%", height: 6, rx: 3 }),
    svg("rect", { class: "bar-fill", y: 2, width: barWidth(score), height: 6, rx: 3 }),
  );
  for (const [kind, at] of [["review", review], ["reject", reject]]) {
    if (at !== null) bar.append(svg("line", { class: `mark-${kind}`, x1: barWidth(at), x2: barWidth(at), y1: 0, y2: 10 }));
  }
  return element("li", { class: "signal", "data-band": bandOf(signal) },
    element("span", { class: "label-name" }, title, title === name ? null : element("small", { class: "quiet" }, " ", element("code", {}, name))), element("span", { class: "label-score" }, twoDigits(score)), bar,
    detail ? element("small", {}, detail) : null);
}

export function referenceList(photo) {
  const search = (value) => element("a", { href: `/console/moderation/search?${new URLSearchParams({ q: value })}` }, value);
  const rows = [
    [gettext("Customer"), photo.customer && search(photo.customer)], [gettext("Product"), photo.product && search(photo.product)],
    [gettext("Order"), photo.order], [gettext("Customer review"), photo.review], [gettext("Received"), moment(photo.created_at)],
    [gettext("Photo"), element("a", { href: `/console/moderation/photos/${photo.id}` }, element("code", {}, photo.id))],
  ];
  return element("dl", { class: "facts" }, ...rows.filter(([, value]) => value).map(
    ([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/** What shoppers say of the photo: the appeal, and reports. */
export function wordsOf(context) {
  const parts = [];
  if (context.appeal) parts.push(element("div", { class: "notice", "data-kind": "warn" }, element("p", {}, element("strong", {}, gettext("The shopper appeals: ")), context.appeal)));
  if (context.reports.length) parts.push(element("section", {}, element("h2", {}, gettext("Reports")), element("ul", { class: "plain-list" }, ...context.reports.map((words) => element("li", {}, words ?? gettext("No words given"))))));
  return parts;
}

/** What else helps to decide: similar photos, the customer's other ones, and the history. */
export function besideOf(context) {
  const { photo } = context;
  const parts = [];
  if (context.similar?.length) parts.push(section(gettext("Similar photos, decided before"), element("ul", { class: "similar" }, ...context.similar.map(small))));
  if (photo.customer) {
    const strikes = context.strikes ? gettext("; from %(strikes)s on all photos are held", { strikes: context.strikes }) : "";
    parts.push(section(gettext("Customer"), element("p", {}, gettext("%(refusals)s refused within %(strike_days)s days%(strikes)s.", { refusals: context.refusals, strike_days: context.strike_days, strikes })),
      context.earlier.length ? element("ul", { class: "earlier" }, ...context.earlier.map(small)) : element("p", { class: "quiet" }, gettext("No other photos."))));
  }
  parts.push(section(gettext("History"), element("ol", { class: "history" }, ...context.history.map(entryRow))));
  return parts;
}

/** A small photo with its outcome; without a picture once it was deleted. */
function small({ id, state, verdict, distance, mirrored, has_image: hasImage }) {
  const outcome = state ?? { refused: "refused", accepted: "published" }[verdict];
  const far = mirrored ? gettext("distance %(distance)s, mirrored", { distance }) : gettext("distance %(distance)s", { distance });
  const words = STATE_WORDS[outcome] + (distance === undefined ? "" : `, ${far}`);
  const picture = hasImage ? element("img", { src: imageOf({ id }, "thumbnail"), alt: words, width: 64, height: 64, loading: "lazy" }) : words;
  return element("li", {}, element(id ? "a" : "span", { href: id && `/console/moderation/photos/${id}`, "data-outcome": OUTCOMES[outcome], title: words }, picture),
    distance === undefined ? null : element("small", {}, `${STATE_WORDS[outcome]}, ${distance}`));
}

function section(heading, ...content) {
  return element("section", {}, element("h3", {}, heading), ...content);
}

function entryRow(entry) {
  const more = [entry.reason && ` (${reasonTitle(entry.reason)})`, entry.kind === "policy" && entry.rule && `: ${entry.rule}`, entry.comment && ` ${gettext("“%(words)s”", { words: entry.comment })}`];
  return element("li", { "data-undone": entry.undone_at ? "" : null }, element("span", {}, moment(entry.at)),
    element("span", {}, entryWords(entry) + more.filter(Boolean).join("")));
}

function entryWords(entry) {
  const done = STATE_WORDS[entry.to_state];
  if (entry.kind === "escalation") return gettext("Escalated by %(by_name)s", { by_name: entry.by_name });
  if (entry.kind === "undo") return gettext("Taken back by %(by_name)s", { by_name: entry.by_name });
  if (entry.kind === "policy") return gettext("%(done)s by the policy", { done });
  if (entry.kind === "report") return gettext("Hidden after reports by shoppers");
  return gettext(ENTRY_WORDS[entry.kind] ?? marked("%(done)s by %(by_name)s"), { done, by_name: entry.by_name });
}

/** The heat map of a photo as an address for an image, and whether nothing is marked in it. Throws Problem. */
export async function heatOf(id) {
  let response;
  try {
    response = await fetch(`/moderation/photos/${id}/heatmap`, { credentials: "same-origin", headers: { Accept: "image/png, application/json", "Shoplens-Language": language } });
  } catch {
    throw new Problem(gettext("Can't reach the server. Check your connection and try again."), { code: "network" });
  }
  if (response.ok) {
    const picture = await response.blob();
    return { address: URL.createObjectURL(picture), clear: await isClear(picture) };
  }
  const body = await response.json().catch(() => null);
  throw new Problem(body?.detail ?? gettext("The server returned status %(status)s without details.", { status: response.status }));
}

async function isClear(picture) {
  const bitmap = await createImageBitmap(picture);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  canvas.drawImage(bitmap, 0, 0);
  return canvas.getImageData(0, 0, bitmap.width, bitmap.height).data.every((value, index) => index % 4 !== 3 || value < 10);
}

/** "Not the product", from the page's own button for it; the code of a reason that the shop has removed since. */
function reasonTitle(code) {
  return document.querySelector(`[data-reason="${CSS.escape(code)}"]`)?.lastChild.textContent.trim() || code;
}
