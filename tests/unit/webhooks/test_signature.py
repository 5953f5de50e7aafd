"""Receivers check events with the libraries of Standard Webhooks."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from shoplens.webhooks.entities import Event
from shoplens.webhooks.errors import EndpointInvalid
from shoplens.webhooks.signature import body_of, headers_of, new_secret, require_secret

EVENT = Event(id="01k", at=datetime(2026, 3, 1, 12, 0, 0, 1000, UTC), type="photo.published", data={"id": "p", "é": 1})


def test_the_reference_library_accepts_the_signature() -> None:
    """And reads the event."""
    secret, body = new_secret(), body_of(EVENT)
    verified = Webhook(secret).verify(body, headers_of(EVENT, body, secret=secret, now=datetime.now(UTC)))
    assert {"type": "photo.published", "timestamp": "2026-03-01T12:00:00.001Z", "data": {"id": "p", "é": 1}} == verified


@pytest.mark.parametrize("change", ["body", "id", "secret"])
def test_it_refuses_what_was_changed(change: str) -> None:
    """Each part is signed."""
    secret, body = new_secret(), body_of(EVENT)
    headers = headers_of(EVENT, body, secret=secret, now=datetime.now(UTC))
    if change == "id":
        headers["webhook-id"] = "other"
    with pytest.raises(WebhookVerificationError):
        Webhook(new_secret() if change == "secret" else secret).verify(
            body + b" " if change == "body" else body, headers
        )


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        "secret",
        "whsec_!!",
        "whsec_" + base64.b64encode(b"short").decode(),
        base64.b64encode(bytes(32)).decode(),
    ],
)
def test_a_weak_or_unreadable_secret_is_refused(secret: str) -> None:
    """With what a secret looks like."""
    with pytest.raises(EndpointInvalid, match="whsec_"):
        require_secret(secret)
