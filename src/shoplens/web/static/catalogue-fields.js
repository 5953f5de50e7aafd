/** Fields of forms in which a category is found by typing: what is chosen is written into the field as its path. */

import { categorySearch } from "./category-search.js";

for (const box of document.querySelectorAll("[data-combo]")) {
  const field = box.querySelector("input");
  categorySearch(box, {
    onChosen: ({ path }) => {
      field.value = path.join(" > ");
      field.form.querySelector("button:not([data-category])")?.focus();
    },
  });
}
