/** Numbers as people read them; the same rules as presenting.py, which says them on pages without a script. */

export const NOT_SURE_BELOW = 0.3;

export function percent(score) {
  return score > 0 && score < 0.001 ? "<0.1%" : `${(score * 100).toFixed(1)}%`;
}

export function barWidth(score) {
  return `${(Math.min(Math.max(score, 0), 1) * 100).toFixed(2)}%`;
}

export function certainty(score) {
  if (score < NOT_SURE_BELOW) return "Not sure; the best guess is";
  if (score < 0.5) return "A guess";
  return score < 0.8 ? "Fairly sure" : "Sure";
}

/** Where rounding would contradict the sign, the score is cut instead. */
export function comparison(score, threshold) {
  const decimals = Math.max(2, (String(threshold).split(".")[1] ?? "").length);
  let shown = Math.round(score * 10 ** decimals) / 10 ** decimals;
  if (shown >= threshold !== score >= threshold) shown = Math.floor(score * 10 ** decimals + 1e-9) / 10 ** decimals;
  return `${shown.toFixed(decimals)} ${score >= threshold ? "≥" : "<"} ${threshold.toFixed(decimals)}`;
}

export function milliseconds(value) {
  return value < 9.95 ? `${value.toFixed(1)} ms` : `${Math.round(value).toLocaleString("en")} ms`;
}
