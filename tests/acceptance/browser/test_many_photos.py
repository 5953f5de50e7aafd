"""Many photos at once on the page Classify: the queue, the list, and what goes wrong on the way."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from shoplens.spreadsheets import csv_chunks
from tests.acceptance.browser.conftest import PHONE, VisitMaker, write_photo
from tests.acceptance.browser.test_looks import LEAST_CONTRAST
from tests.conftest import jpeg_of

THOUSAND_WITHIN_S = 300
MOST_LIVE_URLS = 120
COUNT_URLS = """
  const live = new Set();
  const [make, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
  URL.createObjectURL = (blob) => { const url = make.call(URL, blob); live.add(url); return url; };
  URL.revokeObjectURL = (url) => { live.delete(url); revoke.call(URL, url); };
  window.liveUrls = () => live.size;
"""


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Tiny photos in a folder, of which a fifth cannot be read."""
    folder = tmp_path_factory.mktemp("thousand")
    pixels = np.random.default_rng(4).integers(0, 256, (1000, 16, 16, 3), dtype=np.uint8)
    files = []
    for number in range(1000):
        files.append(folder / f"shelf {number // 100}-{number:04}.jpg")
        files[-1].write_bytes(b"no photo" if number % 5 == 0 else jpeg_of(pixels[number]))
    return files


def rows(page: Page, state: str = "") -> int:
    """How many of the shown rows are in a state."""
    return page.locator("#results tbody tr" + (f"[data-state={state}]" if state else "")).count()


def test_a_thousand_photos_of_which_a_fifth_is_unreadable_are_all_accounted_for(
    visit: VisitMaker, thousand: list[Path], tmp_path: Path
) -> None:
    """Each that fails has its reason, the table holds a page, and addresses of files are given back."""
    here = visit(expected={415})
    here.context.add_init_script(COUNT_URLS)
    page = here.page()
    page.set_input_files("#file", thousand)
    expect(page.locator("#count")).to_contain_text("photos/s")
    expect(page.locator("#count")).to_have_text("800 of 1,000 classified, 200 failed", timeout=THOUSAND_WITHIN_S * 1000)
    expect(page.locator("[data-wanted] option[value=failed]")).to_have_text("Failed (200)")
    assert rows(page) == 100
    assert page.evaluate("window.liveUrls()") < MOST_LIVE_URLS
    page.locator("[data-wanted]").select_option("failed")
    expect(page.locator("[data-where]")).to_have_text("1–100 of 200")
    reasons = page.locator("#results .cell-label").all_text_contents()
    assert all(each.startswith("Unsupported file type") for each in reasons)
    with page.expect_download() as wanted:
        page.get_by_role("button", name="CSV of 200 shown").click()
    wanted.value.save_as(tmp_path / "failed.csv")
    with (tmp_path / "failed.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [path.name for path in thousand[::5]] == [row["file_name"] for row in table]
    assert all(row["reason"].startswith("Unsupported file type") for row in table)


def test_the_list_sorts_filters_and_moves_by_keys(visit: VisitMaker, tmp_path: Path) -> None:
    """By a click on a heading, by words, and by the arrow keys, which show the photo that they come to."""
    page = visit().page()
    page.set_input_files("#file", [write_photo(tmp_path / f"{name}.jpg", seed) for seed, name in enumerate("dbca")])
    expect(page.locator("#count")).to_have_text("4 of 4 classified")
    files = page.locator("#results .cell-file")
    assert ["d.jpg", "b.jpg", "c.jpg", "a.jpg"] == files.all_text_contents()
    page.get_by_role("button", name="File", exact=True).click()
    assert ["a.jpg", "b.jpg", "c.jpg", "d.jpg"] == files.all_text_contents()
    expect(page.locator(".head-file")).to_have_attribute("aria-sort", "ascending")
    page.get_by_role("button", name="Score").click()
    scores = [float(each.rstrip("%")) for each in page.locator("#results .cell-score").all_text_contents()]
    assert sorted(scores) == scores
    page.get_by_role("button", name="File", exact=True).click()
    page.locator("#results").get_by_role("button", name="a.jpg").focus()
    page.keyboard.press("ArrowDown")
    expect(page.locator("[data-curl]")).to_contain_text("file=@b.jpg")
    page.keyboard.press("End")
    expect(page.locator("[data-curl]")).to_contain_text("file=@d.jpg")
    expect(page.locator("#results").get_by_role("button", name="d.jpg")).to_be_focused()
    page.get_by_role("searchbox").fill("C.JPG")
    assert ["c.jpg"] == files.all_text_contents()
    expect(page.locator("[data-wanted] option").first).to_have_text("All (1)")
    expect(page.get_by_role("button", name="CSV of 1 shown")).to_be_enabled()
    page.get_by_role("searchbox").fill("zzz")
    expect(page.get_by_text("No photos match.")).to_be_visible()


def test_a_pause_stops_sending_and_the_rest_follows_later(visit: VisitMaker, tmp_path: Path) -> None:
    """What is under way is finished; nothing is sent twice."""
    here = visit()
    page = here.page()
    sent: list[str] = []

    def slow(route: Route) -> None:
        sent.append(route.request.url)
        page.wait_for_timeout(500)
        route.continue_()

    page.route("**/predict?*", slow)
    page.set_input_files("#file", [write_photo(tmp_path / f"{seed}.jpg", seed) for seed in range(16)])
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#queue-note")).to_contain_text("Paused")
    expect(page.locator("#results tbody tr").get_by_text("Classifying…")).to_have_count(0)
    before = len(sent)
    page.wait_for_timeout(1_000)
    assert before == len(sent) < 16
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#count")).to_have_text("16 of 16 classified")
    assert len(sent) == 16


def test_a_line_that_breaks_loses_no_photo(visit: VisitMaker, tmp_path: Path) -> None:
    """The queue waits, says so, and goes on; a photo that the server could not answer is tried again by a click."""
    here = visit(expected={500})
    page = here.page()
    faults = iter([True])

    def break_once(route: Route) -> None:
        if next(faults, False):
            route.fulfill(status=500, json={"detail": "A fault.", "code": "internal"})
        else:
            route.continue_()

    page.route("**/predict?*", break_once)
    files = [write_photo(tmp_path / f"{seed}.jpg", seed) for seed in range(8)]
    page.set_input_files("#file", files[:4])
    expect(page.locator("#count")).to_have_text("3 of 4 classified, 1 failed")
    expect(page.locator("#results tbody tr[data-state=failed] .cell-label")).to_have_text("A fault.")
    page.get_by_role("button", name="Retry 1 failed").click()
    expect(page.locator("#count")).to_have_text("4 of 4 classified")
    here.context.set_offline(True)
    page.set_input_files("#file", files[4:])
    expect(page.locator("#queue-note")).to_contain_text("Can't reach the server. Check your connection and try again.")
    expect(page.locator("#count")).to_contain_text("4 of 8 classified")
    here.context.set_offline(False)
    expect(page.locator("#count")).to_have_text("8 of 8 classified")


def test_a_session_that_ends_midway_loses_no_photo(visit: VisitMaker, tmp_path: Path) -> None:
    """The queue says what to do, and goes on once somebody signed in again."""
    page = visit(expected={401}).page()
    out = {"status": 401, "json": {"detail": "Sign in.", "code": "not_authenticated"}}
    page.route("**/predict?*", lambda route: route.fulfill(**out))
    page.set_input_files("#file", [write_photo(tmp_path / f"{seed}.jpg", seed) for seed in range(3)])
    expect(page.locator("#queue-note")).to_contain_text("Sign in again in another tab, then continue. 3 photos wait")
    page.unroute("**/predict?*")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#count")).to_have_text("3 of 3 classified")


def test_the_csv_of_the_page_is_as_safe_as_that_of_the_server(visit: VisitMaker) -> None:
    """The same text for names that a spreadsheet would run, or split."""
    page = visit().page()
    names = ["a.jpg", "=1+1", ' "=x"', "a;=b", "a,-b", "\t@x", "one\ntwo", 'say "hi"', "＝1", ";;=2", "-", "ü.jpg", ""]
    wanted = "".join(csv_chunks(("name", "score"), [(name, 0.5) for name in names]))
    made = page.evaluate(
        "(names) => import('/static/photo-csv.js').then((m) => m.csvOf(['name', 'score'], names.map((n) => [n, 0.5])))",
        names,
    )
    assert wanted == made


def test_a_file_that_was_deleted_meanwhile_is_said(visit: VisitMaker, tmp_path: Path) -> None:
    """It does not look like a broken line, and the others are classified."""
    page = visit().page()
    files = [write_photo(tmp_path / f"{seed}.jpg", seed) for seed in range(8)]
    held: list[Route] = []
    page.route("**/predict?*", lambda route: held.append(route) if not held else route.continue_())
    page.set_input_files("#file", files)
    expect(page.locator("#results tbody tr")).to_have_count(8)
    files[7].unlink()
    while not held:
        page.wait_for_timeout(20)
    for route in held:
        route.continue_()
    expect(page.locator("#results tbody tr[data-state=failed] .cell-label")).to_contain_text("This file can't be read")
    expect(page.locator("#count")).to_have_text("7 of 8 classified, 1 failed")


def test_a_folder_is_taken_with_all_that_is_in_it(visit: VisitMaker, tmp_path: Path) -> None:
    """Dropped or chosen; files of the system are counted, what is no photo has its reason, names have their path."""
    folder = tmp_path / "shelf"
    (folder / "a" / "b").mkdir(parents=True)
    write_photo(folder / "a" / "1.jpg")
    write_photo(folder / "a" / "b" / "2.jpg")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "empty.jpg").touch()
    dropping = visit(expected={422}).page()
    line = dropping.context.new_cdp_session(dropping)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "dragOver", "drop"):
        line.send("Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 600, "data": data})
        dropping.wait_for_timeout(100)
    choosing = visit(expected={422}).page()
    choosing.set_input_files("#folder", folder)
    for page in (dropping, choosing):
        expect(page.locator("#count")).to_have_text("2 of 3 classified, 1 failed · 1 system file left out")
        names = {"shelf/a/1.jpg", "shelf/a/b/2.jpg", "shelf/empty.jpg"}
        assert names == set(page.locator("#results .cell-file").all_text_contents())
        expect(page.locator("[data-state=failed] .cell-label")).to_have_text("The file is empty. Choose another photo.")


def test_a_slow_line_is_offered_a_smaller_copy(visit: VisitMaker, tmp_path: Path) -> None:
    """One click sends 1,600 pixels instead of the original, under the same name."""
    photo = tmp_path / "large.jpg"
    coarse = Image.fromarray(np.random.default_rng(2).integers(0, 256, (45, 60, 3), dtype=np.uint8))
    coarse.resize((3000, 2250), Image.Resampling.BICUBIC).save(photo, quality=98)
    assert photo.stat().st_size > 1_200_000
    page = visit().page()
    line = page.context.new_cdp_session(page)
    slow = {"offline": False, "latency": 100, "downloadThroughput": 1_000_000, "uploadThroughput": 100_000}
    line.send("Network.emulateNetworkConditions", slow)
    page.set_input_files("#file", photo)
    expect(page.locator("#slow-words")).to_contain_text("The connection is slow")
    expect(page.locator("[data-busy]")).to_contain_text("Uploading")
    page.get_by_role("button", name="Send smaller copies").click()
    expect(page.locator("#slow")).to_be_hidden()
    page.get_by_role("link", name="View record").click()
    expect(page.get_by_text("1,600 × 1,200 px")).to_be_visible()
    expect(page.get_by_text("large.jpg")).to_be_visible()


def test_a_phone_shows_the_list_or_one_photo(visit: VisitMaker, tmp_path: Path) -> None:
    """A tap opens a photo, "back" leads to the list, and nothing is wider than 320 pixels."""
    page = visit(**(PHONE | {"viewport": {"width": 320, "height": 640}})).page()
    page.set_input_files("#file", [write_photo(tmp_path / f"{seed}.jpg", seed) for seed in range(3)])
    expect(page.locator("#count")).to_have_text("3 of 3 classified")
    expect(page.locator("#answers")).to_be_hidden()
    page.locator("#results tbody tr").nth(1).tap()
    expect(page.locator("#results")).to_be_hidden()
    expect(page.locator("#answers .label-row")).to_have_count(10)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    expect(page.locator("#place")).to_have_text("2 of 3")
    page.get_by_role("button", name="Next photo").tap()
    expect(page.locator("#place")).to_have_text("3 of 3")
    expect(page.locator("[data-curl]")).to_contain_text("file=@2.jpg")
    page.go_back()
    expect(page.locator("#results")).to_be_visible()
    expect(page.locator("#answers")).to_be_hidden()
    page.set_input_files("#camera", write_photo(tmp_path / "camera.jpg", 9))
    expect(page.locator("[data-curl]")).to_contain_text("file=@camera.jpg")
    page.get_by_role("button", name="All photos").tap()
    expect(page.locator("#count")).to_have_text("4 of 4 classified")
    assert page.evaluate("document.documentElement.scrollWidth") <= 320


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_list_can_be_read_and_named_in_both_schemes(visit: VisitMaker, tmp_path: Path, scheme: str) -> None:
    """Also a photo that failed, a decision, and the note of a pause."""
    page = visit(expected={415}, color_scheme=scheme, reduced_motion="reduce").page()
    page.get_by_role("radio", name="Returns").check(force=True)
    (tmp_path / "notes.jpg").write_text("no photo")
    page.set_input_files("#file", [tmp_path / "notes.jpg", write_photo(tmp_path / "1.jpg")])
    expect(page.locator("#count")).to_have_text("1 of 2 classified, 1 failed")
    contrast, words = page.evaluate(LEAST_CONTRAST)
    assert contrast >= 4.5, words
