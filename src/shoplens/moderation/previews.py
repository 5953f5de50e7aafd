"""Signed addresses under which shoppers see their own photos for a limited time, although those are not public yet."""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

from shoplens.db import Database
from shoplens.errors import RecordRefused
from shoplens.moderation.entities import ModerationPhoto, PhotoState
from shoplens.moderation.repository import KeyRepository

PREVIEWED: Final = (PhotoState.HELD, PhotoState.PUBLISHED)
"""The states of photos that a signed address shows."""
_NAME: Final = "preview"
_KEY_BYTES: Final = 32
_MOST_DIGITS: Final = 12


class PreviewLinks:
    """Signs and checks addresses with a key that all servers of one database share.

    The signature covers the id and the moment at which the address ends, not the width. All methods block, and may be
    called from many threads. They raise DatabaseUnavailable.
    """

    def __init__(self, database: Database, *, minutes: int, clock: Callable[[], datetime]) -> None:
        """An address works for `minutes` after the photo was sent; with 0 there are none."""
        self._database = database
        self._minutes = minutes
        self._clock = clock
        self._key: bytes | None = None

    def prepare(self) -> None:
        """Read the key, or make it where this database has none yet. `address` reads no database after this."""
        if self._minutes and self._known_key() is None:
            with suppress(RecordRefused), self._database.transaction() as tx:  # another server may be faster
                KeyRepository(tx).add(_NAME, secrets.token_bytes(_KEY_BYTES), now=self._clock())
            self._known_key()

    def address(self, photo: ModerationPhoto) -> str | None:
        """Where its shopper sees the photo; None for a refused one, after its time, and where previews are off.

        The same for each call, so that a repeated request gets the same answer.
        """
        ends = photo.created_at + timedelta(minutes=self._minutes)
        if photo.state not in PREVIEWED or ends <= self._clock() or (key := self._known_key()) is None:
            return None
        expires = str(int(ends.timestamp()))
        return f"/media/{photo.id}?w=320&preview={expires}.{_signature(key, photo.id, expires)}"

    def opens(self, photo_id: str, preview: str) -> bool:
        """Whether `preview` was signed here for this photo and its time is not over."""
        expires, _, signature = preview.partition(".")
        if not (self._minutes and preview.isascii() and expires.isdecimal() and len(expires) <= _MOST_DIGITS):
            return False
        if (key := self._known_key()) is None:
            return False
        signed = hmac.compare_digest(signature.encode(), _signature(key, photo_id, expires).encode())
        return signed and self._clock() < datetime.fromtimestamp(int(expires), UTC)

    def _known_key(self) -> bytes | None:
        if self._key is None:
            with self._database.reading() as tx:
                self._key = KeyRepository(tx).get(_NAME)
        return self._key


def _signature(key: bytes, photo_id: str, expires: str) -> str:
    signed = hmac.digest(key, f"{_NAME} {photo_id} {expires}".encode(), "sha256")
    return base64.urlsafe_b64encode(signed).rstrip(b"=").decode()
