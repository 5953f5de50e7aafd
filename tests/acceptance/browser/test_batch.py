"""The pages of a batch: import photos, follow a run, review items with two keys or two clicks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.acceptance.batch_server import clear_photo, dim_photo, items_of, run_through, send, torn_photo
from tests.acceptance.browser.conftest import DESKTOP, PHONE, VisitMaker
from tests.acceptance.browser.test_looks import LEAST_CONTRAST
from tests.conftest import RunningServer

PHOTOS = {
    **{f"100_{number}.jpg": clear_photo(number) for number in (1, 2)},
    **{f"200_{number}.jpg": dim_photo(number) for number in range(10, 20)},
    "300_1.jpg": torn_photo(31),
    "300_2.jpg": b"<html>no photo</html>",
    "100_3.jpg": clear_photo(1),
}
SLOW_S = 60_000


@pytest.fixture(scope="module")
def run_id(http: httpx.Client) -> str:
    """A run with photos of every kind."""
    send(http, PHOTOS)
    return str(run_through(http)["id"])


@pytest.fixture
def gallery(visit: VisitMaker, fruit_server: RunningServer, http: httpx.Client, run_id: str) -> Page:
    """The photos of that run that need review."""
    page = visit(at=fruit_server, expected={404}).page(f"/console/batch/returns/{run_id}?state=needs_review")
    expect(page.locator("[data-hint]")).to_be_visible()
    return page


def tile(page: Page, index: int) -> Locator:
    """A photo of the gallery."""
    return page.locator(".tile").nth(index)


def current(page: Page) -> Locator:
    """The selected photo."""
    return page.locator(".tile[aria-current]")


def key_of(page: Page, label: str) -> str:
    """The key that the page shows for a category."""
    return page.locator(f"[data-choice={label}] kbd").inner_text()


def item_of(http: httpx.Client, shown: Locator) -> dict[str, Any]:
    """The item of a photo in the gallery, from the API."""
    item_id = shown.get_attribute("data-item")
    found: dict[str, Any] = http.get(f"/batch/items/{item_id}").json()
    return found


def test_a_new_installation_shows_where_photos_go(visit: VisitMaker, shop: RunningServer) -> None:
    """The folder, the address for programs, and how to create examples."""
    page = visit().page("/console/batch/returns")
    expect(page.get_by_role("heading", name="No photos yet")).to_be_visible()
    expect(page.locator(".empty")).to_contain_text(str(shop.data_dir / "drop" / "returns"))
    expect(page.locator(".empty")).to_contain_text("POST /batch/ingest")
    page.get_by_role("button", name="Import photos").first.click()
    expect(page.get_by_text("No new photos.")).to_be_visible()


def test_photos_are_imported_and_a_run_is_watched_to_its_end(
    visit: VisitMaker, fruit_server: RunningServer, run_id: str
) -> None:
    """Two clicks; the numbers change by themselves, and the results come without a reload by hand."""
    drop = fruit_server.data_dir / "drop" / "returns"
    for number in range(400, 412):
        (drop / f"{number}_1.jpg").write_bytes(dim_photo(number))
    page = visit(at=fruit_server).page("/console/batch/returns")
    page.get_by_role("button", name="Import photos").click()
    expect(page.get_by_text("12 photos imported and ready to classify.")).to_be_visible()
    expect(page.locator("[data-word=waiting]")).to_have_text("12")
    page.get_by_role("button", name="Classify 12 photos").click()
    page.wait_for_url("**/console/batch/returns/0*")
    expect(page.locator("[data-word=percent]")).to_be_visible()
    expect(page.locator(".run-title .badge")).to_have_text("Finished", timeout=SLOW_S)
    expect(page.locator(".tile")).to_have_count(12)
    expect(page.locator(".tallies [data-word=needs_review]")).to_have_text("12")


def test_an_idle_page_sends_no_requests(visit: VisitMaker, fruit_server: RunningServer, run_id: str) -> None:
    """Also when it stays open."""
    page = visit(at=fruit_server).page("/console/batch/returns")
    page.clock.install()
    page.reload()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(60_000)
    assert [] == [address for address in asked if "/static/" not in address]


def test_two_keys_correct_a_photo_and_the_focus_moves_on(gallery: Page, http: httpx.Client) -> None:
    """The first selects the photo, the second changes its category; then the next photo to review is selected."""
    gallery.keyboard.press("j")
    expect(tile(gallery, 0)).to_have_attribute("aria-current", "true")
    gallery.keyboard.press(key_of(gallery, "plum"))
    expect(tile(gallery, 0)).to_contain_text("Corrected")
    expect(tile(gallery, 1)).to_be_focused()
    expect(tile(gallery, 1)).to_have_attribute("aria-current", "true")
    item = item_of(http, tile(gallery, 0))
    assert ("done", "plum") == (item["state"], item["label"])


@pytest.mark.parametrize("key", ["y", "Enter"])
def test_one_key_confirms(gallery: Page, http: httpx.Client, key: str) -> None:
    """The model was right."""
    gallery.keyboard.press("ArrowRight")
    gallery.keyboard.press(key)
    expect(tile(gallery, 0)).to_contain_text("Confirmed")
    item = item_of(http, tile(gallery, 0))
    assert ("done", item["predicted"]) == (item["state"], item["label"])


@pytest.mark.parametrize("answer", ["y", "plum", "n", "x"])
def test_undo_leaves_no_trace_of_an_answer(gallery: Page, http: httpx.Client, answer: str) -> None:
    """The photo needs review again and is selected, the counters are as before, and nobody gave feedback."""
    shown = tile(gallery, 0)
    before = item_of(http, shown)
    counter = gallery.locator(".tallies [data-word=needs_review]")
    waiting = int(counter.inner_text())
    gallery.keyboard.press("j")
    gallery.keyboard.press(answer if len(answer) == 1 else key_of(gallery, answer))
    expect(shown).to_have_attribute("data-changed", "")
    expect(counter).to_have_text(str(waiting - 1))
    gallery.keyboard.press("u")
    expect(shown).not_to_have_attribute("data-changed", "")
    expect(shown).to_have_attribute("data-state", "needs_review")
    expect(shown.locator("[data-said]")).to_be_hidden()
    expect(shown).to_be_focused()
    expect(counter).to_have_text(str(waiting))
    expect(gallery.get_by_role("button", name="Undo")).to_be_hidden()
    after = item_of(http, shown)
    same = ("state", "label", "answer", "corrected_at", "proposed")
    assert [before[name] for name in same] == [after[name] for name in same]
    assert before["prediction_id"] not in http.get("/feedback.csv").text


def test_two_people_get_different_photos_and_no_answer_is_lost(
    visit: VisitMaker, fruit_server: RunningServer, gallery: Page, http: httpx.Client, run_id: str
) -> None:
    """The second one begins with the next photo; what the first answered shows up; a late answer is refused."""
    address = f"/console/batch/returns/{run_id}?state=needs_review"
    with gallery.expect_response("**/batch/looks"):
        gallery.keyboard.press("j")
    expect(current(gallery)).to_have_attribute("data-item", tile(gallery, 0).get_attribute("data-item") or "")
    other = visit(at=fruit_server, expected={404, 409}, person=1).page(address)
    expect(other.locator("[data-hint]")).to_be_visible()
    other.keyboard.press("j")
    expect(tile(other, 1)).to_have_attribute("aria-current", "true")
    expect(tile(other, 0)).to_have_attribute("data-held", "")
    other.keyboard.press("k")
    expect(other.locator("[data-dock-what]")).to_contain_text("Somebody else is looking at this photo")
    gallery.keyboard.press("y")
    expect(tile(gallery, 0)).to_contain_text("Confirmed")
    other.keyboard.press("x")
    expect(other.get_by_role("alert")).to_contain_text("Somebody else answered it meanwhile: confirmed")
    expect(tile(other, 0)).to_contain_text("Confirmed")
    assert "confirmed" == item_of(http, tile(gallery, 0))["answer"]
    gallery.keyboard.press("u")
    expect(tile(gallery, 0)).to_have_attribute("data-state", "needs_review")


def test_a_category_that_is_missing_is_proposed(gallery: Page, http: httpx.Client) -> None:
    """What the model does not know is collected, and is no label."""
    gallery.keyboard.press("j")
    gallery.get_by_placeholder("Another category").fill("quince")
    gallery.keyboard.press("Enter")
    expect(tile(gallery, 0)).to_contain_text("None of these: quince")
    item = item_of(http, tile(gallery, 0))
    assert ("done", None, "quince") == (item["state"], item["label"], item["proposed"])
    gallery.locator("[data-dock-undo]").click()
    expect(tile(gallery, 0)).to_have_attribute("data-state", "needs_review")


def test_a_skipped_photo_comes_again_at_the_end(
    visit: VisitMaker, fruit_server: RunningServer, gallery: Page, http: httpx.Client, run_id: str
) -> None:
    """For the person who skipped it; nothing is said of it, and others see it as before."""
    first = tile(gallery, 0).get_attribute("data-item") or ""
    count = gallery.locator(".tile").count()
    gallery.keyboard.press("j")
    with gallery.expect_response("**/skip"):
        gallery.keyboard.press("s")
    expect(gallery.locator(".tile").last).to_have_attribute("data-item", first)
    expect(tile(gallery, 0)).to_have_attribute("aria-current", "true")
    gallery.reload()
    expect(gallery.locator(".tile")).to_have_count(count - 1)
    expect(gallery.locator(".tallies [data-word=needs_review]")).to_have_text(str(count))
    gallery.get_by_role("link", name="Review it").click()
    expect(gallery.locator(".tile")).to_have_count(1)
    assert ("needs_review", None) == tuple(item_of(http, tile(gallery, 0))[name] for name in ("state", "answer"))
    other = visit(at=fruit_server, expected={404}, person=2)
    page = other.page(f"/console/batch/returns/{run_id}?state=needs_review")
    expect(tile(page, 0)).to_have_attribute("data-item", first)
    http.post(f"/batch/items/{first}/label", json={"confirm": True})
    http.post(f"/batch/items/{first}/reopen")


def test_keys_walk_through_the_gallery(gallery: Page) -> None:
    """By photo and by row, and never beyond its ends; o opens, Escape closes."""
    gallery.keyboard.press("j")
    gallery.keyboard.press("k")
    expect(current(gallery)).to_have_attribute("data-item", tile(gallery, 0).get_attribute("data-item") or "")
    columns = gallery.evaluate(
        "getComputedStyle(document.querySelector('.gallery')).gridTemplateColumns.split(' ').length"
    )
    last = gallery.locator(".tile").count() - 1
    gallery.keyboard.press("ArrowDown")
    expect(tile(gallery, min(columns, last))).to_be_focused()
    for _ in range(last + 1):
        gallery.keyboard.press("ArrowRight")
    expect(tile(gallery, last)).to_be_focused()
    gallery.keyboard.press("Escape")
    expect(gallery.locator("[data-dock]")).to_be_hidden()
    gallery.keyboard.press("j")
    gallery.keyboard.press("o")
    gallery.wait_for_url("**/console/batch/returns/items/*")


def test_a_mouse_does_it_too(gallery: Page, http: httpx.Client) -> None:
    """A click selects, a click on a category changes it."""
    first = tile(gallery, 0).get_attribute("data-item") or ""
    tile(gallery, 0).locator("img").click()
    expect(current(gallery)).to_have_attribute("data-item", first)
    gallery.locator("[data-choice=apple]").click()
    expect(tile(gallery, 0)).to_contain_text("Corrected")
    assert "apple" == item_of(http, tile(gallery, 0))["label"]


def test_a_finger_does_it_too(visit: VisitMaker, fruit_server: RunningServer, http: httpx.Client, run_id: str) -> None:
    """On a narrow screen the photo stays in sight above the categories."""
    page = visit(at=fruit_server, expected={404}, reduced_motion="reduce", **PHONE).page(
        f"/console/batch/returns/{run_id}?state=all"
    )
    chosen = page.locator(".tile[data-state=done]").first
    chosen.tap()
    expect(page.locator("[data-dock]")).to_be_visible()
    photo, dock = chosen.bounding_box(), page.locator("[data-dock]").bounding_box()
    assert photo
    assert dock
    assert photo["y"] + photo["height"] <= dock["y"] + 1
    page.get_by_role("button", name="apple", exact=True).tap()
    expect(chosen).to_have_attribute("data-label", "apple")
    expect(chosen).to_contain_text("Corrected")
    assert "apple" == item_of(http, chosen)["label"]


def test_a_correction_that_fails_can_be_repeated(gallery: Page) -> None:
    """The photo is selected again, and still needs review."""
    gallery.route("**/batch/items/*/label", lambda route: route.abort())
    gallery.keyboard.press("j")
    gallery.keyboard.press("y")
    expect(gallery.get_by_role("alert")).to_contain_text("Can't reach the server")
    expect(tile(gallery, 0)).to_be_focused()
    expect(tile(gallery, 0)).to_have_attribute("data-state", "needs_review")


def test_everything_works_without_a_script(
    visit: VisitMaker, fruit_server: RunningServer, http: httpx.Client, run_id: str
) -> None:
    """From the gallery to a photo's page, plain forms there, and on to the next photo to review."""
    page = visit(at=fruit_server, expected={404}, java_script_enabled=False).page(
        f"/console/batch/returns/{run_id}?state=needs_review"
    )
    expect(page.locator("[data-hint]")).to_be_hidden()
    expect(page.locator("[data-dock]")).to_be_hidden()
    first = item_of(http, tile(page, 0))
    tile(page, 0).locator("a").click()
    page.get_by_role("button", name="plum" if first["predicted"] != "plum" else "apple", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Saved.")
    assert "done" == http.get(f"/batch/items/{first['id']}").json()["state"]
    page.get_by_role("link", name="Next photo to review").click()
    page.get_by_role("button", name="Confirm").click()
    expect(page.locator(".history")).to_contain_text("Confirmed")


def test_a_quarantined_photo_shows_why_and_is_dismissed_or_deleted(
    visit: VisitMaker, fruit_server: RunningServer, http: httpx.Client, run_id: str
) -> None:
    """What can be shown of a photo is shown; "Retry" is offered only where it can help."""
    address = f"/console/batch/returns/{run_id}?state=quarantined"
    page = visit(at=fruit_server, expected={404}).page(address)
    expect(page.locator(".tile")).to_have_count(2)
    expect(page.locator(".tile img")).to_have_count(1)
    assert page.locator(".tile img").evaluate("(image) => image.decode().then(() => true)")
    expect(page.get_by_text("No preview")).to_be_visible()
    expect(page.get_by_text("damaged or incomplete")).to_be_visible()
    expect(page.get_by_role("button", name="Retry", exact=True)).to_have_count(0)
    page.get_by_role("button", name="Dismiss").first.click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.get_by_role("button", name="Withdraw the answer").click()
    expect(page.get_by_text("Withdrawn.")).to_be_visible()
    page.get_by_text("Delete the file …").click()
    page.get_by_role("button", name="Delete permanently").click()
    expect(page.get_by_text("The file was deleted.")).to_be_visible()
    page.goto(fruit_server.url + address)
    expect(page.locator(".tile")).to_have_count(1)
    expect(page.locator(".tallies [data-word=dismissed]")).to_have_text("1")


def test_photos_are_narrowed_to_a_category_or_an_order(
    visit: VisitMaker, fruit_server: RunningServer, run_id: str
) -> None:
    """By chips with counts, and by the beginning of a reference."""
    page = visit(at=fruit_server, expected={404}).page(f"/console/batch/returns/{run_id}?state=all")
    page.get_by_role("navigation", name="Category").get_by_role("link").first.click()
    page.wait_for_url("**label=*")
    page.get_by_placeholder("Item or order").fill("no such order")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="No photos match")).to_be_visible()
    page.get_by_role("link", name="Show all photos").click()
    expect(page.locator(".tile")).to_have_count(len(PHOTOS))


