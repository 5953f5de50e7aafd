"""The demo shop by itself: signatures of events, and what shoppers see while Shoplens does not answer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from standardwebhooks import Webhook

from examples.shop.shop import Shoplens, create_shop, is_signed
from servers.process import free_port
from shoplens.webhooks.entities import Event
from shoplens.webhooks.signature import body_of, headers_of, new_secret

SECRET = new_secret()
EVENT = Event(id="01k9hzv3m5x4q8d0j7w2r6t9ab", at=datetime.now(UTC), type="photo.held", data={"id": "1", "media": []})
BODY = body_of(EVENT)


def signed(*, secret: str = SECRET, age_s: float = 0) -> dict[str, str]:
    """The headers of an event that was sent so long ago."""
    return headers_of(EVENT, BODY, secret=secret, now=datetime.now(UTC) - timedelta(seconds=age_s))


@pytest.fixture
async def shop() -> AsyncIterator[httpx.AsyncClient]:
    """A shop whose Shoplens is not there."""
    shoplens = Shoplens(f"http://127.0.0.1:{free_port()}", None)
    app = create_shop(shoplens, secret=SECRET)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://shop.test") as client:
        yield client
    await shoplens.close()


def test_the_signatures_of_shoplens_and_of_other_senders_are_accepted() -> None:
    """The shop's own ten lines know what a library signs, also where a secret is being replaced."""
    assert is_signed(signed(), BODY, SECRET)
    now = datetime.now(UTC)
    theirs = {"webhook-id": "msg_1", "webhook-timestamp": str(int(time.time()))}
    theirs["webhook-signature"] = "v1,b2xk v2,bmV3 " + Webhook(SECRET).sign("msg_1", now, BODY.decode())
    assert is_signed(theirs, BODY, SECRET)


@pytest.mark.parametrize(
    ("headers", "body", "secret"),
    [
        (signed(), BODY.replace(b"held", b"sold"), SECRET),
        (signed(secret=new_secret()), BODY, SECRET),
        (signed(secret="whsec_"), BODY, ""),
        (signed(age_s=3600), BODY, SECRET),
        (signed(age_s=-3600), BODY, SECRET),
        (signed() | {"webhook-id": "another"}, BODY, SECRET),
        (signed() | {"webhook-timestamp": "now"}, BODY, SECRET),
        (signed() | {"webhook-signature": "v1,é"}, BODY, SECRET),
        ({}, BODY, SECRET),
    ],
    ids=["body", "secret", "no secret", "old", "future", "id", "no time", "no base64", "no headers"],
)
def test_a_forged_or_old_event_is_refused(headers: dict[str, str], body: bytes, secret: str) -> None:
    """Whatever of it is wrong."""
    assert not is_signed(headers, body, secret)


async def test_only_signed_events_are_taken(shop: httpx.AsyncClient) -> None:
    """One for a photo that the shop does not know is answered, so that it is not sent for a day."""
    assert 204 == (await shop.post("/hooks/photos", content=BODY, headers=signed())).status_code
    assert 401 == (await shop.post("/hooks/photos", content=BODY)).status_code


async def test_a_review_is_not_lost_while_shoplens_is_away(shop: httpx.AsyncClient) -> None:
    """The shopper reads why, and finds the text still in the form. Without photos it goes through."""
    form = {"key": "a" * 32, "name": "Ida", "stars": "4", "text": "Warm & <soft>"}
    answer = await shop.post("/reviews", data=form, files=[("photos", ("a.jpg", b"photo"))])
    assert 503 == answer.status_code
    assert "please try again in a minute" in answer.text
    assert "Warm &amp; &lt;soft&gt;</textarea>" in answer.text
    assert f'name="key" value="{"a" * 32}"' in answer.text  # the next try must not become a second review
    assert "<article" not in (await shop.get("/")).text
    assert 303 == (await shop.post("/reviews", data=form)).status_code
    assert 1 == (await shop.get("/")).text.count("<article")


async def test_a_form_that_is_sent_twice_is_one_review(shop: httpx.AsyncClient) -> None:
    """By the key that is in the form."""
    form = {"key": "b" * 32, "name": "Ida", "stars": "5", "text": "Good."}
    for _ in range(2):
        assert 303 == (await shop.post("/reviews", data=form)).status_code
    assert 1 == (await shop.get("/")).text.count("<article")


async def test_photos_that_the_shop_does_not_know_do_not_exist(shop: httpx.AsyncClient) -> None:
    """Shoplens is not even asked: it is away, and the answer is 404."""
    assert 404 == (await shop.get("/photos/01k9hzv3m5x4q8d0j7w2r6t9ab")).status_code
    for action in ("report", "appeal"):
        assert 404 == (await shop.post(f"/photos/01k9hzv3m5x4q8d0j7w2r6t9ab/{action}")).status_code


async def test_the_page_allows_no_foreign_code(shop: httpx.AsyncClient) -> None:
    """By its content security policy; the customer's number is not the cookie."""
    page = await shop.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "HttpOnly" in page.headers["set-cookie"]
    assert shop.cookies["shopper"] not in page.text
