"""The page Moderation in a real browser: the keyboard alone, two people at once, undo, offline, grid, plain forms."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.browser.conftest import DESKTOP, PHONE, VisitMaker
from tests.acceptance.browser.test_looks import LEAST_CONTRAST
from tests.acceptance.moderation_shop import decisions_on, moderating_server, send_photos, states_of
from tests.conftest import RunningServer

CHANNELS = (
    "keys",
    "pair",
    "undone",
    "offline",
    "grid",
    "plain",
    "looks",
    "heat",
    "letters",
    "taken",
    "reasons",
    "appeal",
)
HOME = "/console/moderation?channel="


@pytest.fixture(scope="module")
def moderating(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server with a queue for each test."""
    with moderating_server(tmp_path_factory.mktemp("moderating"), models_dir, *CHANNELS) as started:
        yield started


def shown(page: Page) -> str:
    """The id of the photo that is shown."""
    return str(page.locator("[data-slot=references] code").inner_text())


def today(page: Page, number: int) -> None:
    """Wait until the server has counted so many decisions of this person."""
    expect(page.locator("[data-word=today]")).to_have_text(str(number))


def queue_of(page: Page) -> None:
    """Wait until the next photos are there."""
    expect(page.locator("[data-slot=photo] img")).to_be_visible()


def test_thirty_photos_are_decided_without_the_mouse(visit: VisitMaker, moderating: RunningServer) -> None:
    """Accepting two of three, rejecting the third with a reason; nothing is clicked, and nothing is waited for."""
    ids = send_photos(moderating.url, "keys", 30)
    page = visit(at=moderating, person=11).page(f"{HOME}keys")
    queue_of(page)
    page.keyboard.press("a")  # the first tells when the script runs
    today(page, 1)
    for number in range(1, 30):
        expected = ids[number]
        expect(page.locator("[data-slot=references] code")).to_have_text(expected)
        if number % 3:
            page.keyboard.press("a")
        else:
            page.keyboard.press("r")
            page.keyboard.press(str(1 + number % 9))
    today(page, 30)
    expect(page.get_by_text("Nothing waits")).to_be_visible()
    states = states_of(moderating.url, ids)
    assert states == ["refused" if number and number % 3 == 0 else "published" for number in range(30)]
    assert decisions_on(moderating.url, ids) == [["person"]] * 30


def test_an_appeal_is_read_before_anything_else(visit: VisitMaker, moderating: RunningServer) -> None:
    """In the queue and on the page of the photo, without scrolling."""
    (photo,) = send_photos(moderating.url, "appeal", 1)
    place = f"{moderating.url}/moderation/photos/{photo}"
    assert httpx.post(f"{place}/decision", json={"decision": "reject", "reason": "nudity"}).is_success
    assert httpx.post(f"{place}/appeal", json={"message": "It is my jacket."}).is_success
    for address in (f"{HOME}appeal", f"/console/moderation/photos/{photo}"):
        page = visit(at=moderating, person=7).page(address)
        words = page.get_by_text("The shopper appeals: It is my jacket.")
        expect(words).to_be_in_viewport(ratio=1)
        expect(page.locator(".words ~ section").filter(has_text="Scores")).to_be_visible()


def test_the_reasons_stay_open_while_photos_arrive(visit: VisitMaker, moderating: RunningServer) -> None:
    """What is fetched behind does not take the list away from somebody who reads it."""
    ids = send_photos(moderating.url, "reasons", 20)
    page = visit(at=moderating, person=111).page(f"{HOME}reasons")
    queue_of(page)
    page.keyboard.press("a")
    today(page, 1)
    with page.expect_response("**/moderation/claims"):
        for _ in range(6):
            page.keyboard.press("a")
        page.keyboard.press("r")
    today(page, 7)
    expect(page.get_by_role("menu")).to_be_visible()
    page.keyboard.press("3")
    today(page, 8)
    assert states_of(moderating.url, ids[:9]) == ["published"] * 7 + ["refused", "held"]


