/** Numbers as people read them, by the same rules as predictions/presenting.py has for the server's pages. */

import { gettext, localised, whole } from "./messages.js";

export const BEST_GUESS_BELOW = 0.3;

export function percent(score) {
  return localised(score > 0 && score < 0.001 ? "<0.1%" : `${(score * 100).toFixed(1)}%`);
}

export function barWidth(score) {
  return `${(Math.min(Math.max(score, 0), 1) * 100).toFixed(2)}%`;
}

export function confidence(score) {
  if (score < BEST_GUESS_BELOW) return gettext("Low confidence. Best guess:");
  if (score < 0.5) return gettext("Low confidence");
  return score < 0.8 ? gettext("Medium confidence") : gettext("High confidence");
}

export function size(bytes) {
  const [unit, scale] = bytes < 1e3 ? ["B", 1] : bytes < 1e6 ? ["kB", 1e3] : ["MB", 1e6];
  return localised(`${Number((bytes / scale).toPrecision(3))} ${unit}`);
}

/** The score and the threshold that decided, like "66.7% (needs 80%)". Rounding never contradicts their order. */
export function comparison(score, threshold) {
  const limit = Number((threshold * 100).toFixed(4));
  const decimals = Math.max(1, (String(limit).split(".")[1] ?? "").length);
  let shown = Number((score * 100).toFixed(decimals));
  if (shown >= limit !== score >= threshold) shown = Math.floor(score * 100 * 10 ** decimals) / 10 ** decimals;
  const [shownScore, shownLimit] = [localised(`${shown.toFixed(decimals)}%`), localised(`${limit}%`)];
  return score < threshold ? gettext("%(score)s (needs %(threshold)s)", { score: shownScore, threshold: shownLimit }) : `${shownScore} (≥ ${shownLimit})`;
}

export function milliseconds(value) {
  return value < 9.95 ? localised(`${value.toFixed(1)} ms`) : `${whole(Math.round(value))} ms`;
}

/** The display name of a label, by the channel's `names`; the label itself without one. */
export function labelName(label, names) {
  return names?.[label] ?? label;
}
