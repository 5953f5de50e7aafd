/** The page Classify: photos and folders from the file dialog, camera, drop or paste; each is classified once per channel. */

import { gettext, language, ngettext } from "./messages.js";
import { answerElement, busyElement, problemElement, spoken } from "./answer.js";
import { Problem, upload } from "./net.js";
import { PhotoGrid } from "./photo-grid.js";
import { isOutage, Pace, PhotoQueue, timeLeft } from "./photo-queue.js";
import { receiveFiles } from "./receive.js";
import { isWorthIt, LineWatch, smallerCopy } from "./smaller-copy.js";
import { size } from "./words.js";

const TOP_K = 10;
const KEPT_ELEMENTS = 20;
const COUNT_MS = 200;
/** What systems put into folders beside photos. */
const SYSTEM_FILE = /^(\.DS_Store|Thumbs\.db|desktop\.ini|\._.*)$/i;
const CAN_BE_SMALLER = ["image_too_large", "image_too_many_pixels", "upload_too_slow", "upload_broken", "timeout"];
const MOST_BREAKS = 3;

const byId = (id) => document.getElementById(id);
const page = byId("classify");
const form = byId("ask");
const preview = byId("preview");

const photos = [];
let chosen = null;
let leftOut = 0;
let smaller = false;
let listAt = 0;
let isPushed = false;
let countTimer = null;
const pace = new Pace();
const sending = new Map();
const elements = new Map();

/** A photo: its file or its address, and a prediction or a problem per channel. */
class Photo {
  constructor(file, url = null) {
    this.file = file;
    this.url = url;
    this.bytes = file?.size;
    this.name = url ?? (file.path || file.webkitRelativePath || file.name || "photo.jpg");
    this.previewable = file !== null;
    this.borrowed = null;
    this.breaks = 0;
    this.answers = new Map();
  }
}

const queue = new PhotoQueue({
  work: ({ photo, name }) => classify(photo, name),
  onChange: () => {
    pace.restart();
    count();
  },
});
const grid = new PhotoGrid(byId("batch"), { photos, channel: channelFacts, onChoose: choose });

function take(files) {
  const wanted = files.filter((file) => !SYSTEM_FILE.test(file.name));
  leftOut += files.length - wanted.length;
  add(wanted.map((file) => new Photo(file)));
}

function add(added) {
  if (added.length === 0) return count();
  byId("form-error")?.remove();
  photos.push(...added);
  page.toggleAttribute("data-many", photos.length > 1);
  if (added.length > 1) page.dataset.view = "list";
  byId("batch").hidden = photos.length < 2;
  choose(added[0], { opened: added.length === 1 });
  added.forEach((photo) => request(photo, channel().value));
  if (photos.length > 1) grid.draw();
}

function channel() {
  return form.querySelector("input[name=channel]:checked");
}

function channelFacts() {
  const { value, dataset } = channel();
  return { name: value, thresholds: dataset.thresholds, shows: "shows" in dataset, names: namesOf(dataset) };
}

function namesOf(dataset) {
  return JSON.parse(dataset.names ?? "{}");
}

// The queue

/** Classify a photo in a channel, unless that was done before. The one that is looked at goes first. */
function request(photo, name) {
  if (photo === chosen) queue.hurry((task) => task.photo === photo && task.name === name);
  if (photo.answers.has(name)) return;
  settle(photo, name, { state: "waiting" });
  queue.add({ photo, name }, { first: photo === chosen });
}

/** Throws an outage, which the queue waits for; any other problem is the answer for this photo. */
async function classify(photo, name) {
  if (!photos.includes(photo)) return;
  const cancel = new AbortController();
  const progress = { state: "busy", words: gettext("Classifying…") };
  const note = (words) => {
    progress.words = words;
    noted(photo, name);
  };
  sending.set(photo, cancel);
  settle(photo, name, progress);
  const line = new LineWatch();
  try {
    if (photo.file) refuseAtOnce(photo.file);
    const { body, tripMs } = await upload(`/predict?channel=${encodeURIComponent(name)}&top_k=${TOP_K}`, () => formOf(photo), {
      onProgress: (share, bytes) => {
        note(share < 1 ? gettext("Uploading %(share)s%%…", { share: Math.round(share * 100) }) : gettext("Classifying…"));
        offerSmaller(photo, line.secondsLeft(share, bytes));
      },
      onWait: (left) => note(gettext("Server busy. Retrying in %(left)s s…", { left })),
      signal: cancel.signal,
    });
    pace.settled();
    settle(photo, name, { state: "done", result: body, tripMs });
  } catch (error) {
    await failed(photo, name, error, line);
  } finally {
    if (line.share > 0) queue.uploaded(line.uploadS ?? Infinity);
    sending.delete(photo);
  }
}

