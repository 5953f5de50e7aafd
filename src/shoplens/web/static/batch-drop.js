/** Import photos that are dropped on the page of a channel, or chosen there, in parts that the server takes at once. */

import { gettext, language } from "./messages.js";
import { ask } from "./net.js";

const MOST_FILES = 50;
const MOST_BYTES = 40_000_000;

const zone = document.querySelector("[data-drop]");
if (zone) takeFiles(zone);

function takeFiles(zone) {
  const field = zone.querySelector("input");
  const said = zone.querySelector("[data-drop-said]");
  const failed = zone.querySelector("[data-drop-failed]");
  let busy = false;

  async function send(files) {
    if (busy || !files.length) return;
    busy = true;
    failed.replaceChildren();
    const total = { imported: 0, known: 0, quarantined: 0, failed: 0 };
    let done = 0;
    for (const part of parts(files)) {
      said.textContent = gettext("Uploading %(done)s of %(files)s …", { done: done.toLocaleString(language), files: files.length.toLocaleString(language) });
      await sendPart(part, total);
      done += part.length;
    }
    said.textContent = words(total);
    busy = false;
    field.value = "";
    if (total.failed === 0) location.reload();
  }

  async function sendPart(part, total) {
    const body = new FormData();
    for (const file of part) body.append("file", file, file.name);
    try {
      const answer = await ask(`/batch/ingest?channel=${encodeURIComponent(zone.dataset.drop)}`, { method: "POST", body });
      count(answer, total);
    } catch (problem) {
      total.failed += part.length;
      for (const file of part) report(`${file.name}: ${problem.message}`);
    }
  }

  function count(answer, total) {
    for (const photo of answer.photos ?? []) {
      if (photo.item?.state === "waiting") total.imported += 1;
      else if (photo.item?.state === "quarantined") total.quarantined += 1;
      else if (photo.item) total.known += 1;
      else {
        total.failed += 1;
        report(`${photo.name}: ${photo.detail}`);
      }
    }
  }

  function report(line) {
    const entry = document.createElement("li");
    entry.textContent = line;
    failed.append(entry);
  }

  field.addEventListener("change", () => send([...field.files]));
  for (const kind of ["dragenter", "dragover"]) {
    addEventListener(kind, (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      zone.toggleAttribute("data-over", true);
    });
  }
  addEventListener("dragleave", (event) => event.relatedTarget === null && zone.removeAttribute("data-over"));
  addEventListener("drop", (event) => {
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    zone.removeAttribute("data-over");
    send([...event.dataTransfer.files]);
  });
  zone.hidden = false;
}

/** As many files as one request may have. */
function* parts(files) {
  let part = [];
  let bytes = 0;
  for (const file of files) {
    if (part.length && (part.length === MOST_FILES || bytes + file.size > MOST_BYTES)) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(file);
    bytes += file.size;
  }
  if (part.length) yield part;
}

function words({ imported, known, quarantined, failed }) {
  const kinds = [[imported, gettext("imported")], [known, gettext("already imported")], [quarantined, gettext("quarantined")], [failed, gettext("failed")]];
  return `${kinds.filter(([number]) => number).map(([number, name]) => `${number.toLocaleString(language)} ${name}`).join(", ")}.`;
}
