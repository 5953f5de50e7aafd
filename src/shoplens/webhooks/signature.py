"""Sign an event as https://www.standardwebhooks.com describes it, so that its receivers find libraries for it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from datetime import UTC, datetime
from typing import Final

import orjson

from shoplens.webhooks.entities import Event
from shoplens.webhooks.errors import EndpointInvalid

_PREFIX: Final = "whsec_"
_NEW_BYTES: Final = 32
_BYTES: Final = range(24, 65)


def new_secret() -> str:
    """A secret of 256 random bits."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(_NEW_BYTES)).decode()


def require_secret(secret: str) -> str:
    """`secret` itself. Raises EndpointInvalid unless it is `whsec_` and the base64 of 24 to 64 bytes."""
    try:
        length = len(_key(secret))
    except (ValueError, binascii.Error):
        length = 0
    if not secret.startswith(_PREFIX) or length not in _BYTES:
        raise EndpointInvalid("A secret is whsec_ and the base64 of 24 to 64 random bytes; leave it out to get one.")
    return secret


def body_of(event: Event) -> bytes:
    """The JSON that is sent: `type`, `timestamp` (of the event, ISO 8601) and `data`."""
    moment = event.at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return orjson.dumps({"type": event.type, "timestamp": moment, "data": event.data})


def headers_of(event: Event, body: bytes, *, secret: str, now: datetime) -> dict[str, str]:
    """The headers of one attempt. `webhook-id` is the same for all attempts, so that receivers find repetitions."""
    sent_at = str(int(now.timestamp()))
    signed = f"{event.id}.{sent_at}.".encode() + body
    signature = base64.b64encode(hmac.digest(_key(secret), signed, hashlib.sha256)).decode()
    return {
        "content-type": "application/json",
        "webhook-id": event.id,
        "webhook-timestamp": sent_at,
        "webhook-signature": f"v1,{signature}",
    }


def _key(secret: str) -> bytes:
    return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
