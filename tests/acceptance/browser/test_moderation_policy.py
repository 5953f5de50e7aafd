"""The page of a policy: a threshold is moved, its effect is seen, saved and taken back; two people at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect

from shoplens.db import open_database
from shoplens.moderation.entities import PhotoState, Signal
from tests.acceptance.browser.conftest import PHONE, VisitMaker
from tests.conftest import RunningServer, running_server
from tests.unit.moderation.photos import ANNA, photo_of, stored

PLACE = "/console/moderation/policy"
SIMPLE = "[signals.nsfw]\nreview_at = 0.2\nreject_at = 0.85\n"


@pytest.fixture(scope="module")
def moderated(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server with photos of many scores, none of which has files."""
    with running_server(tmp_path_factory.mktemp("moderated"), models_dir) as started:
        with closing(open_database(f"sqlite:///{started.data_dir / 'shoplens.db'}")) as database:
            stored(
                database,
                *(
                    photo_of(
                        number,
                        state=PhotoState.REFUSED if number == 30 else PhotoState.HELD,
                        decided_by=ANNA.id if number == 30 else "policy",
                        image_key=None,
                        signals=(Signal(name="nsfw", score=number / 100, version="opennsfw@1"),),
                    )
                    for number in range(100)
                ),
            )
        yield started


@pytest.fixture
def policy_of(moderated: RunningServer) -> str:
    """The address of the policy, which has only thresholds for one signal when the test begins."""
    address = f"{moderated.url}/moderation/policy"
    version = httpx.get(address).json()["version"]
    body = {"source": SIMPLE, "based_on": version, "note": "a test begins"}
    assert 200 == httpx.put(address, json=body).status_code
    return address


def held_from(page: Page) -> str:
    """What the field of the first threshold says."""
    return page.locator('[name="signals.nsfw.review_at"]').input_value()


def test_a_threshold_is_moved_seen_saved_and_taken_back(
    visit: VisitMaker, moderated: RunningServer, policy_of: str
) -> None:
    """The counts follow while it is moved, and nothing applies before it is saved."""
    page = visit(at=moderated).page(PLACE)
    field = page.locator('[name="signals.nsfw.review_at"]')
    field.fill("0.4")
    result = page.locator("[data-result]")
    expect(result).to_contain_text("20 would change their state")
    expect(result.get_by_role("row", name="Held now, would be published")).to_contain_text("20")
    expect(result).to_contain_text("would show 1 that they refused (now 0)")
    expect(result.locator(".policy-photos li")).to_have_count(20)
    assert 0.2 == float(httpx.get(policy_of).json()["source"].partition("review_at = ")[2].split()[0])
    page.get_by_label("Why do you change it?").fill("Too many are held")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved. All servers use it")).to_be_visible()
    assert "review_at = 0.4" in httpx.get(policy_of).json()["source"]
    newest = page.locator("#history li.block").first
    expect(newest).to_contain_text("Too many are held")
    expect(newest.locator(".policy-diff")).to_contain_text("signals.nsfw.review_at 0.2")
    before = page.locator("#history li.block").nth(1)
    before.get_by_placeholder("Why go back to it?").fill("A mistake")
    before.get_by_role("button", name="again").click()
    expect(page.get_by_text("The earlier rules apply again.")).to_be_visible()
    assert "0.2" == held_from(page)


def test_sliders_work_with_the_keyboard(visit: VisitMaker, moderated: RunningServer, policy_of: str) -> None:
    """An arrow key moves field, mark and result."""
    page = visit(at=moderated).page(PLACE)
    page.get_by_role("slider", name="Nudity: hold from").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    assert "0.25" == held_from(page)
    expect(page.locator("[data-result]")).to_contain_text("5 would change their state")
    mark = page.locator("[data-signal=nsfw] [data-mark=review]")
    assert "25" == mark.get_attribute("x1")
    page.locator('[name="signals.nsfw.review_at"]').fill("")
    expect(page.locator("[data-signal=nsfw] [data-mark=review]")).to_be_hidden()
    expect(page.locator("[data-result]")).to_contain_text("65 would change their state")


def test_what_makes_no_sense_is_said_while_it_is_typed(
    visit: VisitMaker, moderated: RunningServer, policy_of: str
) -> None:
    """In fields and as text, with the place."""
    page = visit(at=moderated, expected={422}).page(PLACE)
    page.locator('[name="signals.nsfw.review_at"]').fill("0.9")
    expect(page.locator("[data-result]")).to_contain_text("signals.nsfw: the bands overlap")
    page.locator('[name="signals.nsfw.review_at"]').fill("0.3")
    page.get_by_label("Text (TOML)").check()
    text = page.get_by_label("Policy as TOML")
    expect(text).to_have_value(re.compile("review_at = 0.3"))
    text.fill("[signals.nswf]\nreview_at = 0.1")
    expect(page.locator("[data-result]")).to_contain_text("did you mean 'nsfw'?")
    text.fill("[signals.nsfw]\nreview_at = 0.1")
    expect(page.locator("[data-result]")).to_contain_text("25 would change their state")
    page.get_by_label("Fields").check()
    expect(page.locator('[name="signals.nsfw.review_at"]')).to_be_visible()
    assert "0.1" == held_from(page)


def test_of_two_people_the_second_keeps_what_they_typed(
    visit: VisitMaker, moderated: RunningServer, policy_of: str
) -> None:
    """And reads that somebody else was faster."""
    anna, bert = visit(at=moderated).page(PLACE), visit(at=moderated, expected={409}, person=2).page(PLACE)
    for page, at in ((anna, "0.3"), (bert, "0.5")):
        page.locator('[name="signals.nsfw.review_at"]').fill(at)
        page.get_by_label("Why do you change it?").fill(f"I want {at}")
    anna.get_by_role("button", name="Save").click()
    expect(anna.get_by_text("Saved. All servers use it")).to_be_visible()
    bert.get_by_role("button", name="Save").click()
    expect(bert.get_by_text("was changed meanwhile")).to_be_visible()
    assert "0.5" == held_from(bert)
    assert "I want 0.5" == bert.get_by_label("Why do you change it?").input_value()
    assert "review_at = 0.3" in httpx.get(policy_of).json()["source"]


def test_the_page_works_without_a_script(visit: VisitMaker, moderated: RunningServer, policy_of: str) -> None:
    """Trying and saving are plain forms, for fields and for text."""
    page = visit(at=moderated, java_script_enabled=False).page(PLACE)
    page.locator('[name="signals.nsfw.review_at"]').fill("0.4")
    page.get_by_role("button", name="Try").click()
    expect(page.locator("[data-result]")).to_contain_text("20 would change their state")
    assert "0.4" == held_from(page)
    page.get_by_label("Text (TOML)").check()
    page.get_by_label("Policy as TOML").fill("[signals.nsfw]\nreview_at = 0.6")
    page.get_by_label("Why do you change it?").fill("without a script")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Saved. All servers use it")).to_be_visible()
    assert "0.6" == held_from(page)


def test_the_page_fits_a_phone(visit: VisitMaker, moderated: RunningServer, policy_of: str) -> None:
    """Nothing is wider than the screen."""
    page = visit(at=moderated, **PHONE).page(PLACE)
    page.locator('[name="signals.nsfw.review_at"]').fill("0.4")
    expect(page.locator("[data-result]")).to_contain_text("20 would change their state")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
