/** What every page shares: local times, missing photos, feedback, keys for records, label search. */

import { liveFeedback } from "./feedback.js";
import { guardShortcuts } from "./shortcuts.js";

const DAY_MS = 86_400_000;

function localTimes() {
  const long = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  const short = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
  for (const element of document.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    const today = moment.toDateString() === new Date().toDateString();
    element.textContent = today ? `Today, ${short.format(moment)}` : long.format(moment);
    element.title = moment.toISOString();
  }
}

/** On a phone the tabs scroll sideways: the one of this page is in view. */
function tabInView() {
  for (const tab of document.querySelectorAll(".tabs [aria-current]")) tab.scrollIntoView({ block: "nearest", inline: "center" });
}

/** A stored photo may have been deleted since. */
function missingPhotos() {
  for (const image of document.querySelectorAll("img[data-photo]")) {
    const replace = () => {
      const none = document.createElement("span");
      none.className = `${image.className} thumb-none`;
      none.textContent = "No photo";
      image.replaceWith(none);
    };
    if (image.complete && image.naturalWidth === 0 && image.loading !== "lazy") replace();
    else image.addEventListener("error", replace);
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
    document.querySelector("[data-count]").textContent = count.toLocaleString("en");
    document.querySelector("[data-none]").hidden = count > 0;
  });
}

/** On a phone the filter is closed until it is used. */
function filterBox() {
  const box = document.querySelector("[data-filter-box]");
  if (box && !("active" in box.dataset) && matchMedia("(max-width: 59.99rem)").matches) box.open = false;
}

/** An open menu closes with Escape, and when something else is clicked. */
function menus() {
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
localTimes();
tabInView();
missingPhotos();
localDays();
recordKeys();
labelSearch();
document.querySelectorAll("[data-feedback][data-id]:not([data-id=''])").forEach(liveFeedback);
