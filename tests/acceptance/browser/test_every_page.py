"""What holds for every page: no accessibility rule is broken, no sideways scroll, shortcuts that can be changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import axe_playwright_python
import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, ViewportSize, expect

from tests.acceptance.api.test_access import ROUTES
from tests.acceptance.browser.conftest import VisitMaker, write_photo
from tests.acceptance.browser.full_shop import LONG_NAME, FullShop, full_shop
from tests.conftest import RunningServer

PAGES: Final = (
    "/", "/console/records", "/console/records?text=IMG&decision=review", "/console/batch/returns",
    "/console/moderation", "/console/moderation/policy", "/console/moderation/search", "/console/models",
    "/console/models/clothing", "/console/models/retraining", "/console/models/labels", "/console/registry",
    "/console/people", "/console/keys", "/console/webhooks", "/console/audit", "/console/monitoring",
    "/console/monitoring/drift", "/console/monitoring/accuracy", "/console/monitoring/alerts", "/console/settings",
    "/console/monitoring/alerts/ShoplensDrift", "/console/settings/thresholds?channel=returns", "/console/no-such-page",
    "/status", "/sign-in",
    "/console/shortcuts", "/docs",
)  # fmt: skip
CATALOGUE: Final = tuple(
    f"/console/catalogue{page}"
    for page in ("", "/numbers", "/tree", "/review", "/products", "/accept", "/imports", "/runs")
)
ONLY_EMPTY: Final = (
    "/", "/console/registry/opennsfw", "/console/batch/returns", "/console/records?text=nothing-is-called-so",
    "/console/webhooks",
)  # fmt: skip
TABLET: Final[ViewportSize] = {"width": 820, "height": 1180}
NARROWEST: Final[ViewportSize] = {"width": 320, "height": 640}
PHONE: Final[ViewportSize] = {"width": 390, "height": 844}
DESKTOP: Final[ViewportSize] = {"width": 1280, "height": 820}
AXE: Final = Path(axe_playwright_python.__file__).with_name("axe.min.js")
RULES: Final = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
OF_WIDTH: Final = (
    "color-contrast",
    "target-size",
    "scrollable-region-focusable",
    "landmark-one-main",
    "aria-hidden-focus",
)
RUN_AXE: Final = """
async ([type, values]) => {
  const found = await axe.run(document, { runOnly: { type, values }, resultTypes: ["violations"] });
  return found.violations.flatMap(({ id, nodes }) => nodes.map(
    ({ target, html }) => `${id}: ${target} ${html.slice(0, 99)}`));
}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A page as it was walked past: what axe-core found, how wide it is in windows that are narrower, and how many
    headings of the first level, headers, main parts and footers it has.
    """

    findings: Sequence[str]
    too_wide_px: Sequence[int]
    outline: Sequence[int]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[FullShop]:
    """A shop after some weeks."""
    with full_shop(tmp_path_factory.mktemp("full"), models_dir) as started:
        yield started


@pytest.fixture(scope="module")
def walk(chromium: Browser, full: FullShop, shop: RunningServer) -> dict[str, Seen]:
    """Every page of a full shop, and those that look different in an empty one; each is loaded once."""
    # The policy of the pages refuses scripts of others, so also the one that looks for findings.
    context = chromium.new_context(bypass_csp=True, viewport=DESKTOP, reduced_motion="reduce")
    page = context.new_page()
    addresses = [full.server.url + path for path in (*PAGES, *CATALOGUE, *full.paths)]
    addresses += [shop.url + path for path in ONLY_EMPTY]
    seen = {address: look_at(page, address) for address in addresses}
    context.close()
    return seen


def look_at(page: Page, address: str) -> Seen:
    """All rules on a wide and light page; those that another scheme or width can break in the others."""
    page.set_viewport_size(DESKTOP)
    page.emulate_media(color_scheme="light")
    page.goto(address)
    page.evaluate(AXE.read_text())
    findings = [*find(page, "tag", *RULES)]
    page.emulate_media(color_scheme="dark")
    findings += (f"dark: {each}" for each in find(page, "rule", "color-contrast"))
    page.set_viewport_size(PHONE)
    findings += (f"dark phone: {each}" for each in find(page, "rule", "color-contrast"))
    page.emulate_media(color_scheme="light")
    findings += (f"phone: {each}" for each in find(page, "rule", *OF_WIDTH))
    too_wide = []
    for size in (TABLET, PHONE, NARROWEST):
        page.set_viewport_size(size)
        width: int = page.evaluate("document.documentElement.scrollWidth")
        too_wide += [width] if width > size["width"] else []
    outline = [page.locator(tag).count() for tag in ("h1", "body > header", "main", "footer")]
    return Seen(findings=findings, too_wide_px=too_wide, outline=outline)


def find(page: Page, kind: str, *rules: str) -> list[str]:
    """What breaks these rules, or those of these tags."""
    found: list[Any] = page.evaluate(RUN_AXE, [kind, rules])
    return [str(each) for each in found]


@pytest.fixture(scope="module")
def record_id(shop: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A record with a file name that has no place to break."""
    photo = write_photo(tmp_path_factory.mktemp("photos") / "x.jpg").read_bytes()
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=60) as client:
        client.post("/predict", files={"file": (LONG_NAME, photo)})
        return str(client.post("/predict", files={"file": (LONG_NAME, photo)}).json()["id"])


