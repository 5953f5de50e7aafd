"""The first minute of a new user: a welcome, samples, names for labels; and what is remembered."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import expect

from tests.acceptance.browser.conftest import VisitMaker


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
