/** Select records of the list, all of a page at once or a range with Shift, to delete them. */

import { gettext } from "./messages.js";

const form = document.querySelector("[data-selection]");
const button = form?.querySelector("[data-delete-selected]");
if (button) select([...form.querySelectorAll("input[name=id]")], form.querySelector("[data-select-all]"));

function select(boxes, all) {
  const words = button.textContent;
  let last = null;

  function show() {
    const count = boxes.filter((box) => box.checked).length;
    button.disabled = count === 0;
    button.textContent = count ? gettext("Delete %(count)s selected …", { count }) : words;
    const whole = all.querySelector("input");
    whole.checked = count === boxes.length;
    whole.indeterminate = count > 0 && count < boxes.length;
    for (const box of boxes) box.closest("tr").toggleAttribute("data-picked", box.checked);
  }

  form.addEventListener("click", (event) => {
    const here = boxes.indexOf(event.target);
    if (here < 0) return;
    if (event.shiftKey && last !== null) {
      for (const box of boxes.slice(Math.min(here, last), Math.max(here, last) + 1)) box.checked = boxes[here].checked;
    }
    last = here;
    show();
  });
  all.addEventListener("change", (event) => {
    for (const box of boxes) box.checked = event.target.checked;
    show();
  });
  addEventListener("pageshow", show); // a browser that goes back restores what was selected
  all.hidden = false;
  show();
}