def test_every_page_without_an_id_is_walked_past() -> None:
    """A new page is added to the walk."""
    pages = {route.removeprefix("GET ") for route in ROUTES if route.startswith("GET /console/") and "{" not in route}
    assert set() == pages - {path.partition("?")[0] for path in (*PAGES, *CATALOGUE)}


def test_no_page_breaks_a_rule_of_accessibility(walk: dict[str, Seen]) -> None:
    """WCAG 2.2 AA and best practices as axe-core checks them: full and empty, light and dark, desktop and phone."""
    assert {} == {address: seen.findings for address, seen in walk.items() if seen.findings}


def test_no_page_scrolls_sideways(walk: dict[str, Seen]) -> None:
    """On a tablet, a phone, and at 320 pixels: full and empty pages, errors and the API's description."""
    assert {} == {address: seen.too_wide_px for address, seen in walk.items() if seen.too_wide_px}


def test_every_page_has_one_heading_and_its_landmarks(walk: dict[str, Seen]) -> None:
    """What a screen reader needs to find its way. The report is a page of its own, without our header."""
    pages = {address: seen for address, seen in walk.items() if not address.endswith("/report")}
    assert {} == {address: seen.outline for address, seen in pages.items() if seen.outline != [1, 1, 1, 1]}


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


def test_what_is_selected_can_be_read_in_forced_colours(visit: VisitMaker, full: FullShop) -> None:
    """The sheets of some pages come after the one that knows of forced colours."""
    page = visit(at=full.server, forced_colors="active").page("/console/monitoring")
    unreadable = """() => {
      const probe = document.body.appendChild(document.createElement("i"));
      probe.style.cssText = "forced-color-adjust: none; color: HighlightText; background: Highlight";
      const look = (part) => [getComputedStyle(part).color, getComputedStyle(part).backgroundColor].join();
      return [...document.querySelectorAll("nav [aria-current], .tongues [aria-current]")]
        .filter((part) => look(part) !== look(probe)).map((part) => part.outerHTML);
    }"""
    for path in ("/console/monitoring", full.run, "/console/catalogue/runs", "/console/models"):
        page.goto(full.server.url + path)
        assert (path, []) == (path, page.evaluate(unreadable))


def test_times_say_today_only_while_it_is_today(visit: VisitMaker, shop: RunningServer, record_id: str) -> None:
    """Also on a page that stays open overnight. Within a sentence the word begins small."""
    page = visit().page("/status")
    expect(page.locator("time").first).to_contain_text("today, ")
    page.clock.install()
    page.goto(f"{shop.url}/console/records/{record_id}")
    moment = page.locator("dd time").first
    expect(moment).to_contain_text("Today, ")
    page.clock.fast_forward("24:00:00")
    expect(moment).not_to_contain_text("Today")


def test_a_photo_that_failed_before_the_script_came_is_replaced(visit: VisitMaker, full: FullShop) -> None:
    """The photos of the simulated runs are not stored, and a slow line brings the script after their errors."""
    with httpx.Client(base_url=full.server.url, timeout=60, trust_env=False) as client:
        run = client.get("/batch/runs").json()["runs"][-1]["id"]
    page = visit(at=full.server, expected={404}).page("/console/shortcuts")
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/console.js*", hold)
    page.goto(f"{full.server.url}/console/batch/returns/{run}?state=done", wait_until="commit")
    failed = "[...document.querySelectorAll('img[data-photo]')].some((photo) => photo.complete && !photo.naturalWidth)"
    while not page.evaluate(failed):
        page.wait_for_timeout(20)
    for each in held:
        each.continue_()
    expect(page.locator(".thumb-none").first).to_have_text("No photo")


def test_a_shortcut_gets_another_key_in_this_browser(visit: VisitMaker, full: FullShop) -> None:
    """A key that is taken is refused with a sentence; pages show and obey the new one; it is set back."""
    page = visit(at=full.server).page("/console/shortcuts")
    runs = page.locator("[data-group=runs]")
    confirm = runs.get_by_role("textbox", name="Confirm the prediction")
    confirm.press_sequentially("n")
    expect(runs.get_by_role("alert")).to_contain_text("The key n is taken: None of these categories.")
    expect(confirm).to_have_value("y")
    confirm.press_sequentially("g")
    expect(runs.locator(".key-problem")).to_be_empty()
    page.reload()
    expect(confirm).to_have_value("g")

    page.goto(full.server.url + full.run)
    page.keyboard.press("j")
    expect(page.locator("[data-confirm] kbd")).to_have_text("g")
    expect(page.locator("[data-hint]")).to_contain_text("G confirm")
    chosen = page.locator(".tile[aria-current]")
    item = chosen.get_attribute("data-item")
    tile = page.locator(f".tile[data-item='{item}']")
    page.keyboard.press("y")
    expect(tile).to_have_attribute("data-state", "needs_review")
    page.keyboard.press("g")
    expect(tile).to_have_attribute("data-answer", "confirmed")

    page.keyboard.press("?")
    expect(page.get_by_role("heading", name="Keyboard shortcuts")).to_be_visible()
    page.get_by_role("button", name="Set back to y").click()
    expect(confirm).to_have_value("y")
    page.reload()
    expect(confirm).to_have_value("y")


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
    expect(page.get_by_role("button", name="Delete selected")).to_be_disabled()  # the script is there
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
