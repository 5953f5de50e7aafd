"""The pages Models and one model."""

from __future__ import annotations

from playwright.sync_api import expect

from tests.acceptance.browser.conftest import VisitMaker


def test_every_model_in_service_has_a_card_with_its_channels(visit: VisitMaker) -> None:
    """Those that answer come first, each with licence, size and the number of labels."""
    page = visit().page("/console/models")
    look = page.locator(".card", has_text="efficientnet-lite0-int8").first
    expect(look).to_contain_text("Used by General")
    expect(look).to_contain_text("1,000")
    expect(page.locator(".card", has_text="opennsfw")).to_contain_text("Strict")


def test_a_model_shows_its_card_preprocessing_and_checksums(visit: VisitMaker) -> None:
    """What it was trained on, what happens to a photo first, and the digest of its bytes."""
    page = visit().page("/console/models")
    page.locator(".card", has_text="efficientnet-lite0-int8").first.get_by_role("link").click()
    page.locator(".fold > summary", has_text="Data and licence").click()
    page.locator(".fold > summary", has_text="Checksums").click()
    for words in (
        "Trained on",
        "Licence",
        "Batching",
        "Centre crop of 224 × 224 px.",
        "model.onnx",
        "digest",
    ):
        expect(page.get_by_text(words).first).to_be_visible()
    assert 64 == len(page.locator(".sums code").first.text_content() or "")


def test_labels_are_searched_while_typing(visit: VisitMaker) -> None:
    """The count follows, and nothing found is said."""
    page = visit().page("/console/models/efficientnet-lite0-int8")
    visible = page.locator("#label-list li:not([hidden])")
    expect(visible).to_have_count(1000)
    assert page.evaluate("(list => list.scrollWidth <= list.clientWidth)(document.getElementById('label-list'))")
    page.get_by_role("searchbox").fill("SHOE")
    expect(visible.filter(has_text="running shoe")).to_be_visible()
    assert page.locator("[data-count]").text_content() == str(visible.count())
    page.get_by_role("searchbox").fill("no such thing")
    expect(page.get_by_text("No labels match.")).to_be_visible()


def test_labels_are_searched_without_a_script(visit: VisitMaker) -> None:
    """The same field, answered by the server."""
    page = visit(java_script_enabled=False).page("/console/models/efficientnet-lite0-int8?q=running+shoe")
    expect(page.locator("#label-list li")).to_have_count(1)


def test_a_model_can_be_addressed_with_its_version(visit: VisitMaker) -> None:
    """Records link to the version that answered."""
    page = visit().page("/console/models/opennsfw@1.0.1")
    expect(page.get_by_text("nsfw: review ≥ 40%, reject ≥ 85%")).to_be_visible()
    expect(page.get_by_text("encoded as JPEG again")).to_be_visible()


def test_an_unknown_model_gets_a_page(visit: VisitMaker) -> None:
    """With a way on."""
    page = visit(expected={404}).page("/console/models/nothing")
    expect(page.get_by_role("heading", name="Page not found")).to_be_visible()
