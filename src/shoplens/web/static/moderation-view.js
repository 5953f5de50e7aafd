/** Show one photo: its signals, references and what is beside it, as the server's pages show them. */

import { element, moment, svg } from "./elements.js";
import { Problem } from "./net.js";
import { barWidth, percent } from "./words.js";

const QUEUE_WORDS = { held: "Held", reported: "Reported", appeal: "Appeal", second_opinion: "Second opinion", escalated: "Escalated" };
const STATE_WORDS = { held: "Held", published: "Published", refused: "Refused" };
const OUTCOMES = { held: "review", published: "accept", refused: "reject" };
const FIRST_SIGNALS = 6;
const BANDS = ["reject", "review", "accept"];
const SPECIAL = { second_opinion: " as a second opinion", appeal: " on appeal" };

export function imageOf(photo, size) {
  return `/moderation/photos/${photo.id}/image?size=${size}`;
}

export function queueWord(photo) {
  return QUEUE_WORDS[photo.queue] ?? "";
}

export function why(photo) {
  const rule = photo.rule ? `${photo.rule[0].toUpperCase()}${photo.rule.slice(1).replace(/\.$/, "")}.` : "";
  if (photo.queue === "reported") return `Reported by ${photo.reports} shopper${photo.reports === 1 ? "" : "s"}. ${rule}`.trim();
  if (photo.queue === "appeal") return `The shopper appealed. ${rule}`.trim();
  if (photo.queue === "escalated") return `Escalated: another person decides. ${rule}`.trim();
  return rule || "Waits for a person.";
}

export function signalList(photo) {
  const known = (signal) => signal.review_at !== null || signal.reject_at !== null;
  const rank = (signal) => BANDS.indexOf(bandOf(signal));
  const ordered = [...photo.signals].sort((a, b) => rank(a) - rank(b) || known(b) - known(a) || b.score - a.score);
  const [first, rest] = [ordered.slice(0, FIRST_SIGNALS), ordered.slice(FIRST_SIGNALS)];
  const list = (signals) => element("ul", { class: "signals" }, ...signals.map(signalRow));
  if (!rest.length) return [list(first)];
  return [list(first), element("details", { class: "more" }, element("summary", {}, `${rest.length} more`), list(rest))];
}

function bandOf({ score, review_at: review, reject_at: reject }) {
  if (reject !== null && score >= reject) return "reject";
  return review !== null && score >= review ? "review" : "accept";
}

function signalRow(signal) {
  const { name, score, detail, review_at: review, reject_at: reject } = signal;
  const words = [`${name} ${percent(score)}`, review !== null && `review from ${percent(review)}`, reject !== null && `refuse from ${percent(reject)}`];
  const bar = svg("svg", { class: "bar", width: "100%", height: 10, role: "img", "aria-label": words.filter(Boolean).join(", ") });
  bar.append(
    svg("rect", { class: "bar-track", y: 2, width: "100%", height: 6, rx: 3 }),
    svg("rect", { class: "bar-fill", y: 2, width: barWidth(score), height: 6, rx: 3 }),
  );
  for (const [kind, at] of [["review", review], ["reject", reject]]) {
    if (at !== null) bar.append(svg("line", { class: `mark-${kind}`, x1: barWidth(at), x2: barWidth(at), y1: 0, y2: 10 }));
  }
  return element("li", { class: "signal", "data-band": bandOf(signal) },
    element("span", { class: "label-name" }, name), element("span", { class: "label-score" }, percent(score)), bar,
    detail ? element("small", {}, detail) : null);
}

