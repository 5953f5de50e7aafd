/** Texts in the language of the page. A page that is not in English has loaded `shoplensTexts` before any module. */

const texts = globalThis.shoplensTexts ?? {};
export const language = document.documentElement.lang || "en";
const rules = new Intl.PluralRules(language);

/** The locale for dates: the person's own, such as British English, where it is in the language of the page. */
export const locale = language === "en" && navigator.language.startsWith("en") ? undefined : language;

/** The text with its values: `gettext("%(file)s is empty.", { file: name })`; `%%` stands for a percent sign. */
export function gettext(text, values = {}) {
  return filled(texts[text] ?? text, values);
}

/** The same of a text that depends on a number, which is its value `number` as people write it. */
export function ngettext(one, many, number, values = {}) {
  const forms = texts[one] ?? [one, many];
  return filled(forms[rules.select(number) === "one" ? 0 : forms.length - 1], { number: whole(number), ...values });
}

/** The same text, marked as a message that `gettext` translates where it is shown. */
export function marked(text) {
  return text;
}

/** 12345 is "12,345" in English and "12.345" in German. */
export function whole(number) {
  return number.toLocaleString(language);
}

/** A number that English writes, like "1,234.5" or "83.4%", as the language writes it. */
export function localised(number) {
  if (language === "en") return number;
  const marks = Object.fromEntries(new Intl.NumberFormat(language, { useGrouping: "always" }).formatToParts(12345.5).map(({ type, value }) => [type, value]));
  return number.replace(/[.,%]/g, (mark) => ({ ".": marks.decimal, ",": marks.group, "%": "\u00a0%" })[mark]);
}

function filled(text, values) {
  return text.replace(/%(?:%|\((\w+)\)s)/g, (place, name) => (name === undefined ? "%" : String(values[name])));
}