async function failed(photo, name, error, line) {
  let problem = error instanceof Problem ? error : new Problem(gettext("Something went wrong. Reload the page."), { code: String(error) });
  if (problem.code === "aborted") {
    if (!photos.includes(photo)) return;
    settle(photo, name, { state: "waiting" });
    return queue.add({ photo, name }, { first: true });
  }
  if (problem.code === "network" && photo.file && !(await isReadable(photo))) problem = unreadable();
  if (problem.code === "network" && line.share > 0 && line.share < 1) {
    photo.breaks += 1;
    if (photo.breaks === MOST_BREAKS) problem = broken();
  }
  if (photos.length > 1 && isOutage(problem)) {
    settle(photo, name, { state: "waiting" });
    throw problem;
  }
  pace.settled();
  settle(photo, name, { state: "problem", problem });
}

/** A file that was moved or deleted since it was chosen looks like a broken line to the browser; and where a picture of it
 * was shown, it is empty instead of an error. */
async function isReadable({ file, bytes }) {
  return file.slice(0, 1).arrayBuffer().then(({ byteLength }) => byteLength === Math.min(1, bytes), () => false);
}

function unreadable() {
  return new Problem(gettext("This file can't be read. It may have been moved, changed or deleted."), { code: "file_unreadable", passing: false });
}

/** The line broke in the middle of this photo again and again, or the server found it too slow. */
function broken() {
  return new Problem(gettext("The connection broke during the upload. Try again, or send a smaller copy."), { code: "upload_broken" });
}

async function formOf(photo) {
  const data = new FormData();
  if (photo.url) data.append("url", photo.url);
  else data.append("file", smaller ? await smallerCopy(photo.file) : photo.file, photo.name);
  return data;
}

/** Refuse before sending what cannot be read here, or what the server would refuse. */
function refuseAtOnce(file) {
  const most = Number(form.dataset.maxBytes);
  if (file.unreadable) throw unreadable();
  if (/^(video|audio)\//.test(file.type)) {
    throw new Problem(gettext("This is a video or a sound, not a photo."), { code: "image_unsupported", passing: false });
  }
  if (file.size > most && !smaller) {
    throw new Problem(gettext("This photo is %(file)s. The limit is %(most)s.", { file: size(file.size), most: size(most) }), { code: "image_too_large", passing: false });
  }
}

function again(photo, name) {
  photo.answers.delete(name);
  photo.breaks = 0;
  elements.delete(photo);
  request(photo, name);
  if (photo === chosen) show();
}

function settle(photo, name, answer) {
  photo.answers.set(name, answer);
  if (answer.result && !photo.previewable) borrowPreview(photo, answer.result);
  noted(photo, name);
}

function noted(photo, name) {
  if (name !== channel().value) return;
  grid.changed(photo);
  if (photo === chosen) show();
  countTimer ??= setTimeout(count, COUNT_MS);
}

/** How far the photos are in the chosen channel, how quick it is, and what can be done about the rest. */
function count() {
  clearTimeout(countTimer);
  countTimer = null;
  const states = photos.map((photo) => photo.answers.get(channel().value));
  const done = states.filter((answer) => answer?.state === "done").length;
  const problems = states.filter((answer) => answer?.state === "problem").map((answer) => answer.problem);
  const asked = states.filter(Boolean).length;
  const settled = done + problems.length;
  const number = (value) => value.toLocaleString(language);
  const rate = settled < asked && !queue.paused && !queue.outage ? pace.perSecond : null;
  byId("count").textContent = [
    gettext("%(done)s of %(photos)s classified", { done: number(done), photos: number(photos.length) }) + (problems.length > 0 ? gettext(", %(problems)s failed", { problems: number(problems.length) }) : ""),
    rate && gettext("%(rate)s photos/s", { rate: rate < 10 ? rate.toFixed(1) : Math.round(rate) }),
    rate && timeLeft((asked - settled) / rate),
    leftOut > 0 && ngettext("%(number)s system file left out", "%(number)s system files left out", leftOut),
  ].filter(Boolean).join(" · ");
  Object.assign(byId("progress"), { max: Math.max(photos.length, 1), value: settled });
  byId("pause").hidden = settled === asked;
  byId("pause").textContent = queue.paused || queue.outage ? gettext("Continue") : gettext("Pause");
  const again = problems.filter((problem) => problem.passing).length;
  byId("retry").hidden = again === 0;
  byId("retry").textContent = gettext("Retry %(again)s failed", { again: number(again) });
  byId("ask-rest").hidden = asked === photos.length;
  byId("ask-rest").textContent = gettext("Classify %(asked)s in %(title)s", { asked: number(photos.length - asked), title: channel().dataset.title });
  byId("queue-note").textContent = queueNote(asked - settled);
}