def test_two_people_at_once_never_decide_the_same_photo(visit: VisitMaker, moderating: RunningServer) -> None:
    """Both work through one queue in turns, as quickly as the page goes."""
    ids = send_photos(moderating.url, "pair", 24)
    pages = [visit(at=moderating, person=person).page(f"{HOME}pair") for person in (21, 22)]
    for page in pages:
        queue_of(page)
    give_up_at = time.monotonic() + 120
    counts = [0, 0]
    while time.monotonic() < give_up_at and sum(counts) < 24:
        for page in pages:
            if page.locator("[data-slot=single]").is_visible():
                page.keyboard.press("a")
        counts = [int(page.locator("[data-word=today]").inner_text()) for page in pages]
    assert states_of(moderating.url, ids) == ["published"] * 24
    assert decisions_on(moderating.url, ids) == [["person"]] * 24
    assert sum(counts) == 24
    assert min(counts) > 0
    for page in pages:
        expect(page.locator("[data-slot=problem]")).to_be_empty()


def test_a_photo_that_somebody_else_decided_is_said_with_who_and_when(
    visit: VisitMaker, moderating: RunningServer
) -> None:
    """From the page of one photo, which two people have open."""
    (photo,) = send_photos(moderating.url, "taken", 1)
    first, second = (
        visit(at=moderating, person=person, expected={409}).page(f"/console/moderation/photos/{photo}")
        for person in (31, 32)
    )
    first.get_by_role("button", name="Accept").click()
    expect(first.get_by_text("Accepted. The photo is published.")).to_be_visible()
    second.get_by_role("button", name="Reject").click()
    expect(second.get_by_text(re.compile(r"someone accepted this photo at \d{4}-\d\d-\d\d"))).to_be_visible()
    assert states_of(moderating.url, [photo]) == ["published"]


def test_twenty_decisions_are_taken_back_in_order(visit: VisitMaker, moderating: RunningServer) -> None:
    """Then the wrong key is put right."""
    ids = send_photos(moderating.url, "undone", 20)
    page = visit(at=moderating, person=41).page(f"{HOME}undone")
    queue_of(page)
    for number in range(20):
        expect(page.locator("[data-slot=references] code")).to_have_text(ids[number])
        page.keyboard.press("a")
    today(page, 20)
    for number in range(20):
        page.keyboard.press("u")
        expect(page.locator("[data-slot=references] code")).to_have_text(ids[19 - number])
    today(page, 0)
    assert states_of(moderating.url, ids) == ["held"] * 20
    page.keyboard.press("r")
    page.keyboard.press("5")
    today(page, 1)
    assert states_of(moderating.url, ids[:1]) == ["refused"]


def test_decisions_are_kept_while_the_server_cannot_be_reached(visit: VisitMaker, moderating: RunningServer) -> None:
    """The page says so, goes on with the photos it has, and sends them when the line is back."""
    ids = send_photos(moderating.url, "offline", 5)
    made = visit(at=moderating, person=51)
    page = made.page(f"{HOME}offline")
    queue_of(page)
    page.keyboard.press("a")
    today(page, 1)
    made.context.set_offline(True)
    page.keyboard.press("a")
    page.keyboard.press("a")
    expect(page.get_by_text("2 decisions are kept")).to_be_visible()
    made.context.set_offline(False)
    today(page, 3)
    expect(page.locator("[data-slot=offline]")).to_be_hidden()
    assert states_of(moderating.url, ids) == ["published"] * 3 + ["held"] * 2


def test_a_selection_in_the_grid_is_decided_with_one_key(visit: VisitMaker, moderating: RunningServer) -> None:
    """Chosen from the keyboard; what is not chosen stays."""
    ids = send_photos(moderating.url, "grid", 5)
    page = visit(at=moderating, person=61).page(f"{HOME}grid")
    queue_of(page)
    page.keyboard.press("g")
    expect(page.locator(".mod-tile")).to_have_count(5)
    for key in ("x", "ArrowRight", "x", "ArrowRight", "ArrowRight", "x"):
        page.keyboard.press(key)
    expect(page.get_by_text("3 selected")).to_be_visible()
    page.keyboard.press("r")
    page.keyboard.press("1")
    expect(page.locator(".mod-tile")).to_have_count(2)
    today(page, 3)
    assert states_of(moderating.url, ids) == ["refused", "refused", "held", "refused", "held"]


