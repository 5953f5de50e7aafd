/** Update the numbers of an active run every two seconds while the page is visible. */

import { ask } from "./net.js";

const EVERY_MS = 2000;
const LONGEST_MS = 30_000;

/** Poll for one part of the page until nothing is active. */
function watch(part) {
  let pause = EVERY_MS;
  let timer = 0;
  const plan = () => {
    clearTimeout(timer);
    if (part.dataset.active === "yes" && !document.hidden) timer = setTimeout(look, pause);
  };
  const look = async () => {
    try {
      show(part, await ask(part.dataset.live));
      pause = EVERY_MS;
    } catch {
      pause = Math.min(2 * pause, LONGEST_MS); // the server may be restarting
    }
    plan();
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : look()));
  plan();
}

function show(part, now) {
  const wasActive = part.dataset.active === "yes";
  for (const [name, words] of Object.entries(now.words)) {
    for (const place of document.querySelectorAll(`[data-word="${name}"]`)) {
      if (place.textContent !== words) place.textContent = words;
    }
  }
  part.querySelector("[data-bar]")?.setAttribute("width", now.done);
  showNotice(part.querySelector("[data-condition]"), now);
  part.dataset.active = now.active ? "yes" : "no";
  if (wasActive && !now.active) ended(part);
}

function showNotice(notice, now) {
  if (!notice) return;
  notice.hidden = !now.condition;
  notice.dataset.kind = now.condition ?? "warn";
  const resume = notice.querySelector("[data-resume]"); // only for those who may start runs
  if (resume) resume.hidden = !now.resumable;
}

/** Reload the page, but only offer it to somebody who is reviewing photos. */
function ended(part) {
  const fresh = part.querySelector("[data-fresh]");
  if (fresh && document.querySelector("[data-gallery]")) fresh.hidden = false;
  else location.reload();
}

/** Ignore a second click while the form is being sent. */
function once(form) {
  form.addEventListener("submit", (event) => {
    if (form.getAttribute("aria-busy") === "true") return event.preventDefault();
    form.setAttribute("aria-busy", "true");
    form.querySelector("button span").textContent = form.dataset.once;
  });
  addEventListener("pageshow", (event) => event.persisted && form.removeAttribute("aria-busy"));
}

document.querySelectorAll("[data-live]").forEach(watch);
document.querySelectorAll("[data-once]").forEach(once);