function queueNote(left) {
  if (queue.paused) return left > 0 ? gettext("Paused. What was sent is in the records.") : "";
  if (!queue.outage) return "";
  const { problem, waitS } = queue.outage;
  const sentence = problem.status === 401 ? gettext("You are signed out. Sign in again in another tab, then continue.") : problem.message;
  const next = ngettext("%(number)s photo waits; the next try is in %(seconds)s s.", "%(number)s photos wait; the next try is in %(seconds)s s.", left, { seconds: Math.round(waitS) });
  return `${sentence} ${next}`;
}

// A slow line

function offerSmaller(photo, seconds) {
  if (seconds === null || smaller || !photo.previewable || !isWorthIt(photo.file)) return;
  byId("slow").hidden = false;
  byId("slow-words").textContent = gettext("The connection is slow: %(seconds)s for this photo.", { seconds: timeLeft(seconds) });
}

function sendSmaller() {
  smaller = true;
  byId("slow").hidden = true;
  for (const [photo, cancel] of sending) if (photo.file && isWorthIt(photo.file)) cancel.abort();
}

// The chosen photo

function choose(photo, { opened = true } = {}) {
  if (photo !== chosen) releasePreview();
  chosen = photo;
  page.dataset.state = "shown";
  if (opened) open();
  request(photo, channel().value);
  grid.choose(photo);
  count();
  show();
}

/** On a phone there is room for the list or for one photo; "back" leads to the list. */
function open() {
  const isList = photos.length > 1 && page.dataset.view !== "one";
  page.dataset.view = "one";
  if (!isList || byId("to-list").offsetParent === null) return;
  listAt = scrollY;
  isPushed = true;
  history.pushState(null, "");
  scrollTo(0, 0);
}

function backToList() {
  isPushed = false;
  page.dataset.view = "list";
  scrollTo(0, listAt);
}

function releasePreview() {
  if (preview.dataset.of?.startsWith("blob:")) URL.revokeObjectURL(preview.dataset.of);
  delete preview.dataset.of;
  preview.removeAttribute("src");
}

/** Show the chosen photo and its prediction in the chosen channel. */
function show() {
  byId("photo").hidden = false;
  byId("place").textContent = grid.place;
  if ((chosen.file && !preview.dataset.of) || (chosen.borrowed && preview.dataset.of !== chosen.borrowed)) {
    releasePreview();
    preview.dataset.of = chosen.borrowed ?? URL.createObjectURL(chosen.file);
    preview.src = preview.dataset.of;
    preview.alt = gettext("Your photo %(name)s", { name: chosen.name });
  }
  preview.hidden = !chosen.previewable;
  byId("no-preview").hidden = chosen.previewable;
  const answer = chosen.answers.get(channel().value) ?? { state: "waiting" };
  byId("file-name").textContent = chosen.name;
  byId("no-preview-why").hidden = answer.state === "problem";
  const shown = elementOf(chosen, answer);
  const answers = byId("answers");
  if (answers.firstElementChild !== shown) answers.replaceChildren(shown);
  answers.setAttribute("aria-busy", String(answer.state === "busy" || answer.state === "waiting"));
  byId("status").textContent = announcement(answer);
}

