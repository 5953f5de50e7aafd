/** The results that are shown, as CSV that is safe to open in a spreadsheet: the rules of spreadsheets.py. */

const FORMULA = /(^|[;,|\t\r\n])(?=[ "']*[=+\-@＝＋－＠])/g;

export function csvOf(columns, rows) {
  return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

function cell(value) {
  if (typeof value === "number") return String(value);
  const safe = (value ?? "").replace(/^(?=[\t\r\n])/, "'").replace(FORMULA, "$1'");
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Hand a text to the browser's downloads. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
