/** Files and folders that are pasted, dropped anywhere on the page, or chosen in a file field. */

/** `take(files)` gets them. `veil` is shown while files are dragged over the page. A file from a folder that was dropped
 * has its path there as `path`; one that the browser could not open is empty and has `unreadable`. */
export function receiveFiles(take, { fields, veil }) {
  for (const field of fields) receiveChosen(field, take);
  receivePasted(take);
  receiveDropped(take, veil);
}

function receiveChosen(field, take) {
  field.addEventListener("change", () => {
    take([...field.files]);
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
  document.addEventListener("drop", async (event) => {
    veil.hidden = true;
    if (!carriesFiles(event)) return;
    event.preventDefault();
    // Both lists are empty once the event is over.
    const files = [...event.dataTransfer.files];
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    take(entries.some((entry) => entry.isDirectory) ? await filesBelow(entries) : files);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") veil.hidden = true;
  });
}

/** All files of the entries and of the folders in them, in the order of their paths. */
async function filesBelow(entries) {
  const found = [];
  for (const entry of entries) {
    if (entry.isDirectory) found.push(...(await filesBelow(await childrenOf(entry))));
    else found.push(await fileOf(entry));
  }
  return found;
}

/** A reader gives a hundred entries at a time, and none at the end. */
async function childrenOf(folder) {
  const reader = folder.createReader();
  const children = [];
  for (;;) {
    const some = await new Promise((resolve) => reader.readEntries(resolve, () => resolve(null)));
    if (some === null) return [...children, { isDirectory: false, name: folder.name, fullPath: `${folder.fullPath}/`, file: (_, fail) => fail() }];
    if (some.length === 0) return children.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
    children.push(...some);
  }
}

function fileOf(entry) {
  const path = entry.fullPath.replace(/^\//, "");
  return new Promise((resolve) => {
    entry.file(
      (file) => resolve(Object.assign(file, { path })),
      () => resolve(Object.assign(new File([], entry.name), { path, unreadable: true })),
    );
  });
}