def test_the_photo_and_its_record_lead_to_each_other(
    visit: VisitMaker, fruit_server: RunningServer, http: httpx.Client, run_id: str
) -> None:
    """Prediction details, and back to what the shop knows."""
    item = items_of(http, run_id, text="100")[-1]
    page = visit(at=fruit_server).page(f"/console/batch/returns/items/{item['id']}")
    page.get_by_role("link", name="Prediction details").click()
    page.wait_for_url(f"**/console/records/{item['prediction_id']}")
    assert page.evaluate("document.querySelector('.photo img').decode().then(() => true)")
    page.get_by_role("link", name="Order 100, item 1").click()
    page.wait_for_url(f"**/console/batch/returns/items/{item['id']}")


def test_the_results_are_downloaded_from_the_page(visit: VisitMaker, fruit_server: RunningServer, run_id: str) -> None:
    """The export as a download, the report as a page that the browser accepts whole."""
    page = visit(at=fruit_server).page(f"/console/batch/returns/{run_id}")
    page.get_by_text("Export").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV, for spreadsheets").click()
    assert f"run-{run_id}.csv" == download.value.suggested_filename
    page.get_by_role("link", name="Report").click()
    page.wait_for_url("**/report")
    expect(page.locator("h1")).to_be_visible()


def test_a_page_in_another_language_says_in_which_a_report_is(http: httpx.Client, run_id: str) -> None:
    """Reports are stored, in the language of the settings."""
    words = [
        http.get(f"/console/batch/returns/{run_id}", headers={"accept-language": tag}).text for tag in ("en", "de")
    ]
    assert ["(English)" in text for text in words] == [False, True]
    assert all('/report" hreflang="en"' in text for text in words)


