/** The page Classify: photos from the file dialog, camera, drop or paste; each is classified once per channel. */

import { answerElement, busyElement, problemElement, spoken } from "./answer.js";
import { Problem, upload } from "./net.js";
import { receiveFiles } from "./receive.js";
import { size } from "./words.js";

const AT_ONCE = 2;
const TOP_K = 10;

const byId = (id) => document.getElementById(id);
const page = byId("classify");
const form = byId("ask");
const preview = byId("preview");

const photos = [];
let chosen = null;
let running = 0;
const waiting = [];

/** A photo: its file, its preview, and a prediction or a problem per channel. */
class Photo {
  constructor(file) {
    this.file = file;
    this.name = file.name || "photo.jpg";
    this.url = URL.createObjectURL(file);
    this.previewable = true;
    this.answers = new Map();
    this.button = document.createElement("button");
  }
}

function take(files) {
  const added = [...files].map((file) => new Photo(file));
  if (added.length === 0) return;
  byId("form-error")?.remove();
  photos.push(...added);
  added.forEach((photo) => {
    listInStrip(photo);
    request(photo, channel().value);
  });
  choose(added[0]);
}

function channel() {
  return form.querySelector("input[name=channel]:checked");
}

/** Classify a photo in a channel, unless that was done before. The one that is looked at goes first. */
function request(photo, name) {
  const queued = waiting.findIndex(([other, channelName]) => other === photo && channelName === name);
  if (queued > 0 && photo === chosen) waiting.unshift(...waiting.splice(queued, 1));
  if (photo.answers.has(name)) return;
  photo.answers.set(name, { state: "waiting", element: busyElement() });
  photo.button.dataset.state = "waiting";
  if (photo === chosen) waiting.unshift([photo, name]);
  else waiting.push([photo, name]);
  pump();
}

function pump() {
  while (running < AT_ONCE && waiting.length > 0) {
    running += 1;
    classify(...waiting.shift()).finally(() => {
      running -= 1;
      pump();
    });
  }
}

async function classify(photo, name) {
  const { thresholds } = [...form.querySelectorAll("input[name=channel]")].find((each) => each.value === name).dataset;
  const busy = busyElement();
  const note = (words) => (busy.querySelector("[data-busy]").textContent = words);
  settle(photo, name, { state: "busy", element: busy });
  try {
    refuseTooLarge(photo.file);
    const { body, tripMs } = await upload(`/predict?channel=${encodeURIComponent(name)}&top_k=${TOP_K}`, () => formOf(photo), {
      onProgress: (share) => note(share < 1 ? `Uploading ${Math.round(share * 100)}%…` : "Classifying…"),
      onWait: (left) => note(`Server busy. Retrying in ${left} s…`),
    });
    if (!photo.previewable && body.image.kept !== "nothing") borrowPreview(photo, body.id);
    settle(photo, name, { state: "done", result: body, element: answerElement(body, { fileName: photo.name, tripMs, thresholds }) });
  } catch (error) {
    const problem = error instanceof Problem ? error : new Problem("Something went wrong. Reload the page.", { code: String(error) });
    settle(photo, name, { state: "problem", problem, element: problemElement(problem, () => again(photo, name), () => byId("file").click()) });
  }
}

function formOf(photo) {
  const data = new FormData();
  data.append("file", photo.file, photo.name);
  return data;
}

/** Refuse before sending what the server would refuse. */
function refuseTooLarge(file) {
  const most = Number(form.dataset.maxBytes);
  if (file.size > most) {
    throw new Problem(`This photo is ${size(file.size)}. The limit is ${size(most)}.`, { code: "image_too_large", passing: false });
  }
}

function again(photo, name) {
  photo.answers.delete(name);
  request(photo, name);
  show();
}

function settle(photo, name, answer) {
  photo.answers.set(name, answer);
  photo.button.dataset.state = answer.state;
  photo.button.setAttribute("aria-label", [photo.name, answer.result?.labels[0].label].filter(Boolean).join(", "));
  count();
  if (photo === chosen && name === channel().value) show();
}

/** How far the photos are, in the chosen channel. */
function count() {
  const states = photos.map((photo) => photo.answers.get(channel().value)?.state);
  const done = states.filter((state) => state === "done").length;
  const failed = states.filter((state) => state === "problem").length;
  byId("count").hidden = photos.length < 2;
  byId("count").textContent = `${done} of ${photos.length} classified` + (failed > 0 ? `, ${failed} failed` : "");
}

function choose(photo) {
  chosen = photo;
  photos.forEach((each) => each.button.toggleAttribute("aria-current", each === photo));
  if (photo.button.hasAttribute("aria-current")) photo.button.setAttribute("aria-current", "true");
  request(photo, channel().value);
  count();
  show();
}

/** Show the chosen photo and its prediction in the chosen channel. */
function show() {
  page.dataset.state = "shown";
  byId("photo").hidden = false;
  if (preview.dataset.of !== chosen.url) {
    preview.dataset.of = chosen.url;
    preview.src = chosen.url;
    preview.alt = `Your photo ${chosen.name}`;
  }
  preview.hidden = !chosen.previewable;
  byId("no-preview").hidden = chosen.previewable;
  const answer = chosen.answers.get(channel().value);
  byId("file-name").textContent = chosen.name;
  byId("no-preview-why").hidden = answer.state === "problem";
  const answers = byId("answers");
  if (answers.firstElementChild !== answer.element) answers.replaceChildren(answer.element);
  answers.setAttribute("aria-busy", String(answer.state === "busy" || answer.state === "waiting"));
  byId("status").textContent = announcement(answer);
}

function announcement(answer) {
  if (answer.state === "done") return spoken(answer.result);
  return answer.state === "problem" ? "" : `Classifying ${chosen.name}`;
}

function listInStrip(photo) {
  const picture = Object.assign(document.createElement("img"), { loading: "lazy", src: photo.url, alt: "", decoding: "async" });
  picture.addEventListener("error", () => picture.replaceWith(suffixTile(photo.name)));
  photo.button.type = "button";
  photo.button.append(picture);
  photo.button.addEventListener("click", () => choose(photo));
  const entry = document.createElement("li");
  entry.append(photo.button);
  byId("strip").append(entry);
  byId("strip").hidden = photos.length < 2;
}

function suffixTile(name) {
  const tile = document.createElement("small");
  tile.textContent = name.includes(".") ? name.split(".").pop().slice(0, 5).toUpperCase() : "?";
  return tile;
}

/** Formats that browsers cannot show (HEIC, TIFF) get a preview from the copy that the server stored. */
function borrowPreview(photo, id) {
  photo.url = `/predictions/${encodeURIComponent(id)}/image?size=view`;
  photo.previewable = true;
  photo.borrowed = true;
}

preview.addEventListener("error", () => {
  if (!chosen || preview.dataset.of !== chosen.url) return;
  chosen.previewable = false;
  const answer = chosen.answers.get(channel().value);
  if (!chosen.borrowed && answer?.state === "done" && answer.result.image.kept !== "nothing") borrowPreview(chosen, answer.result.id);
  show();
});

receiveFiles(take, { fields: [byId("file"), byId("camera")], veil: byId("veil") });
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("change", (event) => {
  if (event.target.name === "channel" && chosen) choose(chosen);
});
