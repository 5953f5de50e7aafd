/** Authorize on the page /docs: a token or a key goes into the commands and into what is tried. It is kept by this page only. */

import { gettext, language, localised } from "./messages.js";

const MOST_CHARS = 20_000;
const PLACEHOLDER = "$TOKEN";

let token = null;
const commands = [...document.querySelectorAll(".operation > pre:not([data-answer]) code")].map((element) => [element, element.textContent]);
const state = document.querySelector("[data-token-state]");

function use(given, sentence, failed = false) {
  token = given;
  for (const [element, text] of commands) element.textContent = token ? text.replace(PLACEHOLDER, token) : text;
  state.textContent = sentence;
  state.toggleAttribute("data-failed", failed);
  document.querySelector("[data-forget]").hidden = !token;
}

async function signIn(event) {
  event.preventDefault();
  const form = event.target;
  const fields = new URLSearchParams(new FormData(form));
  if (!fields.get("otp")) fields.delete("otp");
  try {
    const response = await fetch("/auth/token", { method: "POST", body: fields, headers: { Accept: "application/json" }, credentials: "omit" });
    const body = await response.json();
    if (!response.ok) return use(null, body.detail, true);
    form.reset();
    use(body.access_token, gettext("You have a token of %(name)s for %(hours)s hours.", { name: fields.get("username"), hours: localised(String(Math.round(body.expires_in / 360) / 10)) }));
  } catch {
    use(null, gettext("Can't reach the server. Check your connection and try again."), true);
  }
}

function useKey(event) {
  event.preventDefault();
  const key = event.target.elements.key.value.trim();
  event.target.reset();
  use(key, gettext("Requests use the key %(key)s….", { key: key.slice(0, 8) }));
}

/** The body that a form of the page describes: files as a form, else JSON as it was typed, else none. */
function bodyOf(form, headers) {
  const files = form.querySelector("[data-where=file]");
  if (files) {
    const body = new FormData();
    for (const file of files.files) body.append(files.name, file);
    return body;
  }
  const text = form.querySelector("[data-where=body]");
  if (!text) return undefined;
  headers["Content-Type"] = "application/json";
  return text.value;
}

async function tryIt(event) {
  event.preventDefault();
  const form = event.target;
  const answer = form.querySelector("[data-answer]");
  const query = new URLSearchParams();
  let path = form.dataset.try;
  const { method } = form.dataset;
  if (method === "DELETE" && !confirm(gettext("Really send DELETE %(value)s?", { value: path }))) return;
  for (const input of form.querySelectorAll("input:not([type=file])")) {
    if (input.dataset.where === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value) query.set(input.name, input.value);
  }
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const body = bodyOf(form, headers);
  answer.hidden = false;
  answer.firstChild.textContent = "…";
  try {
    const response = await fetch(query.size ? `${path}?${query}` : path, { method, body, headers, credentials: token ? "omit" : "same-origin" });
    answer.firstChild.textContent = `${response.status} ${response.statusText}\n${await shown(response)}`;
  } catch {
    answer.firstChild.textContent = gettext("Can't reach the server.");
  }
}

async function shown(response) {
  const type = response.headers.get("content-type") ?? "";
  if (!/json|text/.test(type)) return gettext("%(size)s bytes of %(type)s", { size: (await response.blob()).size.toLocaleString(language), type: type || gettext("nothing") });
  const text = await response.text();
  const pretty = type.includes("json") && text.length < MOST_CHARS && !type.includes("jsonl") ? JSON.stringify(JSON.parse(text), null, 2) : text;
  return pretty.length > MOST_CHARS ? `${pretty.slice(0, MOST_CHARS)}\n…` : pretty;
}

/** Show the operations and schemas in which all words occur. */
function search(field) {
  const entries = [...document.querySelectorAll(".operation")].map((entry) => [entry, entry.querySelector("summary").textContent.toLowerCase() + entry.id.toLowerCase()]);
  const groups = [...document.querySelectorAll("[data-group]")];
  let wereOpen = groups.map((group) => group.open);
  let words = [];
  field.addEventListener("input", () => {
    if (!words.length) wereOpen = groups.map((group) => group.open);
    words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const [entry, text] of entries) entry.hidden = !words.every((word) => text.includes(word));
    groups.forEach((group, index) => {
      group.hidden = !group.querySelector(".operation:not([hidden])");
      group.open = words.length ? !group.hidden : wereOpen[index];
    });
    const found = entries.filter(([entry]) => !entry.hidden).length;
    document.querySelector("[data-found]").textContent = words.length ? gettext("%(found)s found", { found }) : "";
  });
}

/** Names of schemas lead to them. */
function linkSchemas() {
  const names = new Set([...document.querySelectorAll(".operation[id]")].map((entry) => entry.id).filter((id) => /^[A-Z]/.test(id)));
  for (const cell of document.querySelectorAll(".operation dd, .operation td:nth-child(2)")) {
    const text = [...cell.childNodes].find((node) => node.nodeType === Node.TEXT_NODE);
    if (!text) continue;
    const parts = text.textContent.split(/\b/);
    if (!parts.some((part) => names.has(part))) continue;
    const linked = (part) => (names.has(part) ? Object.assign(document.createElement("a"), { href: `#${part}`, textContent: part }) : part);
    text.replaceWith(...parts.map(linked));
  }
}

function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  if (!target?.matches("details")) return;
  target.open = true;
  target.closest("[data-group]").open = true;
  target.scrollIntoView();
}

const finder = document.querySelector("[data-docs-search]");
finder.hidden = false;
search(finder.querySelector("input"));
linkSchemas();
addEventListener("hashchange", openTarget);
openTarget();
for (const form of document.querySelectorAll("[data-token-form], [data-key-form], [data-try]")) form.hidden = false;
document.querySelector("[data-token-form]")?.addEventListener("submit", signIn);
document.querySelector("[data-key-form]")?.addEventListener("submit", useKey);
document.querySelector("[data-forget]")?.addEventListener("click", () => use(null, ""));
for (const form of document.querySelectorAll("[data-try]")) form.addEventListener("submit", tryIt);
