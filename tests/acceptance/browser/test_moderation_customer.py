"""The page of a customer in a real browser: strikes, and erasing after the reference was typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.acceptance.browser.conftest import PHONE, VisitMaker
from tests.acceptance.moderation_shop import moderating_server, send_photos, states_of
from tests.conftest import RunningServer


@pytest.fixture(scope="module")
def moderating(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server of this module alone."""
    with moderating_server(tmp_path_factory.mktemp("customers"), models_dir, "reviews") as started:
        yield started


def test_a_customer_with_strikes_is_looked_at_and_erased(visit: VisitMaker, moderating: RunningServer) -> None:
    """From a photo to the page, on a phone without a script; a wrong reference erases nothing."""
    ids = send_photos(moderating.url, "reviews", 4, customer="c-1042")
    for photo_id in ids[:3]:
        answer = httpx.post(
            f"{moderating.url}/moderation/photos/{photo_id}/decision",
            json={"decision": "reject", "reason": "not_the_product"},
        )
        assert 200 == answer.status_code
    page = visit(at=moderating, expected={422, 404}, java_script_enabled=False, **PHONE).page(
        f"/console/moderation/photos/{ids[0]}"
    )
    page.get_by_role("link", name="Strikes and deletion").click()
    expect(page.get_by_role("heading", name="Customer c-1042")).to_be_visible()
    expect(page.get_by_text("3 refused photos within 30 days")).to_be_visible()
    expect(page.get_by_role("cell", name="Not the product")).to_have_count(3)
    page.get_by_label("to confirm").fill("c-1")
    page.get_by_role("button", name="Erase for good").click()
    expect(page.get_by_text("Nothing was erased")).to_be_visible()
    assert "held" in states_of(moderating.url, ids)
    page.go_back()
    page.get_by_label("to confirm").fill("c-1042")
    page.get_by_role("button", name="Erase for good").click()
    expect(page.get_by_text("Everything of this customer was erased")).to_be_visible()
    expect(page.get_by_role("cell", name="Photos: 4")).to_be_visible()
    gone = [httpx.get(f"{moderating.url}/moderation/photos/{photo_id}").status_code for photo_id in ids]
    assert [404] * 4 == gone
