/** Accept many suggestions at once: the counts follow the slider. */

import { gettext, language, localised, ngettext } from "./messages.js";
import { pageOf, pathElement, photoAddress } from "./catalogue-view.js";
import { element, imageElement } from "./elements.js";
import { ask } from "./net.js";
import { percent } from "./words.js";

const EXAMPLES = 6;
const LOOK_AFTER_MS = 200;

const root = document.querySelector("[data-accept]");
if (root?.querySelector("[data-slider]")) start();

function start() {
  const curve = JSON.parse(root.dataset.curve);
  const slot = (name) => root.querySelector(`[data-slot="${name}"]`);
  const slider = root.querySelector("[data-slider] input[type=range]");
  const number = (value) => value.toLocaleString(language);
  let timer = 0;

  function show() {
    const atLeast = Number(slider.value);
    const point = curve.find((each) => each.at_least >= atLeast - 1e-9) ?? { waiting: 0, decided: 0, right: 0 };
    slot("at").textContent = localised(`${Math.round(100 * atLeast)}%`);
    slot("count").textContent = gettext("%(waiting)s of %(waiting_2)s", { waiting: number(point.waiting), waiting_2: number(curve[0].waiting) });
    slot("right").textContent = point.decided
      ? gettext("People decided %(decided)s in this range; right: %(right)s (%(accuracy)s).", { decided: number(point.decided), right: number(point.right), accuracy: percent(point.right / point.decided) })
      : gettext("People have decided none in this range yet, so nothing says how many are right.");
    slot("at-least").value = slider.value;
    slot("button").disabled = point.waiting === 0;
    slot("button").querySelector("span").textContent = ngettext("Accept %(number)s product", "Accept %(number)s products", point.waiting);
    clearTimeout(timer);
    timer = setTimeout(() => showExamples(atLeast), LOOK_AFTER_MS);
  }

  async function showExamples(atLeast) {
    try {
      const query = new URLSearchParams({ channel: root.dataset.channel, state: "suggested", min_score: String(atLeast), order: "score", limit: String(EXAMPLES) });
      const { items } = await ask(`/catalogue/products?${query}`);
      if (Number(slider.value) !== atLeast) return;
      slot("least-sure").hidden = items.length === 0;
      slot("examples").replaceChildren(...items.map(example));
    } catch {
      // the numbers stay without examples
    }
  }

  function example(product) {
    const picture = product.photos.length ? imageElement(photoAddress(product, 0, "thumbnail"), { class: "thumb", alt: "" }) : null;
    const best = product.suggestions[0];
    return element("a", { class: "example", href: pageOf(product) }, picture,
      element("div", {}, element("strong", {}, product.designation || product.reference), element("br"), pathElement(best.path), " ", element("small", {}, percent(best.score))));
  }

  slider.addEventListener("input", show);
  root.querySelector("[data-slider]").addEventListener("submit", (event) => event.preventDefault());
}
