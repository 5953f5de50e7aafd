"""The page Settings: values with their sources, and thresholds that are tried, saved, refused and taken back."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest

from shoplens.accounts.audit import AuditFilter
from shoplens.platform.batch import build_runner
from shoplens.platform.server import Platform
from shoplens.settings import Settings
from tests.conftest import client_of, colourful, jpeg_of

PLACE = "/console/settings/thresholds"


@pytest.fixture
async def shop(make_platform: Callable[..., Platform]) -> Platform:
    """A shop whose operator fixed one threshold, and set a password."""
    return make_platform(channels={"look": {"accept_at": 0.1}}, redis_prefix="pay-slip", mlflow_url=None)


async def outcome(client: httpx.AsyncClient) -> tuple[str, float]:
    """What becomes of a photo in the channel returns, and by which threshold."""
    photo = {"file": ("p.jpg", jpeg_of(colourful(1)))}
    answer = await client.post("/predict", files=photo, params={"channel": "returns"})
    assert answer.status_code == 200, answer.text
    return answer.json()["decision"]["outcome"], answer.json()["decision"]["threshold"]


async def test_the_page_shows_each_setting_with_its_source(shop: Platform) -> None:
    """And finds them by words of name, value or source."""
    async with client_of(shop) as client:
        everything = (await client.get("/console/settings")).text
        for name in ("channels.returns.accept_at", "monitoring.days", "port", "channels.returns.batch.source"):
            assert f"<code>{name}</code>" in everything
        found = (await client.get("/console/settings", params={"q": "pay-slip option"})).text
        assert ["redis_prefix"] == re.findall(r'<th scope="row"><code>([^<]+)', found)
        assert "No setting matches" in (await client.get("/console/settings", params={"q": "zzz"})).text


async def test_a_threshold_is_tried_saved_and_taken_back(shop: Platform) -> None:
    """The server that runs decides by it from the next photo on."""
    async with client_of(shop) as client:
        before = await outcome(client)
        assert 0.8 == before[1]
        form = {"channel": "returns", "based_on": "0", "accept_at": "0.05" if before[0] == "review" else "1"}
        tried = await client.post(f"{PLACE}/try", data={**form, "part": "result"})
        assert "1 would be decided in another way" in tried.text
        assert before == await outcome(client)

        saved = await client.post(PLACE, data={**form, "note": "fewer photos for people"})
        assert (303, f"{PLACE}?channel=returns&said=saved") == (saved.status_code, saved.headers["location"])
        after = await outcome(client)
        assert (float(form["accept_at"]), True) == (after[1], after[0] != before[0])
        assert "fewer photos for people" in (await client.get(saved.headers["location"])).text
        shown = (await client.get("/console/settings", params={"q": "returns.accept_at"})).text
        assert "Edited here" in shown

        second = await client.post(PLACE, data={**form, "accept_at": "0.6"})
        assert 409 == second.status_code
        assert "changed meanwhile" in second.text

        back = await client.post(f"{PLACE}/back", data={"channel": "returns", "based_on": "1", "version": "0"})
        assert 303 == back.status_code
        assert before == await outcome(client)
    actions = [each.action for each in shop.audit.page(AuditFilter(target="returns"), limit=5)]
    assert ["thresholds.taken_back", "thresholds.saved"] == actions


async def test_what_the_operator_set_and_what_makes_no_sense_is_refused(shop: Platform) -> None:
    """With a sentence on the page that says what to do."""
    async with client_of(shop) as client:
        for form, sentence in (
            (
                {"channel": "look", "accept_at": "0.5"},
                "accept_at of look cannot be edited here: it is set by the option",
            ),
            ({"channel": "returns", "accept_at": "1.7"}, "accept_at must lie between 0.05 and 1"),
            ({"channel": "returns", "accept_at": "85 %"}, "For 85% write 0.85."),
            ({"channel": "returns", "accept_at": "much"}, "write a number from 0 to 1"),
            ({"channel": "returns", "new_label": "shoez", "new_label.review_at": "0.5"}, "did you mean"),
        ):
            answer = await client.post(PLACE, data={"based_on": "0", **form})
            assert 422 == answer.status_code
            assert sentence in answer.text
        assert 404 == (await client.get(PLACE, params={"channel": "reviews"})).status_code


async def test_a_run_uses_what_was_saved(shop: Platform, make_settings: Callable[..., Settings]) -> None:
    """Also one whose process got its settings as variables from the server."""
    async with client_of(shop) as client:
        form = {"channel": "returns", "based_on": "0", "accept_at": "0.65"}
        assert 303 == (await client.post(PLACE, data=form)).status_code
    with build_runner(make_settings(), "returns") as runner:
        assert shop.configuration.thresholds.current("returns").version == runner._policy_version()
