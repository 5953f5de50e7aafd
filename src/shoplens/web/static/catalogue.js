/** The page Catalogue: a product's title, description and photos, and the categories that fit. */

import { gettext } from "./messages.js";
import { answerButton, isForField, explain, optionRows, pageOf, pathElement, productAddress, saw, send, sureness, withPaths } from "./catalogue-view.js";
import { categorySearch } from "./category-search.js";
import { element } from "./elements.js";
import { Problem, pictureFrom, upload } from "./net.js";
import { receiveFiles } from "./receive.js";
import { milliseconds, percent, size } from "./words.js";

const TYPING_MS = 500;

const root = document.querySelector("[data-suggest]");
if (root) start();

function start() {
  const { channel } = root.dataset;
  const form = root.querySelector("[data-form]");
  const place = root.querySelector("[data-slot=answer]");
  const strip = root.querySelector("[data-strip]");
  const help = root.querySelector("[data-help]");
  const nothing = place.querySelector("[data-slot=none]");
  const { designation: title, description, reference } = form.elements;
  const photos = [];
  const accepted = [];
  let asked = 0;
  let timer = 0;
  let asking = null;
  let shown = null;
  let search = null;
  const say = (words) => (root.querySelector("[data-slot=spoken]").textContent = words);

  // Photos

  function take(files) {
    const wanted = [...files].filter((file) => !/^text\//.test(file.type));
    const most = Number(root.dataset.maxPhotos);
    const tooLarge = wanted.find((file) => file.size > Number(root.dataset.maxBytes));
    if (tooLarge) return problem(new Problem(gettext("%(name)s is %(too_large)s. The limit is %(max_bytes)s.", { name: tooLarge.name, too_large: size(tooLarge.size), max_bytes: size(Number(root.dataset.maxBytes)) })));
    for (const file of wanted.slice(0, most - photos.length)) add(file);
    if (photos.length + wanted.length > most && wanted.length > most - photos.length) say(gettext("At most %(most)s photos. The others are left out.", { most }));
    suggest();
  }

  function add(file) {
    const photo = { file, url: URL.createObjectURL(file) };
    const unnamed = gettext("photo");
    const remove = element("button", { class: "photo-remove", type: "button", "aria-label": gettext("Remove %(file)s", { file: file.name || unnamed }) }, "×");
    const picture = element("img", { src: photo.url, alt: file.name || gettext("Photo"), decoding: "async" });
    picture.addEventListener("error", () => picture.replaceWith(element("small", {}, (file.name || "photo").split(".").pop().toUpperCase())));
    photo.row = element("li", {}, picture, remove);
    remove.addEventListener("click", () => {
      photos.splice(photos.indexOf(photo), 1);
      URL.revokeObjectURL(photo.url);
      photo.row.remove();
      suggest();
    });
    photos.push(photo);
    strip.append(photo.row);
  }

  function formOf(more = {}) {
    const data = new FormData();
    data.append("channel", channel);
    data.append("designation", title.value);
    data.append("description", description.value);
    for (const [name, value] of Object.entries(more)) data.append(name, value);
    for (const { file } of photos) data.append("file", file, file.name || "photo.jpg");
    return data;
  }

  const isEmpty = () => !title.value.trim() && !description.value.trim() && !photos.length;

  // Suggest

  /** Only the newest question counts; whether its answer is shown. */
  async function suggest() {
    clearTimeout(timer);
    asked += 1;
    if (isEmpty()) return clear();
    asking = request(asked);
    return asking;
  }

  async function request(number) {
    place.setAttribute("aria-busy", "true");
    root.querySelector("[data-slot=samples]").hidden = true;
    try {
      const { body, tripMs } = await upload("/catalogue/suggest", () => formOf(), { onProgress: () => {}, onWait: (left) => say(gettext("Server busy. Retrying in %(left)s s…", { left })) });
      if (number !== asked) return false;
      show(withPaths(body), tripMs);
      return true;
    } catch (error) {
      if (number === asked) problem(error);
      return false;
    } finally {
      if (number === asked) place.setAttribute("aria-busy", "false");
    }
  }

  function clear() {
    shown = null;
    place.replaceChildren(...[nothing].filter(Boolean));
    root.querySelector("[data-slot=samples]").hidden = accepted.length > 0;
  }

  function problem(error) {
    const known = error instanceof Problem ? error : new Problem(gettext("Something went wrong. Reload the page."));
    shown = null;
    place.replaceChildren(element("div", { class: "notice", role: "alert" }, element("p", {}, known.message)));
  }

  function show(body, tripMs) {
    shown = { body, taken: null, product: null };
    const made = root.querySelector("template[data-answer]").content.firstElementChild.cloneNode(true);
    made.querySelector("[data-cold]").hidden = !body.cold_start;
    made.querySelector("[data-do=heat]").hidden = body.cold_start || body.ignored === "photos" || !photos.length;
    made.querySelector("[data-sure]").textContent = sureness(body);
    made.querySelector("[data-options]").replaceChildren(...optionRows(body));
    made.querySelector("[data-answer-line]").replaceChildren(...[answerButton(body)].filter(Boolean));
    made.querySelector("[data-took]").textContent = [
      gettext("The model saw %(ignored)s", { ignored: saw(body.kind, body.ignored) }), body.model, body.tree ? gettext("tree version %(tree)s", { tree: body.tree }) : null,
      tripMs === undefined ? null : gettext("%(trip_ms)s round trip", { trip_ms: milliseconds(tripMs) }),
    ].filter(Boolean).join(" · ");
    made.querySelector("[data-search]").replaceWith(root.querySelector("template[data-combo-template]").content.cloneNode(true));
    place.replaceChildren(made);
    search = categorySearch(made.querySelector("[data-combo]"), { onChosen: accept, onLeft: () => made.querySelector("[data-category]")?.focus() });
    const best = body.suggestions[0];
    say(best ? `${sureness(body)} ${best.path.join(", ")}, ${percent(best.score)}` : sureness(body));
  }

  // Accept, take back

  async function accept({ category, path }) {
    if (!shown || shown.taken || place.getAttribute("aria-busy") === "true") return;
    const here = shown;
    here.taken = { category, path };
    place.setAttribute("aria-busy", "true");
    try {
      const product = here.product ?? (await save()); // it is stored already if this is another choice after an undo
      here.product = await send(productAddress(channel, product, "/category"), { action: "correct", category, revision: product.revision });
      accepted.push(here);
      showTaken(here);
    } catch (error) {
      here.taken = null;
      kept(gettext("Not saved. %(error)s", { error: error.message }), "problem");
    } finally {
      place.setAttribute("aria-busy", "false");
    }
  }

  async function save() {
    const more = { reference: reference.value.trim() || `page-${Date.now().toString(36)}` };
    const { body } = await upload("/catalogue/products", () => formOf(more), { onProgress: () => {}, onWait: () => {} });
    return body;
  }

  function kept(words, kind = "done") {
    const line = place.querySelector("[data-kept]") ?? place.querySelector("[data-slot=kept]");
    if (!line) return;
    line.hidden = false;
    line.dataset.kind = kind;
    line.replaceChildren(...[words].flat());
  }

  function showTaken({ taken, product }) {
    for (const button of place.querySelectorAll("[data-category]")) {
      button.disabled = true;
      button.toggleAttribute("data-taken", button.dataset.category === taken.category);
    }
    const next = element("button", { class: "button primary small", type: "button", "data-do": "next" }, gettext("Next product "), element("kbd", {}, "n"));
    kept([gettext("Saved: "), pathElement(taken.path), " ", element("a", { class: "link", href: pageOf(product) }, gettext("View product")), " ",
      element("button", { class: "button small", type: "button", "data-do": "undo" }, gettext("Undo "), element("kbd", {}, "u")), next]);
    next.focus();
    say(`${gettext("Saved: ")}${taken.path.join(", ")}`);
  }

  async function undo() {
    const last = accepted.pop();
    if (!last) return say(gettext("Nothing to undo"));
    try {
      last.product = await send(productAddress(channel, last.product, "/category"), { action: "undo" });
    } catch (error) {
      accepted.push(last);
      return kept(gettext("Not taken back. %(error)s", { error: error.message }), "problem");
    }
    last.taken = null;
    say(gettext("Taken back"));
    if (shown !== last) return kept([gettext("Taken back: "), element("a", { href: pageOf(last.product) }, last.product.designation || last.product.reference)]);
    for (const button of place.querySelectorAll("[data-category]")) button.disabled = false;
    kept(gettext("Taken back. Choose another category."));
    place.querySelector("[data-category]")?.focus();
  }

  function next() {
    form.reset();
    for (const photo of photos.splice(0)) {
      URL.revokeObjectURL(photo.url);
      photo.row.remove();
    }
    asked += 1;
    clear();
    title.focus();
  }

  function why() {
    const box = place.querySelector("[data-why]");
    if (shown && box) explain(box, channel, { designation: title.value, description: description.value, suggestions: shown.body.suggestions });
  }

  /** Where the first photo speaks for the first suggestion, laid over it. */
  async function heat() {
    const [box, button, here] = [place.querySelector("[data-heat-box]"), place.querySelector("[data-do=heat]"), shown];
    if (!box || button.hidden || !shown.body.suggestions.length) return;
    if (!box.hidden) return showHeat(box, button, false);
    const data = new FormData();
    data.append("channel", channel);
    data.append("category", shown.body.suggestions[0].category);
    data.append("file", photos[0].file, "photo.jpg");
    try {
      const map = await pictureFrom("/catalogue/heatmap", { method: "POST", body: data });
      const picture = box.querySelector("[data-heat]");
      picture.onload = () => URL.revokeObjectURL(map);
      picture.src = map;
      box.querySelector("[data-heat-photo]").src = photos[0]?.url ?? "";
      showHeat(box, button, shown === here);
    } catch (error) {
      kept(error.message, "problem");
    }
  }

  function showHeat(box, button, on) {
    box.hidden = !on;
    button.setAttribute("aria-pressed", String(on));
    if (on) box.scrollIntoView({ block: "nearest" });
  }

  async function trySample(button) {
    next();
    title.value = button.dataset.sampleTitle;
    if (button.dataset.samplePhoto) {
      const response = await fetch(button.dataset.samplePhoto);
      add(new File([await response.blob()], "sample.jpg", { type: "image/jpeg" }));
    }
    if (await suggest()) place.querySelector("[data-category]")?.focus();
  }

  function take123(button) {
    const { suggestions, answer } = shown.body;
    const entry = [...suggestions, answer].find((each) => each?.category === button.dataset.category);
    if (entry) accept(entry);
  }

  const does = { undo, next, why, heat, help: () => (help.open ? help.close() : help.showModal()), search: () => search?.focus() };
  const letters = { u: "undo", n: "next", w: "why", h: "heat", "?": "help", "/": "search" };

  title.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  for (const field of [title, description]) field.addEventListener("input", () => {
    clearTimeout(timer);
    asked += 1; // what is on its way is about another text
    timer = setTimeout(suggest, TYPING_MS);
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (event.submitter?.matches(".sample")) return trySample(event.submitter);
    if (isEmpty()) return problem(new Problem(gettext("Type a title or a description, or add a photo.")));
    if (await suggest()) place.querySelector("[data-category]")?.focus();
  });
  root.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do], [data-category]");
    if (!button) return;
    event.preventDefault();
    if (button.dataset.category) take123(button);
    else does[button.dataset.do]();
  });
  document.addEventListener("keydown", (event) => {
    if (isForField(event) || (help.open && event.key !== "?")) return;
    const takesBack = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey;
    if (!takesBack && (event.ctrlKey || event.metaKey)) return;
    const choice = /^[0-3]$/.test(event.key) && shown ? place.querySelector(`[data-key="${event.key}"]`) : null;
    const action = takesBack ? undo : choice ? () => choice.disabled || take123(choice) : does[letters[event.key.length === 1 ? event.key.toLowerCase() : event.key]];
    if (!action || event.repeat) return;
    event.preventDefault();
    action();
  });
  receiveFiles(take, { fields: [root.querySelector("#file")], veil: root.querySelector("[data-veil]") });
  if (!place.querySelector("[data-slot=none]") && !isEmpty()) suggest();
}