def test_the_queue_works_without_a_script(visit: VisitMaker, moderating: RunningServer) -> None:
    """Accept, take back, skip and reject as plain forms."""
    ids = send_photos(moderating.url, "plain", 2)
    page = visit(at=moderating, person=71, java_script_enabled=False).page(f"{HOME}plain")
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_text("Accepted. The photo is published.")).to_be_visible()
    assert states_of(moderating.url, ids) == ["published", "held"]
    page.get_by_role("button", name="Undo").first.click()
    expect(page.get_by_text("Taken back.")).to_be_visible()
    page.goto(f"{moderating.url}{HOME}plain")
    page.get_by_role("button", name="Skip").click()
    page.goto(f"{moderating.url}{HOME}plain")
    page.locator("[data-slot=single] select").select_option("advertising")
    page.get_by_role("button", name="Reject").click()
    assert states_of(moderating.url, ids) == ["held", "refused"]


def test_letters_can_be_switched_off(visit: VisitMaker, moderating: RunningServer) -> None:
    """WCAG 2.1.4: then only buttons decide."""
    ids = send_photos(moderating.url, "letters", 2)
    page = visit(at=moderating, person=81).page(f"{HOME}letters")
    queue_of(page)
    page.locator("#main").get_by_text("Settings", exact=True).click()
    page.get_by_label("Letters and digits are keys").uncheck()
    page.get_by_role("button", name="Save").click()
    page.goto(f"{moderating.url}{HOME}letters")
    queue_of(page)
    page.keyboard.press("a")
    page.get_by_role("button", name="Accept").press("Enter")
    today(page, 1)
    assert states_of(moderating.url, ids) == ["published", "held"]


def test_photos_are_blurred_until_asked_and_the_heat_map_lies_over_them(
    visit: VisitMaker, moderating: RunningServer
) -> None:
    """Each by its key; the choice is kept."""
    send_photos(moderating.url, "heat", 1)
    page = visit(at=moderating, person=91).page(f"{HOME}heat")
    queue_of(page)
    photo = page.locator("[data-slot=photo] img")
    expect(photo).to_have_css("filter", re.compile("blur"))
    page.keyboard.press("v")
    expect(photo).to_have_css("filter", "none")
    page.keyboard.press("h")
    heat = page.locator("[data-heat]")
    expect(heat).to_be_visible()
    assert heat.evaluate("image => image.decode().then(() => image.naturalWidth)") == 640
    page.keyboard.press("h")
    expect(heat).to_be_hidden()
    with page.expect_response("**/moderation/moderator"):
        page.keyboard.press("b")
    expect(photo).to_have_css("filter", re.compile("grayscale"))
    page.reload()
    expect(page.locator("[data-slot=photo] img")).to_have_css("filter", re.compile("grayscale"))


@pytest.mark.parametrize("options", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_of_moderation_fit_and_are_readable(
    visit: VisitMaker, moderating: RunningServer, options: dict[str, object], scheme: str
) -> None:
    """No sideways scrolling, and text with a contrast of at least 4.5."""
    (photo,) = send_photos(moderating.url, "looks", 1, first=int(time.monotonic() * 1000) % 10**6, customer="c-1")
    page = visit(at=moderating, person=101, color_scheme=scheme, **options).page(f"{HOME}looks")
    for address in (
        f"{HOME}looks",
        f"{HOME}looks&view=grid",
        f"/console/moderation/photos/{photo}",
        "/console/moderation/search?q=c-1",
    ):
        page.goto(f"{moderating.url}{address}")
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
        ratio, text = page.evaluate(LEAST_CONTRAST)
        assert ratio >= 4.5, f"{address}: {text!r} has {ratio:.2f}"
