/** Make elements of a page; text is never parsed. */

import { gettext, locale } from "./messages.js";

const SVG = "http://www.w3.org/2000/svg";
const MOST_TRIES = 8;
const RETRY_MS = 500;

/** An element with attributes and children. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== undefined) made.setAttribute(key, value);
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** An image that is asked for again while the server is busy making it. */
export function imageElement(address, attributes) {
  const made = element("img", attributes);
  let tries = 0;
  made.addEventListener("error", () => {
    tries += 1;
    if (tries < MOST_TRIES) setTimeout(() => made.isConnected && (made.src = `${address}#${tries}`), tries * RETRY_MS);
  });
  made.src = address;
  return made;
}

export function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** A point in time, in the browser's time zone. */
export function moment(text) {
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  const words = new Intl.DateTimeFormat(locale, { ...(!today && { dateStyle: "medium" }), timeStyle: "short" }).format(at);
  return element("time", { datetime: text }, today ? gettext("Today, %(words)s", { words }) : words);
}
