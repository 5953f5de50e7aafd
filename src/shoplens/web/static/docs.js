/** Authorize on the page /docs: a token or a key goes into the commands and into what is tried. It is kept by this page only. */

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
    use(body.access_token, `You have a token of ${fields.get("username")} for ${Math.round(body.expires_in / 360) / 10} hours.`);
  } catch {
    use(null, "Can't reach the server. Check your connection and try again.", true);
  }
}

function useKey(event) {
  event.preventDefault();
  const key = event.target.elements.key.value.trim();
  event.target.reset();
  use(key, `Requests use the key ${key.slice(0, 8)}….`);
}

async function tryIt(event) {
  event.preventDefault();
  const form = event.target;
  const answer = form.querySelector("[data-answer]");
  const query = new URLSearchParams();
  let path = form.dataset.try;
  for (const input of form.querySelectorAll("input")) {
    if (input.dataset.where === "path") path = path.replace(`{${input.name}}`, encodeURIComponent(input.value));
    else if (input.value) query.set(input.name, input.value);
  }
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  answer.hidden = false;
  answer.firstChild.textContent = "…";
  try {
    const response = await fetch(query.size ? `${path}?${query}` : path, { headers, credentials: token ? "omit" : "same-origin" });
    answer.firstChild.textContent = `${response.status} ${response.statusText}\n${await shown(response)}`;
  } catch {
    answer.firstChild.textContent = "Can't reach the server.";
  }
}

async function shown(response) {
  const type = response.headers.get("content-type") ?? "";
  if (!/json|text/.test(type)) return `${(await response.blob()).size.toLocaleString("en")} bytes of ${type || "nothing"}`;
  const text = await response.text();
  const pretty = type.includes("json") && text.length < MOST_CHARS && !type.includes("jsonl") ? JSON.stringify(JSON.parse(text), null, 2) : text;
  return pretty.length > MOST_CHARS ? `${pretty.slice(0, MOST_CHARS)}\n…` : pretty;
}

for (const form of document.querySelectorAll("[data-token-form], [data-key-form], [data-try]")) form.hidden = false;
document.querySelector("[data-token-form]")?.addEventListener("submit", signIn);
document.querySelector("[data-key-form]")?.addEventListener("submit", useKey);
document.querySelector("[data-forget]")?.addEventListener("click", () => use(null, ""));
for (const form of document.querySelectorAll("[data-try]")) form.addEventListener("submit", tryIt);
