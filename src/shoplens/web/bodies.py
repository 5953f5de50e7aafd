"""Bound what a request sends: the bytes of its body, the pauses between them and their rate, whatever reads it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import humanize
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message, Receive

from shoplens.errors import BodyTooLarge, BodyUnsupported, RequestMalformed, ShoplensError, UploadTooSlow
from shoplens.messages import marked

SMALL_BODY_BYTES: Final = 64 * 1024
"""The longest body where no photo is taken."""

_MAX_CONTENT_TYPE: Final = 1_000
_TEXT_TYPES: Final = ("multipart/", "application/x-www-form-urlencoded", "application/json")
_CHARSET: Final = re.compile(r'charset\s*=\s*"?([^";]*)', re.IGNORECASE)
_UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadPace:
    """The longest pause of a client within its body, and the least rate of the whole in bytes per second."""

    idle_s: float
    least_rate: float


class RequestBody:
    """The body of one request as it arrives; takes the place of the server's `receive`.

    It is bounded to `SMALL_BODY_BYTES` until `allow` is called. Only the time in which the client is waited for
    counts for its pace.
    """

    def __init__(self, receive: Receive, headers: Headers, pace: UploadPace) -> None:
        self._receive = receive
        self._pace = pace
        self._length = content_length(headers)
        self._max_bytes = SMALL_BODY_BYTES
        self._too_large: Callable[[int | None], ShoplensError] = _body_too_large
        self._received = 0
        self._waited_s = 0.0
        self._complete = False

    def allow(self, max_bytes: int, too_large: Callable[[int | None], ShoplensError]) -> None:
        """Take up to `max_bytes`; more raises `too_large` of the announced length, or of None where it is unknown."""
        self._max_bytes, self._too_large = max_bytes, too_large

    async def receive(self) -> Message:
        """The next message. Raises the error for a body that is too large, and UploadTooSlow."""
        if self._complete:
            return await self._receive()
        if self._length is not None and self._length > self._max_bytes:
            raise self._too_large(self._length)
        message = await self._next()
        if message["type"] == "http.request":
            self._received += len(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            if self._received > self._max_bytes:
                raise self._too_large(None)
        return message

    async def _next(self) -> Message:
        """Wait as long as the pace allows: the first `idle_s` seconds are free of the rate."""
        pace = self._pace
        left_s = pace.idle_s + self._received / pace.least_rate - self._waited_s
        started = time.monotonic()
        try:
            async with asyncio.timeout(min(pace.idle_s, left_s)):
                return await self._receive()
        except TimeoutError as error:
            slow = humanize.naturalsize(pace.least_rate, format="%.3g")
            raise UploadTooSlow(
                f"The upload was too slow: a pause of more than {pace.idle_s:g} s, or less than {slow} per second. "
                "Check your connection or send a smaller photo."
            ) from error
        finally:
            self._waited_s += time.monotonic() - started


def body_of(request: Request) -> RequestBody:
    """The body of a request that passed the middleware."""
    body: RequestBody = request.scope["state"]["body"]
    return body


def content_length(headers: Headers) -> int | None:
    """The announced length of the body in bytes; None where there is none or it is not a number."""
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None


def require_utf_8(headers: Headers) -> None:
    """Raises BodyUnsupported for a form or JSON in another encoding.

    Python decodes by whatever codec a request names, and some need time with the square of the length.
    """
    content_type = headers.get("content-type", "")
    if len(content_type) > _MAX_CONTENT_TYPE:
        raise RequestMalformed(f"The header Content-Type has more than {_MAX_CONTENT_TYPE} characters.")
    if not content_type.strip().lower().startswith(_TEXT_TYPES):
        return
    for charset in _CHARSET.findall(content_type):
        if charset.strip().lower() not in _UTF_8:
            raise BodyUnsupported(f"The encoding {charset[:40]!r} is not supported. Send forms and JSON in UTF-8.")


def _body_too_large(byte_count: int | None) -> BodyTooLarge:
    limit = humanize.naturalsize(SMALL_BODY_BYTES, format="%.3g")
    size = "" if byte_count is None else marked(f" has {humanize.naturalsize(byte_count, format='%.3g')} and")
    return BodyTooLarge(f"The body of this request{size} exceeds the limit of {limit}.")
