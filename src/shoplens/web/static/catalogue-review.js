/** Decide the categories of unsure products from the keyboard, with the next products at hand so that nothing has to wait. */

import { gettext, language, ngettext } from "./messages.js";
import { answerButton, isForField, explain, heatOf, optionRows, pageOf, pathElement, photoAddress, productAddress, saw, sureness, withPaths } from "./catalogue-view.js";
import { categorySearch } from "./category-search.js";
import { element, imageElement } from "./elements.js";
import { ask } from "./net.js";
import { Outbox } from "./outbox.js";

const HELD = 20;
const REFILL_BELOW = 10;
const PREFETCHED = 4;
const RECENT = 5;

const root = document.querySelector("[data-review]");
if (root) start();

function start() {
  const { channel } = root.dataset;
  const slot = (name) => root.querySelector(`[data-slot="${name}"]`);
  const boot = JSON.parse(root.dataset.boot);
  const help = root.querySelector("[data-help]");
  const why = root.querySelector("[data-why]");
  const undoable = [];
  const settled = new Set();
  const skipped = new Set();
  let { items: products, waiting } = boot;
  let done = 0;
  let photo = 0;
  let filling = null;
  const outbox = new Outbox({ kept: "shoplens-categories", me: root.dataset.me, onDone, onRefused, onWaiting });
  for (const id of outbox.ids()) settled.add(id);
  products = products.filter((product) => !settled.has(product.id)).map(withPaths);
  const current = () => products[0];
  const search = categorySearch(root.querySelector("[data-combo]"), {
    onChosen: ({ category, path }) => { decide(category, path); focusOptions(); },
    onLeft: focusOptions,
  });

  // What the server said

  function onDone(entry, answer) {
    if (entry.kind === "undo") putBack(withPaths(answer));
    if (!products.length) refill();
  }

  function onRefused(entry, problem) {
    const at = undoable.findLastIndex((each) => each.id === entry.id);
    if (at >= 0 && entry.kind !== "undo") undoable.splice(at, 1);
    if (entry.kind !== "undo") done = Math.max(0, done - 1);
    slot("problem").replaceChildren(`${entry.title}: ${problem.message} `, element("a", { href: pageOf({ id: entry.id, channel }) }, gettext("Look at the product")));
    if (["not_authenticated", "permission_denied"].includes(problem.code)) return;
    for (const row of slot("recent").querySelectorAll(`[data-id="${entry.id}"]`)) row.remove();
    if (problem.code !== "product_changed") settled.delete(entry.id);
    refill();
    show();
  }

  function onWaiting(number, problem) {
    const line = slot("offline");
    line.hidden = number === 0;
    if (!number) return line.replaceChildren();
    const kept = ngettext("%(number)s decision is kept and sent", "%(number)s decisions are kept and sent", number);
    if (problem.code === "not_authenticated") line.replaceChildren(gettext("You are signed out. %(kept)s once you have ", { kept }), element("a", { href: "/sign-in?next=/console/catalogue/review" }, gettext("signed in")), ".");
    else line.textContent = gettext("The server cannot be reached. %(kept)s as soon as it answers.", { kept });
  }

  /** Get more products. Only one request at a time. */
  function refill() {
    filling ??= more().finally(() => {
      filling = null;
      show();
    });
    return filling;
  }

  async function more() {
    const count = HELD + settled.size + skipped.size;
    let answer;
    try {
      const query = new URLSearchParams({ channel, needs_review: "true", order: "score", limit: String(Math.min(count, 200)) });
      answer = await ask(`/catalogue/products?${query}`);
    } catch (problem) {
      if (!problem.passing) slot("problem").textContent = problem.message;
      return;
    }
    const known = new Set(products.map((product) => product.id));
    const found = answer.items.map(withPaths);
    products.push(...found.filter((product) => !known.has(product.id) && !settled.has(product.id) && !skipped.has(product.id)));
    if (!products.length && skipped.size) {
      products = found.filter((product) => skipped.has(product.id) && !settled.has(product.id));
      skipped.clear();
    }
  }

  // Show

  function show() {
    const product = current();
    slot("desk").hidden = !product;
    slot("empty").hidden = Boolean(product) || filling !== null;
    for (const button of root.querySelectorAll("[data-do=undo]")) button.disabled = undoable.length === 0;
    slot("undo-last").hidden = undoable.length === 0;
    const total = Math.max(done + products.length, waiting);
    for (const place of document.querySelectorAll("[data-word=waiting]")) place.textContent = Math.max(0, total - done).toLocaleString(language);
    if (!product) return;
    slot("place").textContent = gettext("%(done)s of %(total)s", { done: (done + 1).toLocaleString(language), total: total.toLocaleString(language) });
    slot("bar").setAttribute("width", `${total ? (100 * done) / total : 0}%`);
    if (slot("desk").dataset.id === product.id) return;
    slot("desk").dataset.id = product.id;
    photo = 0;
    search.reset();
    why.hidden = true;
    showPhoto(product);
    slot("title").textContent = product.designation || gettext("No title");
    slot("title").toggleAttribute("data-missing", !product.designation);
    slot("description").textContent = product.description;
    const seen = gettext("the model saw %(what)s", { what: saw(product.kind) });
    slot("facts").replaceChildren(element("a", { href: pageOf(product) }, product.reference), [" ", seen, product.model].filter(Boolean).join(" · "));
    slot("sure").textContent = sureness(product);
    slot("options").replaceChildren(...optionRows(product));
    slot("answer-line").replaceChildren(...[answerButton(product)].filter(Boolean));
    prefetch();
  }

  function hideHeat() {
    const picture = root.querySelector("[data-heat]");
    picture.hidden = true;
    picture.removeAttribute("src");
    root.querySelector("[data-do=heat]").setAttribute("aria-pressed", "false");
  }

  /** Where the photo speaks for the first suggestion, laid over it. */
  async function toggleHeat() {
    const product = current();
    const picture = root.querySelector("[data-heat]");
    if (!picture.hidden || !product?.photos.length || !product.suggestions.length) return hideHeat();
    try {
      const map = await heatOf(product, photo, product.suggestions[0].category);
      if (current()?.id !== product.id) return URL.revokeObjectURL(map);
      picture.onload = () => URL.revokeObjectURL(map);
      picture.src = map;
      picture.hidden = false;
      root.querySelector("[data-do=heat]").setAttribute("aria-pressed", "true");
    } catch (problem) {
      slot("problem").textContent = problem.message;
    }
  }

  function showPhoto(product) {
    hideHeat();
    const { photos } = product;
    const parts = [];
    if (photos.length) parts.push(imageElement(photoAddress(product, photo, "view"), { alt: gettext("Photo %(photo)s of %(photos)s", { photo: photo + 1, photos: photos.length }), decoding: "async" }));
    else parts.push(element("p", { class: "quiet" }, gettext("No photo")));
    if (photos.length > 1) parts.push(element("span", { class: "shot-words" }, gettext("%(photo)s of %(photos)s photos", { photo: photo + 1, photos: photos.length })));
    slot("photos").replaceChildren(...parts);
  }

  function walkPhotos(step) {
    const product = current();
    if (!product || product.photos.length < 2) return;
    photo = (photo + step + product.photos.length) % product.photos.length;
    showPhoto(product);
  }

  function prefetch() {
    for (const product of products.slice(1, 1 + PREFETCHED)) if (product.photos.length) new Image().src = photoAddress(product, 0, "view");
  }

  function focusOptions() {
    document.activeElement?.blur();
  }

  const say = (words) => (slot("spoken").textContent = words);

  // Decide

  function decide(category, path) {
    const product = current();
    if (!product) return;
    slot("problem").textContent = "";
    products.shift();
    settled.add(product.id);
    done += 1;
    undoable.push({ id: product.id, product });
    outbox.add({
      id: product.id, kind: "category", title: product.designation || product.reference,
      path: productAddress(channel, product, "/category"), body: { action: "correct", category, revision: product.revision },
    });
    remember(product, path);
    const next = current() ? gettext("Next: %(title)s", { title: current().designation }) : gettext("That was the last product here.");
    say(`${path.at(-1)}. ${next}`);
    show();
    if (products.length < REFILL_BELOW) refill();
  }

  function remember(product, path) {
    const row = element("li", { "data-id": product.id }, element("a", { href: pageOf(product) }, product.designation || product.reference), " → ", pathElement(path));
    slot("recent").prepend(row);
    while (slot("recent").children.length > RECENT) slot("recent").lastElementChild.remove();
  }

  /** Take the last decision back: one that was not sent yet is not sent at all. */
  function undo() {
    const last = undoable.pop();
    if (!last) return say(gettext("Nothing to undo"));
    slot("problem").textContent = "";
    if (outbox.withdraw(last.id)) return putBack(last.product);
    outbox.add({ id: last.id, kind: "undo", title: last.product.designation || last.product.reference, path: productAddress(channel, last, "/category"), body: { action: "undo" } });
  }

  /** The product is the current one again. */
  function putBack(product) {
    settled.delete(product.id);
    done = Math.max(0, done - 1);
    products = [product, ...products.filter((each) => each.id !== product.id)];
    for (const row of slot("recent").querySelectorAll(`[data-id="${product.id}"]`)) row.remove();
    delete slot("desk").dataset.id;
    say(gettext("Taken back: %(designation)s", { designation: product.designation }));
    show();
  }

  function skip() {
    const product = products.shift();
    if (!product) return;
    skipped.add(product.id);
    say(gettext("Skipped"));
    if (products.length < REFILL_BELOW) refill();
    show();
  }

  function choose(key) {
    const button = root.querySelector(`[data-form] [data-key="${key}"]`);
    if (button) take(button);
  }

  function take(button) {
    const product = current();
    if (!product) return;
    const entry = [...product.suggestions, product.answer].find((each) => each?.category === button.dataset.category);
    if (entry) decide(entry.category, entry.path);
  }

  const does = {
    undo, skip, why: () => current() && explain(why, channel, current()), heat: toggleHeat, help: () => (help.open ? help.close() : help.showModal()), search: () => search.focus(),
    open: () => current() && location.assign(pageOf(current())),
  };
  const letters = { u: "undo", s: "skip", w: "why", h: "heat", "?": "help", "/": "search", o: "open" };

  function meaning(event) {
    if (event.key === "ArrowRight") return () => walkPhotos(1);
    if (event.key === "ArrowLeft") return () => walkPhotos(-1);
    if (event.key === "Enter") return event.target.closest("a, button, summary") ? undefined : () => choose(1);
    if (/^[0-3]$/.test(event.key)) return () => choose(event.key);
    return does[letters[event.key.length === 1 ? event.key.toLowerCase() : event.key]];
  }

  document.addEventListener("keydown", (event) => {
    const takesBack = event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey && !event.altKey;
    if (takesBack && (!isForField(event) || search.isEmpty())) {
      event.preventDefault();
      return undo();
    }
    if (event.ctrlKey || event.metaKey || isForField(event) || (help.open && event.key !== "?")) return;
    const action = meaning(event);
    if (!action) return;
    event.preventDefault();
    if (!event.repeat) action();
  });
  root.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do], [data-category]");
    if (!button) return;
    event.preventDefault();
    if (button.dataset.category) take(button);
    else does[button.dataset.do]();
    if (button.dataset.category || ["undo", "skip"].includes(button.dataset.do)) focusOptions();
  });
  root.querySelector("[data-form]").addEventListener("submit", (event) => event.preventDefault());
  if (current()) delete slot("desk").dataset.id;
  show();
  if (products.length < waiting) refill();
}
