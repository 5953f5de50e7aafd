/** Look into a table before it is sent: what its columns are, and its first rows, as the server reads them. */

import { gettext, language, ngettext } from "./messages.js";
import { element } from "./elements.js";
import { ask } from "./net.js";
import { receiveFiles } from "./receive.js";
import { size } from "./words.js";

const FIELDS = { reference: gettext("Product ID"), designation: gettext("Title"), description: gettext("Description"), category: gettext("Category"), photos: gettext("Photos") };
const NEWLINE = 10;
const isTable = (file) => !/^image\/|zip/.test(file.type) && !/\.(zip|jpe?g|png|webp|avif|hei[cf]|gif|bmp|tiff?)$/i.test(file.name);

const root = document.querySelector("[data-import]");
if (root) start();

function start() {
  const form = root.querySelector("[data-form]");
  const field = form.querySelector("#file");
  const slot = (name) => root.querySelector(`[data-slot="${name}"]`);
  let looks = 0;

  async function preview() {
    const [file] = [...field.files].filter(isTable).sort((a, b) => b.size - a.size); // of X and Y, X is larger
    const look = (looks += 1);
    slot("preview").hidden = field.files.length === 0;
    slot("start").disabled = field.files.length === 0;
    slot("file").textContent = described([...field.files]);
    slot("problem").textContent = "";
    if (!file) {
      for (const name of ["mapping", "rows"]) slot(name).replaceChildren();
      if (field.files.length) slot("problem").textContent = gettext("Add the CSV file with the products: these are only photos.");
      return;
    }
    try {
      const body = await beginning(file, Number(root.dataset.previewBytes));
      const found = await ask("/console/catalogue/imports/preview.json", { method: "POST", headers: { "Content-Type": "text/csv" }, body });
      if (look === looks) show(found);
    } catch (problem) {
      slot("problem").textContent = problem.message;
    }
  }

  function show({ columns, rows, challenge, fields, problem }) {
    slot("problem").textContent = problem ?? "";
    const choosers = challenge ? [element("p", { class: "quiet" }, gettext("A table of the Rakuten challenge: its columns are known."))]
      : Object.entries(FIELDS).map(([name, words]) => chooser(name, words, columns, fields[name] ?? ""));
    slot("mapping").replaceChildren(...(columns.length ? choosers : []));
    const table = () => showRows(columns, rows, challenge ? fields : null);
    for (const select of slot("mapping").querySelectorAll("select")) select.addEventListener("change", table);
    table();
  }

  function chooser(name, words, columns, guessed) {
    const several = guessed.includes(", ") ? [element("option", { value: "", selected: "" }, guessed)] : [];
    const options = columns.map((column) => element("option", { value: column, selected: column === guessed ? "" : null }, column));
    return element("label", { class: "field" }, element("span", {}, words),
      element("select", { name: `column_${name}` }, ...(several.length ? several : [element("option", { value: "" }, "–")]), ...options));
  }

  function showRows(columns, rows, known) {
    const chosen = [...slot("mapping").querySelectorAll("select")].map((select) => [select.name.replace("column_", ""), select.selectedOptions[0].textContent]);
    const meant = new Map((known ? Object.entries(known) : chosen).flatMap(([name, text]) => (text ?? "").split(", ").filter(Boolean).map((column) => [column, FIELDS[name]])));
    const head = columns.map((column) => element("th", { scope: "col" }, column || "–", element("small", {}, meant.get(column) ?? gettext("not used"))));
    const body = rows.map((row) => element("tr", {}, ...row.map((value) => element("td", { title: value }, value))));
    slot("rows").replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...body));
  }

  /** Photos that are dropped later join the table, and a table joins photos; another table replaces the first. */
  function take(files) {
    const [tables, before] = [files.some(isTable), [...field.files]];
    const kept = before.filter((each) => !(tables && isTable(each)) && !files.some((file) => file.name === each.name));
    const moved = new DataTransfer();
    for (const file of [...kept, ...files]) moved.items.add(file);
    field.files = moved.files;
    preview();
  }

  field.addEventListener("change", preview);
  form.addEventListener("submit", (event) => {
    if (form.getAttribute("aria-busy") === "true") return event.preventDefault();
    form.setAttribute("aria-busy", "true");
    slot("start").querySelector("span").textContent = gettext("Sending…");
  });
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  receiveFiles((files) => take([...files]), { fields: [], veil: root.querySelector("[data-veil]") });
  slot("start").disabled = field.files.length === 0;
  if (field.files.length) preview();
}

/** The tables and ZIP files by name, and how many photos there are. */
function described(files) {
  const isPhoto = (file) => !isTable(file) && !/\.zip$/i.test(file.name);
  const photos = files.filter(isPhoto);
  const names = files.filter((file) => !isPhoto(file)).map((each) => `${each.name}, ${size(each.size)}`);
  if (photos.length) names.push(ngettext("%(number)s photo, %(size)s", "%(number)s photos, %(size)s", photos.length, { size: size(photos.reduce((sum, each) => sum + each.size, 0)) }));
  return new Intl.ListFormat(language).format(names);
}

/** The first bytes of a file, up to a whole line. */
async function beginning(file, most) {
  const bytes = new Uint8Array(await file.slice(0, most).arrayBuffer());
  return file.size <= most ? bytes : bytes.slice(0, bytes.lastIndexOf(NEWLINE) + 1);
}