/** The element of an answer. Those of the last photos are kept, with what was typed into them. */
function elementOf(photo, answer) {
  const known = elements.get(photo);
  if (known?.answer === answer) {
    const words = known.element.querySelector("[data-busy]");
    if (words && answer.words && words.textContent !== answer.words) words.textContent = answer.words;
    return known.element;
  }
  const made = { answer, element: elementFor(photo, answer) };
  elements.delete(photo);
  elements.set(photo, made);
  if (elements.size > KEPT_ELEMENTS) elements.delete(elements.keys().next().value);
  return made.element;
}

function elementFor(photo, answer) {
  const name = channel().value;
  if (answer.state === "done") {
    const { thresholds } = channel().dataset;
    return answerElement(answer.result, { fileName: photo.name, tripMs: answer.tripMs, thresholds, names: namesOf(channel().dataset) });
  }
  if (answer.state === "problem") {
    const canBeSmaller = !smaller && CAN_BE_SMALLER.includes(answer.problem.code) && photo.previewable && isWorthIt(photo.file);
    return problemElement(answer.problem, {
      again: () => again(photo, name),
      other: () => byId("file").click(),
      smaller: canBeSmaller ? () => { sendSmaller(); again(photo, name); } : null,
    });
  }
  const busy = busyElement();
  if (answer.words) busy.querySelector("[data-busy]").textContent = answer.words;
  return busy;
}

function announcement(answer) {
  if (answer.state === "done") return spoken(answer.result, channelFacts().names);
  return answer.state === "problem" ? "" : gettext("Classifying %(name)s", { name: chosen.name });
}

/** Formats that browsers cannot show (HEIC, TIFF) get a preview from the copy that the server stored. */
function borrowPreview(photo, result) {
  if (result.image.kept === "nothing" || !channelFacts().shows) return;
  photo.borrowed = `/predictions/${encodeURIComponent(result.id)}/image?size=view`;
  photo.previewable = true;
}

preview.addEventListener("error", () => {
  if (!chosen || !preview.dataset.of || preview.getAttribute("src") !== preview.dataset.of) return;
  chosen.previewable = false;
  const answer = chosen.answers.get(channel().value);
  if (!chosen.borrowed && answer?.result) borrowPreview(chosen, answer.result);
  show();
});

// Starting

receiveFiles(take, { fields: [byId("file"), byId("folder"), byId("camera")], veil: byId("veil") });
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const url = byId("url")?.value.trim();
  if (!url) return;
  byId("url").value = "";
  add([new Photo(null, url)]);
});
document.addEventListener("paste", (event) => {
  const text = event.clipboardData.getData("text/plain").trim();
  if (byId("url") && /^https?:\/\/\S+$/.test(text) && !event.target.closest("input, textarea")) add([new Photo(null, text)]);
});
for (const button of document.querySelectorAll("[data-sample]")) {
  button.addEventListener("click", async () => {
    const picture = await (await fetch(button.dataset.sample)).blob();
    take([new File([picture], button.dataset.name, { type: picture.type })]);
  });
}
form.addEventListener("change", (event) => {
  if (event.target.name !== "channel") return;
  document.cookie = `shoplens_channel=${encodeURIComponent(event.target.value)}; path=/; max-age=31536000; samesite=strict`;
  if (!chosen) return;
  grid.draw();
  choose(chosen, { opened: false });
});
byId("pause").addEventListener("click", () => (queue.paused || queue.outage ? queue.resume() : queue.pause()));
byId("retry").addEventListener("click", () => {
  const name = channel().value;
  for (const photo of photos) if (photo.answers.get(name)?.problem?.passing) again(photo, name);
});
byId("ask-rest").addEventListener("click", () => photos.forEach((photo) => request(photo, channel().value)));
byId("send-smaller").addEventListener("click", sendSmaller);
byId("clear").addEventListener("click", () => {
  if (queue.size > 0 && !confirm(gettext("%(queue)s photos were not sent yet. Clear the list?", { queue: queue.size.toLocaleString(language) }))) return;
  photos.length = 0;
  for (const cancel of sending.values()) cancel.abort();
  queue.clear();
  location.assign(location.pathname);
});
byId("to-list").addEventListener("click", () => (isPushed ? history.back() : backToList()));
for (const button of document.querySelectorAll("[data-step]")) button.addEventListener("click", () => grid.step(Number(button.dataset.step)));
addEventListener("popstate", backToList);
addEventListener("beforeunload", (event) => {
  if (photos.length > 1 && (queue.size > 0 || queue.running > 0)) event.preventDefault();
});
