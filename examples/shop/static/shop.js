// The page works without this: it only shows the chosen photos, and what became of photos that are being checked.
const form = document.querySelector(".write");
const files = form.querySelector("input[type=file]");
const chosen = form.querySelector(".chosen");

files.addEventListener("change", () => {
  for (const image of chosen.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  chosen.replaceChildren(...[...files.files].slice(0, 20).map((file) => {
    const image = Object.assign(new Image(), { src: URL.createObjectURL(file), alt: file.name });
    const item = document.createElement("li");
    item.append(image);
    return item;
  }));
  files.setCustomValidity(files.files.length > 10 ? "Choose up to ten photos." : "");
});

form.addEventListener("submit", () => {
  const button = form.querySelector(".send");
  button.disabled = true;
  button.textContent = "Checking the photos …";
});

async function refresh() {
  const live = document.querySelector("#live");
  const waits = live.querySelector(".mine li:not(.published)");
  if (!waits || live.querySelector("details[open]")) return;
  const answer = await fetch("/", { headers: { Accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("#live");
  if (fresh && fresh.innerHTML !== live.innerHTML && !live.contains(document.activeElement)) live.replaceWith(fresh);
}
setInterval(() => refresh().catch(() => {}), 3000);
