/** Ask the model for every product that has no suggestion yet, a few at a time, while the page is open. */

import { send } from "./catalogue-view.js";
import { ask } from "./net.js";

const AT_ONCE = 3;
const PAGE = 60;
const MOST_WAITS = 30;

for (const button of document.querySelectorAll("[data-suggest-new]")) {
  button.addEventListener("click", () => suggestNew(button.closest("[data-run]"), button).finally(() => (button.disabled = false)));
}

async function suggestNew(box, button) {
  const { channel } = box.dataset;
  const total = Number(box.dataset.run);
  const words = box.querySelector("[data-run-words]");
  const failed = [];
  let done = 0;
  let after = null;
  button.disabled = true;
  try {
    do {
      const query = new URLSearchParams({ channel, state: "new", limit: String(PAGE), ...(after && { after }) });
      const { items, next } = await ask(`/catalogue/products?${query}`);
      after = next;
      const waiting = [...items];
      await Promise.all(Array.from({ length: AT_ONCE }, async () => {
        for (let product = waiting.shift(); product; product = waiting.shift()) {
          const saved = await savedAgain(channel, product);
          if (saved.not_suggested) failed.push(saved);
          done += 1;
          words.textContent = `${done.toLocaleString("en")} of ${Math.max(total, done).toLocaleString("en")}. Keep this page open.`;
        }
      }));
    } while (after);
  } catch (problem) {
    words.textContent = `${done.toLocaleString("en")} products have a suggestion now. ${problem.message}`;
    return;
  }
  if (!failed.length) return location.reload();
  words.textContent = `${done - failed.length} of ${done} have a suggestion now. The others: ${failed[0].not_suggested}`;
}

/** A product that is saved as it is keeps its photos, and gets the suggestion that it lacks. */
async function savedAgain(channel, { reference, designation, description }) {
  for (let waits = 0; ; waits += 1) {
    try {
      return await send("/catalogue/products", { channel, reference, designation, description });
    } catch (problem) {
      if (problem.retryAfterS === null || waits === MOST_WAITS) throw problem;
      await new Promise((wake) => setTimeout(wake, problem.retryAfterS * 1000));
    }
  }
}
