/** Choose a threshold with a slider: what it would decide without a person, and how much of that is right. */

const part = document.querySelector("[data-thresholds]");
if (part) choose(part);

function choose(part) {
  const [at, shares, accuracies] = ["thresholds", "shares", "accuracies"].map((name) => JSON.parse(part.dataset[name]));
  const slider = part.querySelector("input");
  const said = part.querySelector("[data-words]");

  function show() {
    const here = Number(slider.value);
    const right = accuracies[here] === null ? "none of the photos" : `${percent(accuracies[here])} of these right`;
    said.textContent = `At ${at[here].toFixed(2)}: ${percent(shares[here])} automatic, ${right}`;
    slider.setAttribute("aria-valuetext", said.textContent);
  }

  slider.max = String(at.length - 1);
  slider.value = String(Math.max(0, at.findIndex((value) => value >= 0.8)));
  slider.addEventListener("input", show);
  part.hidden = false;
  show();
}

function percent(share) {
  return `${Math.round(share * 100)} %`;
}
