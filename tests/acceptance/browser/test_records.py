"""The pages Records and one record."""

from __future__ import annotations

import csv
import io
import re
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.acceptance.browser.conftest import VisitMaker, write_photo
from tests.conftest import RunningServer, running_server

MANY = 60
LOCAL_TIME = re.compile(r"^(Today, )?\S.*\d:\d\d")


@pytest.fixture(scope="module")
def ids(shop: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Predictions in two channels, more of them than a page holds; ids by channel."""
    photo = write_photo(tmp_path_factory.mktemp("photos") / "x.jpg").read_bytes()
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=60) as client:
        return {
            channel: [client.post(f"/predict?channel={channel}", content=photo).json()["id"] for _ in range(count)]
            for channel, count in (("look", MANY), ("strict", 2))
        }


def test_records_are_listed_newest_first_with_their_photo(visit: VisitMaker, ids: dict[str, list[str]]) -> None:
    """Thumbnail, best label, decision with its reason, channel, model and local time."""
    page = visit(timezone_id="Pacific/Auckland").page("/console/records")
    first = page.locator("[data-records] tbody tr").first
    expect(first.locator("a")).to_have_attribute("href", f"/console/records/{ids['strict'][-1]}")
    expect(first.locator(".badge")).to_have_text("Rejected")
    expect(first.locator(".reason")).to_contain_text("(≥ 5%)")
    expect(first.locator("time")).to_have_text(LOCAL_TIME)
    assert page.evaluate("document.querySelector('.thumb').decode().then(() => true)")


def test_view_db_is_the_same_page(visit: VisitMaker, ids: dict[str, list[str]]) -> None:
    """The address that people know from before."""
    page = visit().page("/view_db")
    expect(page.get_by_role("heading", name="Records")).to_be_visible()
    expect(page.locator("[data-records] tbody tr")).to_have_count(50)


def test_older_and_newer_lead_through_all_records_once(visit: VisitMaker, ids: dict[str, list[str]]) -> None:
    """Paging keeps the filter, loses nothing and comes back to where it began."""
    page = visit().page("/console/records?channel=look")
    links = page.locator("[data-records] .cell-label a")
    newest = links.evaluate_all("(all) => all.map((a) => a.pathname)")
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("link", name="Newer")).to_be_visible()
    older = links.evaluate_all("(all) => all.map((a) => a.pathname)")
    assert "channel=look" in page.url
    assert set() == set(newest) & set(older)
    assert set(ids["look"]) <= {href.rsplit("/", 1)[-1] for href in newest + older}
    page.get_by_role("link", name="Newer").click()
    page.wait_for_url("**after=*")
    assert newest == links.evaluate_all("(all) => all.map((a) => a.pathname)")


def test_the_filter_narrows_what_is_listed_and_exported(visit: VisitMaker, ids: dict[str, list[str]]) -> None:
    """The form makes a clean address, and the CSV has the same records as the page."""
    here = visit()
    page = here.page("/console/records")
    page.get_by_label("Channel").select_option("strict")
    page.get_by_label("Decision").select_option("reject")
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**/console/records?channel=strict&decision=reject")
    listed = page.locator("[data-records] .cell-label a").evaluate_all("(all) => all.map((a) => a.pathname)")
    with page.expect_download() as download:
        page.get_by_role("link", name="Export CSV").click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert [row["id"] for row in rows] == [href.rsplit("/", 1)[-1] for href in listed]
    assert {"strict"} == {row["channel"] for row in rows}


def test_days_are_in_the_time_zone_of_the_browser(visit: VisitMaker, ids: dict[str, list[str]]) -> None:
    """In Auckland a day begins half a day before it does in UTC; the address has the instants."""
    page = visit(timezone_id="Pacific/Auckland").page("/console/records")
    day = page.evaluate("new Date().toLocaleDateString('sv')")
    page.get_by_label("From").fill(day)
    page.get_by_label("To", exact=True).fill(day)
    page.get_by_role("button", name="Filter").click()
    page.wait_for_url("**since=*until=*")
    since, until = (page.evaluate("(n) => new URLSearchParams(location.search).get(n)", n) for n in ("since", "until"))
    length = datetime.fromisoformat(until) - datetime.fromisoformat(since)
    assert timedelta(hours=23) <= length <= timedelta(hours=25)
    assert 0 != datetime.fromisoformat(since).hour
    assert (day, day) == (page.get_by_label("From").input_value(), page.get_by_label("To", exact=True).input_value())


def test_a_filter_that_matches_nothing_can_be_cleared(visit: VisitMaker, ids: dict[str, list[str]]) -> None:
    """The empty state says so and offers the way back."""
    page = visit().page("/console/records?label=no+such+label")
    expect(page.get_by_role("heading", name="No records match these filters")).to_be_visible()
    page.get_by_role("link", name="Clear filters").click()
    expect(page.locator("[data-records] tbody tr")).to_have_count(50)


@pytest.mark.parametrize(
    "query", ["decision=perhaps", "since=yesterday", "before=1", "since=9999-12-31&until=9999-12-31"]
)
def test_an_invalid_address_gets_an_error_page(visit: VisitMaker, query: str) -> None:
    """Never a stack trace, never JSON."""
    page = visit(expected={422}).page(f"/console/records?{query}")
    expect(page.get_by_role("heading", name="Invalid request")).to_be_visible()
    expect(page.get_by_role("link", name="Classify a photo")).to_be_visible()


def test_a_fresh_installation_invites_to_classify(
    visit: VisitMaker, tmp_path_factory: pytest.TempPathFactory, models_dir: Path
) -> None:
    """No table without rows."""
    with running_server(tmp_path_factory.mktemp("fresh"), models_dir) as fresh:
        page = visit(at=fresh).page("/console/records")
        expect(page.get_by_role("heading", name="No records yet")).to_be_visible()
        page.get_by_role("link", name="Classify a photo").click()
        expect(page.get_by_role("heading", name="Drop photos here")).to_be_visible()


def test_j_and_enter_open_a_record(visit: VisitMaker, ids: dict[str, list[str]]) -> None:
    """The keys that mail programs use."""
    page = visit().page("/console/records")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/console/records/{ids['strict'][-1]}")


def test_a_row_can_be_clicked_anywhere(visit: VisitMaker, ids: dict[str, list[str]]) -> None:
    """The photo is the biggest target."""
    page = visit().page("/console/records")
    place = page.locator("[data-records] .cell-photo").first.bounding_box()
    assert place
    page.mouse.click(place["x"] + place["width"] / 2, place["y"] + place["height"] / 2)
    page.wait_for_url(f"**/console/records/{ids['strict'][-1]}")


def test_one_record_says_all_that_is_known_of_it(visit: VisitMaker, ids: dict[str, list[str]]) -> None:
    """Photo, labels, decision with threshold and policy version, image facts and timing."""
    page = visit().page(f"/console/records/{ids['strict'][0]}")
    assert 320 == page.evaluate(
        "document.querySelector('.photo img').decode().then(() => document.images[0].naturalWidth)"
    )
    for words in (
        "Rejected",
        "(≥ 5%)",
        "safe: reject ≥ 5%",
        "320 × 240 px",
        "JPEG",
        "Inference",
        "opennsfw 1",
    ):
        expect(page.get_by_text(words, exact=False).first).to_be_visible()
    expect(page.get_by_role("link", name="View original")).to_be_visible()


def test_feedback_is_given_on_the_record_and_marked_in_the_list(visit: VisitMaker, ids: dict[str, list[str]]) -> None:
    """The same form as on Classify."""
    page = visit().page(f"/console/records/{ids['strict'][1]}")
    page.get_by_role("button", name="Yes, correct").click()
    expect(page.get_by_text("Marked as correct. Thanks!")).to_be_visible()
    page.goto(page.url.split("/console")[0] + "/console/records?channel=strict")
    expect(page.locator("[data-records] tbody tr").first.locator(".said")).to_have_text("Correct")


def test_a_record_that_is_not_there_gets_a_page(visit: VisitMaker) -> None:
    """Malformed and unknown ids alike."""
    for wrong in ("abc", "0" * 26):
        page = visit(expected={404}).page(f"/console/records/{wrong}")
        expect(page.get_by_role("heading", name="Page not found")).to_be_visible()


def test_plain_forms_with_nonsense_are_refused_politely(shop: RunningServer, ids: dict[str, list[str]]) -> None:
    """422 and a page for a verdict that does not exist, and 404 for a record that does not."""
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=60) as client:
        odd = client.post(f"/console/records/{ids['look'][0]}/feedback", data={"verdict": "perhaps"})
        lost = client.post(f"/console/records/{'0' * 26}/feedback", data={"verdict": "wrong"})
    assert (422, 404) == (odd.status_code, lost.status_code)
    assert odd.headers["content-type"].startswith("text/html")


def test_static_files_are_kept_for_ever_only_under_their_hash(shop: RunningServer) -> None:
    """A page of tomorrow must not meet a script of yesterday."""
    with urllib.request.urlopen(f"{shop.url}/") as answer:
        html = answer.read().decode()
    address = html.split('rel="stylesheet" href="')[1].split('"')[0]
    with httpx.Client(base_url=shop.url, trust_env=False, timeout=60) as client:
        hashed, plain, stale = (
            client.get(path) for path in (address, "/static/console.css", "/static/console.css?v=0")
        )
    assert "immutable" in hashed.headers["cache-control"]
    assert ["no-cache", "no-cache"] == [plain.headers["cache-control"], stale.headers["cache-control"]]
