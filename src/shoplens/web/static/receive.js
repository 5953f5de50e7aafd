/** Files that are pasted, dropped anywhere on the page, or chosen in a file field. */

/** `take(files)` gets them. `veil` is shown while files are dragged over the page. */
export function receiveFiles(take, { fields, veil }) {
  for (const field of fields) receiveChosen(field, take);
  receivePasted(take);
  receiveDropped(take, veil);
}

function receiveChosen(field, take) {
  field.addEventListener("change", () => {
    take(field.files);
    field.value = "";
  });
  // Browsers open a file field with Space; people also press Enter on what looks like a button.
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    field.click();
  });
}

function receivePasted(take) {
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length === 0) return;
    event.preventDefault();
    take(files);
  });
}

function receiveDropped(take, veil) {
  const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!carriesFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    veil.hidden = false;
  });
  document.addEventListener("dragleave", (event) => {
    if (event.relatedTarget === null) veil.hidden = true;
  });
  document.addEventListener("drop", (event) => {
    veil.hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    take(event.dataTransfer.files);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") veil.hidden = true;
  });
}
