/** Search in the category tree by typing: a combobox with a list below it. */

import { gettext } from "./messages.js";
import { partsOf, pathElement } from "./catalogue-view.js";
import { element } from "./elements.js";
import { ask } from "./net.js";

const SHOWN = 8;
const AFTER_MS = 60;

/** `onChosen({category, path})` when one is chosen, `onLeft()` when Escape leaves an empty field. */
export function categorySearch(box, { onChosen, onLeft = () => {} }) {
  const field = box.querySelector("input");
  const list = box.querySelector("[role=listbox]");
  const status = box.querySelector("[data-combo-status]");
  const known = new Map();
  let found = [];
  let at = -1;
  let timer = 0;

  function close() {
    list.hidden = true;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
    at = -1;
  }

  function reset() {
    clearTimeout(timer);
    field.value = "";
    found = [];
    close();
  }

  async function look() {
    const wanted = field.value.trim();
    if (!wanted) return close();
    let categories = known.get(wanted);
    if (!categories) {
      try {
        const query = new URLSearchParams({ channel: box.dataset.channel, text: wanted, limit: String(SHOWN) });
        const { items } = await ask(`/catalogue/categories?${query}`);
        categories = items.map((item) => ({ category: item.id, path: partsOf(item.path), also: alsoCalled(item, wanted) }));
        known.set(wanted, categories);
      } catch (problem) {
        status.textContent = problem.message;
        return close();
      }
    }
    if (field.value.trim() === wanted) show(categories);
  }

  function show(categories) {
    found = categories;
    list.replaceChildren(...found.map((entry, index) => {
      const row = element("li", { role: "option", id: `${list.id}-${index}`, "aria-selected": "false" }, pathElement(entry.path));
      if (entry.also) row.append(" ", element("small", {}, entry.also));
      row.addEventListener("pointerdown", (event) => event.preventDefault());
      row.addEventListener("click", () => take(entry));
      return row;
    }));
    if (!found.length) list.replaceChildren(element("li", { class: "combo-none" }, gettext("No category has such a name.")));
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
    status.textContent = found.length ? gettext("%(found)s categories", { found: found.length }) : gettext("No category has such a name.");
    mark(found.length ? 0 : -1);
  }

  function mark(index) {
    at = index;
    [...list.children].forEach((row, number) => row.setAttribute("aria-selected", String(number === at)));
    if (at < 0) return field.removeAttribute("aria-activedescendant");
    field.setAttribute("aria-activedescendant", list.children[at].id);
    list.children[at].scrollIntoView({ block: "nearest" });
  }

  function take(entry) {
    reset();
    onChosen(entry);
  }

  const keys = {
    ArrowDown: () => found.length && mark((at + 1) % found.length),
    ArrowUp: () => found.length && mark((at - 1 + found.length) % found.length),
    Enter: async () => {
      // Somebody who types quickly and presses Enter means what was typed, not what was found before.
      clearTimeout(timer);
      await look();
      if (found[at]) take(found[at]);
    },
    Escape: () => {
      const isEmpty = !field.value;
      reset();
      if (isEmpty) onLeft();
    },
  };

  field.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(look, AFTER_MS);
  });
  field.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.isComposing) return;
    event.preventDefault();
    event.stopPropagation();
    keys[event.key]();
  });
  field.addEventListener("blur", close);
  field.addEventListener("focus", () => field.value && look());
  return { focus: () => field.focus(), reset, isEmpty: () => !field.value };
}

/** The name in another language, or the synonym, by which a category was found, where its path does not show why. */
function alsoCalled({ path, names, synonyms }, wanted) {
  const has = (text) => wanted.toLowerCase().split(/\s+/).some((word) => text.toLowerCase().includes(word));
  return has(path) ? null : ([...Object.values(names), ...synonyms].find(has) ?? null);
}
