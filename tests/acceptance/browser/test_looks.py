"""What pages look like: readable in light and dark, nothing from elsewhere, nothing inline."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.acceptance.browser.conftest import VisitMaker, pick, write_photo
from tests.conftest import RunningServer

PAGES = (
    "/",
    "/console/records",
    "/console/records/{id}",
    "/console/models",
    "/console/models/opennsfw",
    "/console/registry",
    "/console/registry/opennsfw",
    "/docs",
    "/console/no",
)

LEAST_CONTRAST = """() => {
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    probe.clearRect(0, 0, 1, 1);
    probe.fillStyle = colour;
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const colour = rgba(getComputedStyle(e).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255, 255];
  };
  const opacity = (element) => {
    let product = 1;
    for (let e = element; e; e = e.parentElement) product *= Number(getComputedStyle(e).opacity);
    return product;
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility()) continue;
    if (element.closest(".unseen, .skip, option, datalist")) continue;
    const below = ground(element);
    const alpha = opacity(element);
    const above = rgba(getComputedStyle(element).color).map((v, i) => v * alpha + below[i] * (1 - alpha));
    const [high, low] = [luminance(above.slice(0, 3)), luminance(below.slice(0, 3))].sort((a, b) => b - a);
    found.push([(high + 0.05) / (low + 0.05), element.textContent.trim().slice(0, 40)]);
  }
  return found.sort((a, b) => a[0] - b[0])[0];
}"""


@pytest.fixture(scope="module")
def record_id(shop: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A record with feedback, so that every part of its page is there."""
    photo = write_photo(tmp_path_factory.mktemp("looks") / "x.jpg").read_bytes()
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=60) as client:
        found = str(client.post("/predict?channel=strict", content=photo).json()["id"])
        client.post("/feedback", json={"prediction_id": found, "label": "tench", "comment": "x" * 300})
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_answers_and_problems_have_enough_contrast(
    visit: VisitMaker, photo_file: Path, tmp_path: Path, scheme: str
) -> None:
    """Also what a script put on the page."""
    page = visit(expected={415}, color_scheme=scheme, reduced_motion="reduce").page()
    pick(page, photo_file)
    page.get_by_role("button", name="No, incorrect").click()
    page.wait_for_selector("text=Marked as incorrect")
    answer, words = page.evaluate(LEAST_CONTRAST)
    assert answer >= 4.5, words
    note = tmp_path / "note.txt"
    note.write_text("no photo")
    page.set_input_files("#file", note)
    page.get_by_role("alert").wait_for()
    problem, words = page.evaluate(LEAST_CONTRAST)
    assert problem >= 4.5, words


def test_a_dark_system_gets_dark_pages(visit: VisitMaker) -> None:
    """There is nothing to configure."""
    grounds = [
        visit(color_scheme=scheme).page().evaluate("getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert ["rgb(246, 246, 243)", "rgb(19, 21, 20)"] == grounds


@pytest.mark.parametrize("path", PAGES)
def test_pages_carry_no_inline_code(shop: RunningServer, record_id: str, path: str) -> None:
    """The policy would refuse it; it must not even be there."""
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=60) as client:
        answer = client.get(path.format(id=record_id))
    html = answer.text
    assert [] == [found for found in (" style=", " onclick=", " onerror=", "<style", "javascript:") if found in html]
    assert html.count("<script") == html.count('<script type="module" src="/static/')
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_reduced_motion_is_respected(visit: VisitMaker, photo_file: Path) -> None:
    """Bars stand at once."""
    page = visit(reduced_motion="reduce").page()
    pick(page, photo_file)
    assert "none" == page.evaluate("getComputedStyle(document.querySelector('#answers .bar-fill')).animationName")
