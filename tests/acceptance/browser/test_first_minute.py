"""The first minute of a new user: a welcome, samples, names for labels; and what is remembered."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.acceptance.browser.conftest import VisitMaker, pick, write_photo
from tests.conftest import colourful, jpeg_of


def test_a_sample_is_classified_by_one_click_and_labels_have_names(visit: VisitMaker) -> None:
    """The answer names the garment in words for people; the channel is chosen again at the next visit."""
    page = visit().page()
    assert page.locator("[data-sample]").count() == 3
    page.get_by_role("radio", name="Returns").check(force=True)
    page.get_by_role("button", name="A jacket").click()
    expect(page.locator("[data-best]")).to_have_text("Outerwear")
    expect(page.locator("[data-best-key]")).to_have_text("outwear")
    expect(page.locator("#answers .label-row").first).to_contain_text("Outerwear")
    page.get_by_role("link", name="View record").click()
    expect(page.locator("h1")).to_have_text("Outerwear outwear")
    page.goto("/".join(page.url.split("/")[:3]))
    expect(page.get_by_role("radio", name="Returns")).to_be_checked()


def test_the_welcome_shows_the_four_jobs_until_it_is_hidden(visit: VisitMaker, photo_file: Path) -> None:
    """It goes away while photos are there, and for good by a click, without a script, too."""
    for script in (True, False):
        page = visit(java_script_enabled=script).page()
        welcome = page.get_by_role("region", name="Welcome")
        expect(welcome.locator("li")).to_have_count(4)
        if script:
            page.set_input_files("#file", photo_file)
            expect(welcome).to_be_hidden()
            page.reload()
        page.get_by_role("link", name="Hide this").click()
        expect(welcome).to_have_count(0)
        page.reload()
        expect(welcome).to_have_count(0)


def test_an_address_that_is_not_allowed_is_a_sentence(visit: VisitMaker) -> None:
    """In the list beside the photos, like any other photo that failed."""
    page = visit(expected={422}).page()
    page.get_by_label("Or the address of a photo").fill("https://images.example.org/shirt.jpg")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("is not below one of the addresses in photo_urls.url_prefixes")
    expect(page.get_by_role("alert")).to_contain_text("photo_not_fetched")


@pytest.mark.parametrize(("language", "command"), [("Python", [sys.executable, "-"]), ("JavaScript", ["node", "-"])])
def test_the_request_can_be_pasted_in_other_languages(
    visit: VisitMaker, tmp_path: Path, language: str, command: list[str]
) -> None:
    """It runs as it stands, for a file with an awkward name, and the language is remembered."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    photo = write_photo(tmp_path / "some.jpg").rename(tmp_path / 'it\'s \\ "100%" ü.jpg')
    page = visit().page()
    pick(page, photo)
    page.get_by_role("button", name=language).click()
    code = page.locator("[data-curl]").text_content() or ""
    options = ["--input-type=module", *command[1:]] if command[0] == "node" else command[1:]
    answer = subprocess.run(
        [command[0], *options], input=code, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert float((page.locator("[data-best-score]").text_content() or "").rstrip("%")) == pytest.approx(
        100 * float(answer.stdout.split()[-1]), abs=0.06
    )
    page.reload()
    pick(page, photo)
    expect(page.get_by_role("button", name=language)).to_have_attribute("aria-pressed", "true")


def test_the_api_page_finds_tries_and_links(visit: VisitMaker) -> None:
    """A word narrows it, a body can be sent, and the names of schemas lead to them."""
    page = visit(expected={404}).page("/docs")
    page.get_by_role("searchbox").fill("give feedback")
    expect(page.locator("details.operation:visible")).to_have_count(1)
    operation = page.locator("#create_feedback")
    operation.locator("summary").click()
    operation.get_by_label("Body").fill('{"prediction_id": "01k9hzv3m5x4q8d0j7w2r6t9ab"}')
    operation.get_by_role("button", name="Send POST").click()
    expect(operation.locator("[data-answer]")).to_contain_text('"code": "prediction_not_found"')
    page.get_by_role("searchbox").fill("classify a photo")
    page.locator("#classify_photo summary").click()
    page.locator("#classify_photo").get_by_label("file", exact=True).set_input_files(
        {"name": "x.jpg", "mimeType": "image/jpeg", "buffer": jpeg_of(colourful(3))}
    )
    page.locator("#classify_photo").get_by_role("button", name="Send POST").click()
    expect(page.locator("#classify_photo [data-answer]")).to_contain_text('"file_name": "x.jpg"')
    page.get_by_role("searchbox").fill("")
    page.locator("#classify_photo").get_by_role("link", name="PredictionOut").first.click()
    expect(page.locator("#PredictionOut")).to_have_attribute("open", "")
    expect(page.locator("#PredictionOut td").first).to_be_visible()
    expect(page.locator("#group-webhooks")).not_to_have_attribute("open", "")
    page.goto(page.url.partition("#")[0] + "#list_webhooks")
    expect(page.locator("#list_webhooks pre").first).to_be_visible()


def test_the_status_is_a_page_for_people(visit: VisitMaker) -> None:
    """From the footer of every page; programs get JSON from the same address."""
    page = visit().page("/console/records")
    page.get_by_role("link", name="Status").click()
    expect(page.locator("h1")).to_have_text("Everything works")
    expect(page.get_by_text("Records are read and written.")).to_be_visible()


def test_pages_and_scripts_speak_german_until_english_is_chosen(visit: VisitMaker) -> None:
    """A browser that asks for German gets it; the choice at the bottom of a page wins."""
    page = visit(locale="de-DE").page("/")
    page.get_by_role("button", name="Ein Kleid").click()
    expect(page.locator("[data-took]").first).to_contain_text("hin und zurück")
    expect(page.get_by_text("Ist das richtig?").first).to_be_visible()
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", name="Drop photos here")).to_be_visible()
