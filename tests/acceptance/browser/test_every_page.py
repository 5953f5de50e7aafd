"""What holds for every page: no sideways scroll on the narrowest phone, and shortcuts that can be switched off."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.acceptance.browser.conftest import VisitMaker, write_photo
from tests.conftest import RunningServer

PAGES = (
    "/", "/console/records", "/console/records?text=IMG&decision=review", "/console/batch/returns",
    "/console/moderation", "/console/moderation/policy", "/console/models", "/console/models/clothing",
    "/console/models/efficientnet-lite0-int8", "/console/models/retraining", "/console/models/labels",
    "/console/registry", "/console/people", "/console/keys", "/console/webhooks", "/console/audit",
    "/console/catalogue", "/console/catalogue/numbers", "/console/monitoring", "/console/no-such-page", "/docs",
)  # fmt: skip
NARROWEST = {"viewport": {"width": 320, "height": 640}}


@pytest.fixture(scope="module")
def record_id(shop: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A record with a file name that has no place to break."""
    photo = write_photo(tmp_path_factory.mktemp("photos") / "x.jpg").read_bytes()
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=60) as client:
        sent = {"file": (f"IMG_{'0' * 120}.jpg", photo)}
        client.post("/predict", files=sent)
        return str(client.post("/predict", files=sent).json()["id"])


def test_no_page_scrolls_sideways_at_320_pixels(visit: VisitMaker, shop: RunningServer, record_id: str) -> None:
    """Full and empty pages, errors and the API's description."""
    page = visit(expected={404, 503}, **NARROWEST).page("/")
    too_wide = {}
    for path in (*PAGES, f"/console/records/{record_id}"):
        page.goto(shop.url + path)
        width = page.evaluate("document.documentElement.scrollWidth")
        if width > NARROWEST["viewport"]["width"]:
            too_wide[path] = width
    assert {} == too_wide


def test_single_keys_are_switched_off_and_moved_to_alt_for_all_pages(visit: VisitMaker, record_id: str) -> None:
    """The choice is kept; arrows and Tab are no characters and stay."""
    page = visit().page("/console/records")
    first = page.locator("[data-records] .cell-label a").first
    choice = page.get_by_label("Keyboard shortcuts")
    page.keyboard.press("j")
    expect(first).to_be_focused()

    choice.select_option("off")
    page.reload()
    expect(choice).to_have_value("off")
    page.keyboard.press("j")
    expect(first).not_to_be_focused()

    choice.select_option("alt")
    page.reload()
    page.keyboard.press("j")
    expect(first).not_to_be_focused()
    page.keyboard.press("Alt+j")
    expect(first).to_be_focused()


def test_records_are_selected_with_a_range_and_deleted_after_a_question(
    visit: VisitMaker, shop: RunningServer, tmp_path: Path
) -> None:
    """By keyboard and mouse; the wrong number on the question is still a way back."""
    photo = write_photo(tmp_path / "x.jpg").read_bytes()
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=60) as client:
        for number in range(4):
            client.post("/predict", files={"file": (f"wrong-{number}.jpg", photo)})
    page = visit().page("/console/records?text=wrong-")
    boxes = page.locator("[data-selection] input[name=id]")
    expect(page.get_by_role("button", name="Delete selected")).to_be_disabled()
    boxes.nth(0).check()
    boxes.nth(2).click(modifiers=["Shift"])
    page.get_by_role("button", name="Delete 3 selected").click()
    expect(page.get_by_role("heading", name="Delete 3 records?")).to_be_visible()
    page.get_by_role("link", name="Cancel").click()
    expect(boxes).to_have_count(4)
    boxes.nth(0).check()
    boxes.nth(2).click(modifiers=["Shift"])
    page.get_by_role("button", name="Delete 3 selected").click()
    page.get_by_role("button", name="Delete 3 records").click()
    expect(page.get_by_text("3 records deleted.")).to_be_visible()
    expect(boxes).to_have_count(1)


def test_a_threshold_is_chosen_with_the_arrow_keys(visit: VisitMaker) -> None:
    """The slider says what it would decide."""
    page = visit().page("/console/models/clothing")
    words = page.locator("[data-thresholds] [data-words]")
    expect(words).to_contain_text("At 0.80:")
    page.get_by_role("slider", name="Threshold").press("ArrowRight")
    expect(words).to_contain_text("At 0.85:")
    expect(words).to_contain_text("of these right")