export function referenceList(photo) {
  const search = (value) => element("a", { href: `/console/moderation/search?${new URLSearchParams({ q: value })}` }, value);
  const rows = [
    ["Customer", photo.customer && search(photo.customer)], ["Product", photo.product && search(photo.product)],
    ["Order", photo.order], ["Review", photo.review], ["Received", moment(photo.created_at)],
    ["Photo", element("a", { href: `/console/moderation/photos/${photo.id}` }, element("code", {}, photo.id))],
  ];
  return element("dl", { class: "facts" }, ...rows.filter(([, value]) => value).map(
    ([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/** What shoppers say of the photo: the appeal, and reports. */
export function wordsOf(context) {
  const parts = [];
  if (context.appeal) parts.push(element("div", { class: "notice", "data-kind": "warn" }, element("p", {}, element("strong", {}, "The shopper appeals: "), context.appeal)));
  if (context.reports.length) parts.push(section("Reports", element("ul", { class: "plain-list" }, ...context.reports.map((words) => element("li", {}, words ?? "No words given")))));
  return parts;
}

/** What else helps to decide: similar photos, the customer's other ones, and the history. */
export function besideOf(context) {
  const { photo } = context;
  const parts = [];
  if (context.similar?.length) parts.push(section("Similar photos, decided before", element("ul", { class: "similar" }, ...context.similar.map(small))));
  if (photo.customer) {
    const strikes = context.strikes ? `; from ${context.strikes} on all photos are held` : "";
    parts.push(section("Customer", element("p", {}, `${context.refusals} refused within ${context.strike_days} days${strikes}.`),
      context.earlier.length ? element("ul", { class: "earlier" }, ...context.earlier.map(small)) : element("p", { class: "quiet" }, "No other photos.")));
  }
  parts.push(section("History", element("ol", { class: "history" }, ...context.history.map(entryRow))));
  return parts;
}

/** A small photo with its outcome; without a picture once it was deleted. */
function small({ id, state, verdict, distance, mirrored, has_image: hasImage }) {
  const outcome = state ?? { refused: "refused", accepted: "published" }[verdict];
  const words = STATE_WORDS[outcome] + (distance === undefined ? "" : `, distance ${distance}${mirrored ? ", mirrored" : ""}`);
  const picture = hasImage ? element("img", { src: imageOf({ id }, "thumbnail"), alt: words, width: 64, height: 64, loading: "lazy" }) : words;
  return element("li", {}, element(id ? "a" : "span", { href: id && `/console/moderation/photos/${id}`, "data-outcome": OUTCOMES[outcome], title: words }, picture),
    distance === undefined ? null : element("small", {}, `${STATE_WORDS[outcome]}, ${distance}`));
}

function section(heading, ...content) {
  return element("section", {}, element("h3", {}, heading), ...content);
}

function entryRow(entry) {
  const more = [entry.reason && ` (${entry.reason})`, entry.kind === "policy" && entry.rule && `: ${entry.rule}`, entry.comment && ` “${entry.comment}”`];
  return element("li", { "data-undone": entry.undone_at ? "" : null }, element("span", {}, moment(entry.at)),
    element("span", {}, entryWords(entry) + more.filter(Boolean).join("")));
}

function entryWords(entry) {
  const done = STATE_WORDS[entry.to_state];
  if (entry.kind === "escalation") return `Escalated by ${entry.by_name}`;
  if (entry.kind === "undo") return `Taken back by ${entry.by_name}`;
  if (entry.kind === "policy") return `${done} by the policy`;
  if (entry.kind === "report") return "Hidden after reports by shoppers";
  return `${done}${SPECIAL[entry.kind] ?? ""} by ${entry.by_name}`;
}

/** The heat map of a photo as an address for an image, and whether nothing is marked in it. Throws Problem. */
export async function heatOf(id) {
  let response;
  try {
    response = await fetch(`/moderation/photos/${id}/heatmap`, { credentials: "same-origin", headers: { Accept: "image/png, application/json" } });
  } catch {
    throw new Problem("Can't reach the server. Check your connection and try again.", { code: "network" });
  }
  if (response.ok) {
    const picture = await response.blob();
    return { address: URL.createObjectURL(picture), clear: await isClear(picture) };
  }
  const body = await response.json().catch(() => null);
  throw new Problem(body?.detail ?? `The server returned status ${response.status} without details.`);
}

async function isClear(picture) {
  const bitmap = await createImageBitmap(picture);
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  canvas.drawImage(bitmap, 0, 0);
  return canvas.getImageData(0, 0, bitmap.width, bitmap.height).data.every((value, index) => index % 4 !== 3 || value < 10);
}
