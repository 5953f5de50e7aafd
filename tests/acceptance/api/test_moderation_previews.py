"""Shoppers see their own photos before anybody else: signed addresses over HTTP, on two servers over one database."""

from __future__ import annotations

import io
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from PIL import Image

from shoplens.accounts.entities import SYSTEM
from shoplens.moderation.decisions import NewDecision, record_decision
from shoplens.moderation.entities import DecisionKind, PhotoState
from shoplens.moderation.previews import PreviewLinks
from shoplens.moderation.repository import PhotoRepository
from shoplens.platform.parts import utc_now
from shoplens.platform.server import Platform
from tests.acceptance.moderation_photos import blurred, sharp
from tests.conftest import ONLY_SQLITE, client_of

pytestmark = pytest.mark.anyio


@dataclass(kw_only=True)
class Servers:
    """Two servers: photos are sent to the first and shown by the second."""

    platform: Platform
    first: httpx.AsyncClient
    second: httpx.AsyncClient

    async def send(self, *photos: bytes, key: str = "") -> list[dict[str, Any]]:
        """What became of each of these photos."""
        files = [("file", photo) for photo in photos]
        headers = {"Idempotency-Key": key} if key else {}
        answer = await self.first.post(
            "/moderation/photos", files=files, data={"customer": "c-1"}, headers=headers
        )  # fmt: skip
        assert 201 == answer.status_code, answer.text
        photos_out: list[dict[str, Any]] = answer.json()["photos"]
        return photos_out

    async def hidden(self, address: str) -> str:
        """The body of a 404 that nobody may keep."""
        answer = await self.second.get(address)
        assert (404, "private, no-store") == (answer.status_code, answer.headers["cache-control"])
        return re.sub(r'"request_id":"\w+"', "", answer.text)


@pytest.fixture
async def servers(make_platform: Callable[..., Platform], database_url: str) -> AsyncIterator[Servers]:
    """Two over one database."""
    one, other = make_platform(database_url=database_url), make_platform(database_url=database_url)
    async with client_of(one) as first, client_of(other) as second:
        yield Servers(platform=one, first=first, second=second)


def decide(platform: Platform, photo_id: str, state: PhotoState) -> None:
    """As a moderator does."""
    with platform.database.transaction() as tx:
        photo = PhotoRepository(tx).get(photo_id, lock=True)
        record_decision(tx, photo, NewDecision(to_state=state, kind=DecisionKind.PERSON, by=SYSTEM, now=utc_now()))


async def test_a_held_photo_is_shown_to_its_shopper_alone(servers: Servers) -> None:
    """By the other server too, in each width; never kept by a cache; not without the signature or with that of
    another photo.
    """
    held, other = await servers.send(blurred(1), blurred(2))
    assert ("held", None) == (held["state"], held["media"])
    for address, width in ((held["preview"], 320), (held["preview"].replace("w=320", "w=160"), 160)):
        shown = await servers.second.get(address, headers={"Accept": "image/webp"})
        assert (200, "private, no-store") == (shown.status_code, shown.headers["cache-control"])
        assert "etag" not in shown.headers
        picture = Image.open(io.BytesIO(shown.content))
        assert ("WEBP", width) == (picture.format, picture.width)
    token = held["preview"].partition("preview=")[2]
    plain = await servers.hidden(f"/media/{held['id']}")
    for address in (
        f"/media/{other['id']}?preview={token}",
        f"/media/{held['id']}?preview={token[:-2]}zz",
        f"/media/{held['id']}?preview=",
        f"/media/{held['id']}?preview=%ff%00",
        f"/media/nothing?preview={token}",
    ):
        assert plain == await servers.hidden(address)


@ONLY_SQLITE
async def test_a_refused_or_erased_photo_has_no_preview(servers: Servers) -> None:
    """At once; one that was published meanwhile keeps it until its time is over, and no cache keeps it for others."""
    refused, erased, accepted = await servers.send(blurred(3), blurred(4), blurred(5), key="k-1")
    decide(servers.platform, accepted["id"], PhotoState.PUBLISHED)
    shown = await servers.second.get(accepted["preview"])
    assert (200, "private, no-store") == (shown.status_code, shown.headers["cache-control"])
    decide(servers.platform, refused["id"], PhotoState.REFUSED)
    await servers.hidden(refused["preview"])
    again = await servers.send(blurred(3), blurred(4), blurred(5), key="k-1")
    assert [None, erased["preview"], accepted["preview"]] == [each["preview"] for each in again]
    gone = await servers.first.request("DELETE", "/moderation/customers/c-1")
    assert 200 == gone.status_code, gone.text
    for photo in (refused, erased, accepted):
        await servers.hidden(photo["preview"])


@ONLY_SQLITE
async def test_a_preview_ends(servers: Servers) -> None:
    """Also that of a published photo; nobody can move its end."""
    published, held = await servers.send(sharp(1), blurred(6))
    for photo in (published, held):
        stored = servers.platform.moderation.photos.get(photo["id"])
        sent = utc_now() - timedelta(minutes=60)
        then = PreviewLinks(servers.platform.database, minutes=60, clock=lambda at=sent: at)  # type: ignore[misc]
        expired = then.address(replace(stored, created_at=sent))
        assert expired is not None
        await servers.hidden(expired)
        ends, _, signature = photo["preview"].partition("preview=")[2].partition(".")
        assert 200 == (await servers.second.get(f"/media/{photo['id']}?preview={ends}.{signature}")).status_code
        await servers.hidden(f"/media/{photo['id']}?preview={int(ends) + 60}.{signature}")


async def test_previews_can_be_switched_off(make_platform: Callable[..., Platform]) -> None:
    """Files that are no photo have none anyway."""
    async with client_of(make_platform()) as client:
        files = [("file", blurred(7)), ("file", b"<html>")]
        held, bad = (await client.post("/moderation/photos", files=files)).json()["photos"]
    assert (True, None) == (held["preview"] is not None, bad["preview"])
    async with client_of(make_platform(preview_minutes=0)) as client:
        (photo,) = (await client.post("/moderation/photos", files=files[:1])).json()["photos"]
        assert ("held", None) == (photo["state"], photo["preview"])
        assert 404 == (await client.get(held["preview"])).status_code
