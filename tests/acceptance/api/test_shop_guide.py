"""The guide for a shop's engineer, and the demo shop over a real server: events, purge, reports and appeals."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from examples.shop.shop import Shoplens, create_shop
from shoplens.web.browser import COOKIE
from shoplens.webhooks.entities import Event
from shoplens.webhooks.signature import body_of, headers_of, new_secret
from tests.acceptance.api.guides import HOW_TO, run_guide
from tests.acceptance.moderation_photos import blurred, sharp
from tests.conftest import RunningServer

GUIDE = (HOW_TO / "add-photos-to-your-shop.md").read_text(encoding="utf-8")
SHOP = (HOW_TO.parents[1] / "examples" / "shop" / "shop.py").read_text(encoding="utf-8")


SECRET = new_secret()


@pytest.fixture
async def shop(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    """A shop whose photos go to the server."""
    shoplens = Shoplens(server.url, None)
    transport = httpx.ASGITransport(app=create_shop(shoplens, secret=SECRET))
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test", follow_redirects=True) as client:
        yield client
    await shoplens.close()


async def hear(shop: httpx.AsyncClient, kind: str, photo_id: str, **more: Any) -> None:
    """Send the shop an event as the server does."""
    data = {"id": photo_id, "media": [f"/media/{photo_id}"], **more}
    event = Event(id=f"{kind} {photo_id}", at=datetime.now(UTC), type=kind, data=data)
    headers = headers_of(event, body_of(event), secret=SECRET, now=datetime.now(UTC))
    assert 204 == (await shop.post("/hooks/photos", content=body_of(event), headers=headers)).status_code


async def refuse(server: RunningServer, photo_id: str, *, person: int) -> None:
    """As a moderator does."""
    async with httpx.AsyncClient(base_url=server.url, headers={"Cookie": f"{COOKIE}={person:032x}"}) as moderator:
        answer = await moderator.post(
            f"/moderation/photos/{photo_id}/decision", json={"decision": "reject", "reason": "copyright"}
        )
        assert 200 == answer.status_code, answer.text


async def test_the_shop_follows_what_becomes_of_a_photo(server: RunningServer, shop: httpx.AsyncClient) -> None:
    """It shows a kept copy until the event of the refusal; an appeal is taken once, and its outcome is shown."""
    form = {"key": "follows", "name": "Ida", "stars": "5", "text": "Good."}
    await shop.get("/")
    page = await shop.post("/reviews", data=form, files=[("photos", ("a.jpg", sharp(90_003)))])
    assert "Your photo is visible now." in page.text
    photo_id = re.findall(r"/photos/(\w{26})", page.text)[0]
    picture = await shop.get(f"/photos/{photo_id}")
    assert (200, "image/jpeg") == (picture.status_code, picture.headers["content-type"])

    assert "A person will look at this photo" in (await shop.post(f"/photos/{photo_id}/report")).text
    await refuse(server, photo_id, person=21)
    assert picture.content == (await shop.get(f"/photos/{photo_id}")).content
    await hear(shop, "photo.refused", photo_id)
    assert 404 == (await shop.get(f"/photos/{photo_id}")).status_code
    assert "belongs to somebody else" in (await shop.get(f"/photos/{photo_id}/statement")).text

    for said in ("Another person will look at your photo again", "This was sent before"):
        assert said in (await shop.post(f"/photos/{photo_id}/appeal", data={"message": "It is mine."})).text
    stranger = {"Cookie": "shopper=somebody-else"}
    assert 404 == (await shop.post(f"/photos/{photo_id}/appeal", headers=stranger)).status_code
    assert 404 == (await shop.get(f"/photos/{photo_id}/statement", headers=stranger)).status_code
    await refuse(server, photo_id, person=22)
    await hear(shop, "appeal.decided", photo_id, answer=None)
    page = await shop.get("/")
    assert "with the same result" in page.text
    assert "Ask for a second look" not in page.text


async def test_other_photos_after_a_first_try_need_a_new_key(server: RunningServer, shop: httpx.AsyncClient) -> None:
    """The first try was taken in although its answer was lost: the form gets a key with which the next one works."""
    form = {"key": "first-try", "name": "Ida", "stars": "x", "text": "Good."}
    async with httpx.AsyncClient(base_url=server.url) as lost:
        files = [("file", ("a.jpg", sharp(90_004)))]
        await lost.post("/moderation/photos", files=files, headers={"Idempotency-Key": form["key"]})
    other = [("photos", ("b.jpg", sharp(90_005)))]
    refused = await shop.post("/reviews", data=form, files=other)
    assert (422, True) == (refused.status_code, "Please send the review once more" in refused.text)
    key = re.findall(r'name="key" value="(\w+)"', refused.text)[0]
    assert "Your photo is visible now." in (await shop.post("/reviews", data={**form, "key": key}, files=other)).text


def test_the_guide_works_as_written(server: RunningServer, tmp_path: Path) -> None:
    """A photo is sent, shown and reported; the doubtful one waits."""
    (tmp_path / "photo.jpg").write_bytes(sharp(90_001))
    (tmp_path / "doubtful.jpg").write_bytes(blurred(90_002))
    printed = run_guide("add-photos-to-your-shop.md", server, tmp_path)
    sent = json.loads((tmp_path / "sent.json").read_text())["photos"]
    assert ["published", "held"] == [each["state"] for each in sent]
    assert {"id", "state", "sentence"} <= sent[0].keys()
    with Image.open(tmp_path / "shown.webp") as shown:
        assert ("WEBP", 640) == (shown.format, shown.width)
    assert f'"photo_id":"{sent[0]["id"]}"' in printed


def test_what_the_guide_names_of_the_demo_shop_is_there() -> None:
    """Functions, and the options of the command."""
    for name in re.findall(r"`(?:Shop|Shoplens)\.(\w+)`|`(is_signed)`", GUIDE):
        assert re.search(rf"def {name[0] or name[1]}\(", SHOP), name
    for option in ("--secret", "--key"):
        assert f'"{option}"' in SHOP
        assert option in GUIDE