@pytest.mark.parametrize("path", ["/console/batch/returns/nix", "/console/batch/returns/items/nix"])
def test_an_unknown_run_or_item_gets_a_page(visit: VisitMaker, fruit_server: RunningServer, path: str) -> None:
    """With an explanation."""
    page = visit(at=fruit_server, expected={404}).page(path)
    expect(page.get_by_role("heading", name="Page not found")).to_be_visible()


def pages_of(http: httpx.Client, run_id: str) -> list[str]:
    """Every kind of page that there is for returns."""
    items = items_of(http, run_id)
    kinds = {item["state"]: f"/console/batch/returns/items/{item['id']}" for item in items}
    states = [
        f"/console/batch/returns/{run_id}?state={state}" for state in ("needs_review", "done", "quarantined", "all")
    ]
    return ["/console/batch/returns", "/console/batch/returns?said=retried-3", *states, *kinds.values()]


@pytest.mark.parametrize("options", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_no_page_of_returns_scrolls_sideways(
    visit: VisitMaker, fruit_server: RunningServer, http: httpx.Client, run_id: str, options: dict[str, object]
) -> None:
    """From 390 px on."""
    page = visit(at=fruit_server, expected={404}, **options).page("/console/batch/returns")
    wide = []
    for path in pages_of(http, run_id):
        page.goto(fruit_server.url + path)
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            wide.append(path)
    assert [] == wide


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_of_returns_has_enough_contrast(
    visit: VisitMaker, fruit_server: RunningServer, http: httpx.Client, run_id: str, scheme: str
) -> None:
    """Also in the bar of categories."""
    page = visit(at=fruit_server, expected={404}, color_scheme=scheme, reduced_motion="reduce").page(
        "/console/batch/returns"
    )
    least = []
    for path in pages_of(http, run_id):
        page.goto(fruit_server.url + path)
        if page.locator("[data-dock]").count():
            page.keyboard.press("j")
        least.append((*page.evaluate(LEAST_CONTRAST), path))
    assert [] == [each for each in least if each[0] < 4.5]


def test_pages_of_returns_are_sound(
    visit: VisitMaker, fruit_server: RunningServer, http: httpx.Client, run_id: str
) -> None:
    """One heading, nothing inline."""
    page = visit(at=fruit_server, expected={404}).page("/console/batch/returns")
    for path in pages_of(http, run_id):
        page.goto(fruit_server.url + path)
        assert (path, 1) == (path, page.locator("h1").count())
        html = http.get(path).text
        assert [] == [found for found in (" style=", " onclick=", "<style", "javascript:") if found in html]
        assert html.count("<script") == html.count('<script type="module" src="/static/')


def test_a_second_guess_is_one_key_and_a_look_at_the_whole_photo_another(gallery: Page, http: httpx.Client) -> None:
    """While the photo is shown large, keys answer nothing; the counter says how far this page is."""
    total = gallery.locator(".tile[data-state=needs_review]").count()
    with gallery.expect_response("**/batch/looks"):  # where somebody else looks at the first one, it selects another
        gallery.keyboard.press("j")
    shown = current(gallery)
    expect(gallery.locator("[data-dock-count]")).to_have_text(f"0 of {total} on this page")
    gallery.keyboard.press("z")
    expect(gallery.get_by_role("dialog", name="Photo")).to_be_visible()
    gallery.keyboard.press("y")
    gallery.keyboard.press("Escape")
    expect(gallery.get_by_role("dialog", name="Photo")).to_be_hidden()
    assert "needs_review" == item_of(http, shown)["state"]

    first = gallery.locator(f".tile[data-item='{current(gallery).get_attribute('data-item')}']")
    record = http.get(f"/predictions/{item_of(http, first)['prediction_id']}").json()
    second = record["labels"][1]["label"]
    expect(gallery.locator("[data-guess='0']")).to_contain_text(second)
    gallery.keyboard.press("2")
    expect(first).to_contain_text("Corrected")
    expect(gallery.locator("[data-dock-count]")).to_have_text(f"1 of {total} on this page")
    assert second == item_of(http, first)["label"]
    gallery.keyboard.press("u")
    expect(first).to_have_attribute("data-state", "needs_review")


def test_all_photos_of_a_category_are_confirmed_and_taken_back_at_once(gallery: Page, http: httpx.Client) -> None:
    """The tired clerk confirms the wrong category; one click undoes it. Another answer is not overwritten."""
    gallery.get_by_role("link", name="least sure first").click()
    scores = [float(text.rstrip("%")) for text in gallery.locator(".tile-score").all_inner_texts()]
    assert sorted(scores) == scores
    gallery.locator(".chip").first.click()
    expect(gallery.locator("[data-hint]")).to_be_visible()
    tiles = gallery.locator(".tile")
    count = tiles.count()
    address = gallery.url
    answered = tile(gallery, 0).get_attribute("data-item")
    http.post(f"/batch/items/{answered}/label", json={"label": "apple"}).raise_for_status()
    gallery.get_by_text(f"Confirm all {count} …").click()
    gallery.get_by_role("button", name=f"Confirm {count} photos").click()
    expect(gallery.locator(".notice[data-kind=done]")).to_contain_text(
        f"{count - 1} photos confirmed. 1 photo had been answered"
    )
    gallery.get_by_role("button", name=f"Undo all {count - 1}").click()
    expect(gallery.locator(".notice[data-kind=done]")).to_contain_text(f"{count - 1} photos need review again.")
    gallery.goto(address)
    expect(gallery.locator(".tile[data-state=needs_review]")).to_have_count(count - 1)
    http.post(f"/batch/items/{answered}/reopen").raise_for_status()


def test_photos_are_imported_from_the_page_and_the_first_page_says_what_needs_people(
    visit: VisitMaker, fruit_server: RunningServer, run_id: str, tmp_path: Path
) -> None:
    """A file that is no photo is imported, too: the run says what is wrong with it."""
    for name, content in (("901_1.jpg", dim_photo(901)), ("901_2.jpg", dim_photo(902)), ("901_3.jpg", dim_photo(901))):
        (tmp_path / name).write_bytes(content)
    page = visit(at=fruit_server).page("/console/batch/returns")
    expect(page.locator(".need-you")).to_contain_text("need you")
    page.locator("[data-drop] input").set_input_files(sorted(tmp_path.glob("901_*.jpg")))
    expect(page.locator("[data-word=waiting]")).to_have_text("2")
    page.locator(".need-you a").click()
    expect(page.locator(".tile[data-state=needs_review]").first).to_be_visible()
