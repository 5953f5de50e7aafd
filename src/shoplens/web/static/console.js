/** What every page shares: local times, missing photos, feedback, keys for records, label search. */

import { gettext, language, locale } from "./messages.js";
import { liveFeedback } from "./feedback.js";
import { guardShortcuts } from "./shortcuts.js";

const DAY_MS = 86_400_000;
const MINUTE_MS = 60_000;
/** What a time may follow as the first word of its line; after other words it stands within a sentence. */
const BEGINS = /(^|[.:·(“])$/u;

/** "Today, 15:52", or "today, 15:52" within a sentence. */
function localTimes() {
  const long = new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "short" });
  const short = new Intl.DateTimeFormat(locale, { timeStyle: "short" });
  for (const element of document.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    const today = moment.toDateString() === new Date().toDateString();
    let words = today ? gettext("Today, %(moment)s", { moment: short.format(moment) }) : long.format(moment);
    const within = !BEGINS.test(element.previousSibling?.textContent.trim() ?? "");
    if (today && within) words = words[0].toLocaleLowerCase(locale) + words.slice(1);
    if (element.textContent !== words) element.textContent = words;
    element.title = moment.toISOString();
  }
}

/** Also on a page that stays open overnight, or that the back button brings back: today is another day then. */
function keepTimes() {
  localTimes();
  addEventListener("pageshow", localTimes);
  document.addEventListener("visibilitychange", localTimes);
  setInterval(localTimes, MINUTE_MS);
}

/** On a phone pages and tabs scroll sideways: the one that is shown is in view. */
function tabInView() {
  for (const tab of document.querySelectorAll(".pages [aria-current], .tabs [aria-current]")) tab.scrollIntoView({ block: "nearest", inline: "center" });
}

/** A stored photo may have been deleted since. */
function missingPhotos() {
  for (const image of document.querySelectorAll("img[data-photo]")) {
    const replace = () => {
      const none = document.createElement("span");
      none.className = `${image.className} thumb-none`;
      none.textContent = gettext("No photo");
      image.replaceWith(none);
    };
    image.addEventListener("error", replace);
    // Some failed before this script came; one that waits for its place to be seen looks the same, and goes on waiting.
    if (image.complete && image.naturalWidth === 0) image.setAttribute("src", image.getAttribute("src"));
  }
}

/** Users choose days of their time zone; addresses carry instants. The end is exclusive: the next day's start. */
function localDays() {
  const form = document.querySelector("[data-filters]");
  if (!form) return;
  const ends = { since: 0, until: 1 };
  for (const [name, days] of Object.entries(ends)) {
    const field = form.elements[name];
    if (field.dataset.instant) field.value = dayOf(new Date(new Date(field.dataset.instant) - days * DAY_MS));
  }
  form.addEventListener("formdata", ({ formData }) => {
    for (const [name, days] of Object.entries(ends)) {
      const day = formData.get(name);
      if (day) formData.set(name, startOf(day, days).toISOString());
    }
    for (const [name, value] of [...formData]) if (value === "") formData.delete(name);
  });
}

function dayOf(moment) {
  const two = (number) => String(number).padStart(2, "0");
  return `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`;
}

function startOf(day, later) {
  const [year, month, date] = day.split("-").map(Number);
  return new Date(year, month - 1, date + later);
}

/** j and k move through the records, Enter opens the focused one. */
function recordKeys() {
  const links = [...document.querySelectorAll("[data-records] .cell-label a")];
  if (links.length === 0) return;
  document.addEventListener("keydown", (event) => {
    if (!["j", "k"].includes(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) return;
    const here = links.indexOf(document.activeElement);
    const next = event.key === "j" ? here + 1 : Math.max(here, 1) - 1;
    links[Math.min(next, links.length - 1)].focus();
  });
}

function labelSearch() {
  const field = document.querySelector("[data-search]");
  if (!field || field.value) return;
  const entries = [...document.getElementById(field.dataset.search).children].map((element) => [element, element.textContent.toLowerCase()]);
  field.form.addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("input", () => {
    const wanted = field.value.trim().toLowerCase();
    let count = 0;
    for (const [element, text] of entries) {
      element.hidden = !text.includes(wanted);
      count += element.hidden ? 0 : 1;
    }
    document.querySelector("[data-count]").textContent = count.toLocaleString(language);
    document.querySelector("[data-none]").hidden = count > 0;
  });
}

/** On a phone the filter is closed until it is used. */
function filterBox() {
  const box = document.querySelector("[data-filter-box]");
  if (!box) return;
  const narrow = matchMedia("(max-width: 59.99rem)");
  const fit = () => (box.open = !narrow.matches || "active" in box.dataset);
  narrow.addEventListener("change", fit); // a tablet that is turned: on a wide page nothing opens it
  fit();
}

/** A menu opens to the left of its button's right edge, or the other way round where the window ends. */
function menus() {
  for (const menu of document.querySelectorAll("details.menu")) {
    menu.addEventListener("toggle", () => {
      menu.removeAttribute("data-rightwards");
      if (menu.open && menu.lastElementChild.getBoundingClientRect().left < 0) menu.setAttribute("data-rightwards", "");
    });
  }
  closeMenus();
}

/** An open menu of the navigation closes with Escape, and when something else is clicked. */
function closeMenus() {
  for (const menu of document.querySelectorAll("[data-menu]")) {
    document.addEventListener("click", (event) => { if (!menu.contains(event.target)) menu.open = false; });
    menu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !menu.open) return;
      menu.open = false;
      menu.querySelector("summary").focus();
    });
  }
}

guardShortcuts();
menus();
filterBox();
keepTimes();
tabInView();
missingPhotos();
localDays();
recordKeys();
labelSearch();
document.querySelectorAll("[data-feedback][data-id]:not([data-id=''])").forEach(liveFeedback);
