/** Look into a CSV before it is sent: what its columns are, and its first rows. */

import { element } from "./elements.js";
import { receiveFiles } from "./receive.js";
import { size } from "./words.js";

const LOOKED_AT_BYTES = 256 * 1024;
const PREVIEWED = 5;
const SEPARATORS = [",", ";", "\t", "|"];
const FIELDS = [
  ["reference", "Product id", /^(product_?id|id|sku|article|reference|ref|ean|gtin|handle|artikel(nummer)?)$/],
  ["designation", "Title", /^(designation|title|name|product_?name|titel|bezeichnung|nom)$/],
  ["description", "Description", /^(description|body|text|beschreibung|long_description)$/],
  ["category", "Category", /^(category|categories|prdtypecode|path|category_?path|product_type|google_product_category|kategorie)$/],
  ["photos", "Photos", /^(image_?id|images?|photos?|image_?(url|link|src)s?|picture|bild(er)?)$/],
];

const root = document.querySelector("[data-import]");
if (root) start();

function start() {
  const form = root.querySelector("[data-form]");
  const field = form.querySelector("#file");
  const slot = (name) => root.querySelector(`[data-slot="${name}"]`);

  async function preview() {
    const file = field.files[0];
    slot("preview").hidden = !file;
    if (!file) return;
    slot("file").textContent = `${[...field.files].map((each) => each.name).join(", ")}, ${size(file.size)}`;
    slot("problem").textContent = "";
    const rows = /\.zip$/i.test(file.name) ? [] : parse(decoded(await file.slice(0, LOOKED_AT_BYTES).arrayBuffer()));
    const [header, ...data] = rows;
    if (!header || header.length < 2) {
      slot("mapping").replaceChildren();
      slot("rows").replaceChildren();
      slot("problem").textContent = /\.zip$/i.test(file.name) ? "" : "This does not look like a table with several columns. It is read as it is, and faults are listed by line.";
      return;
    }
    slot("mapping").replaceChildren(...FIELDS.map((each) => chooser(each, header)));
    const table = () => showRows(header, data);
    for (const select of slot("mapping").querySelectorAll("select")) select.addEventListener("change", table);
    table();
  }

  function chooser([name, words, pattern], header) {
    const guessed = header.findIndex((column) => pattern.test(column.trim().toLowerCase().replaceAll(/[\s-]+/g, "_")));
    const options = header.map((column, index) => element("option", { value: column, selected: index === guessed ? "" : null }, column.trim() || `Column ${index + 1}`));
    return element("label", { class: "field" }, element("span", {}, words),
      element("select", { name: `column_${name}` }, element("option", { value: "" }, "–"), ...options));
  }

  function showRows(header, data) {
    const meant = new Map([...slot("mapping").querySelectorAll("select")].map((select, index) => [select.value, FIELDS[index][1]]));
    const head = element("tr", {}, ...header.map((column) => element("th", { scope: "col" }, column.trim() || "–", meant.has(column) && column ? element("small", {}, meant.get(column)) : element("small", {}, "not used"))));
    const body = data.slice(0, PREVIEWED).map((row) => element("tr", {}, ...header.map((_, index) => element("td", {}, (row[index] ?? "").slice(0, 200)))));
    slot("rows").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
  }

  field.addEventListener("change", preview);
  form.addEventListener("submit", (event) => {
    if (form.getAttribute("aria-busy") === "true") return event.preventDefault();
    form.setAttribute("aria-busy", "true");
    slot("start").querySelector("span").textContent = "Sending…";
  });
  addEventListener("pageshow", (event) => event.persisted && form.removeAttribute("aria-busy"));
  receiveFiles((files) => {
    const moved = new DataTransfer();
    for (const file of files) moved.items.add(file);
    field.files = moved.files;
    preview();
  }, { fields: [], veil: root.querySelector("[data-veil]") });
  if (field.files.length) preview();
}

/** UTF-8, else the encoding of Western spreadsheets; the server does the same, and more. */
function decoded(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

/** The rows of the beginning of a table. */
function parse(text) {
  const firstLine = text.slice(0, text.search(/\r|\n|$/));
  const separator = SEPARATORS.reduce((best, each) => (firstLine.split(each).length > firstLine.split(best).length ? each : best));
  const rows = [[""]];
  let quoted = false;
  for (let at = 0; at < text.length && rows.length <= PREVIEWED + 1; at += 1) {
    const character = text[at];
    const row = rows.at(-1);
    if (quoted) {
      if (character !== '"') row[row.length - 1] += character;
      else if (text[at + 1] === '"') row[row.length - 1] += text[(at += 1)];
      else quoted = false;
    } else if (character === '"' && row.at(-1) === "") quoted = true;
    else if (character === separator) row.push("");
    else if (character === "\n") rows.push([""]);
    else if (character !== "\r") row[row.length - 1] += character;
  }
  return rows.filter((row) => row.length > 1 || row[0] !== "");
}
