"""Receive what a request uploads: one photo (multipart, raw bytes or JSON with base64), or a form with files.

Byte limits are counted while the body arrives, so nothing larger is ever held. A body that would exceed the
limit is refused before it is read where its length is announced.
"""

from __future__ import annotations

import asyncio
import binascii
import math
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final

import humanize
import orjson
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from shoplens.errors import ImageMissing, ImageTooLarge, QueueFull, RequestInvalid, UploadTooSlow

FILE_FIELD: Final = "file"
JSON_FIELD: Final = "image"
FORM_FRAMING_BYTES: Final = 64 * 1024
"""How much longer than its photo a form may be: boundaries, headers and short fields."""

_MAX_PARTS: Final = 100
_MAX_SPOOLED_FORMS: Final = 4
_RETRY_PHOTO_S: Final = 1.0
_RETRY_FORM_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedForm:
    """A received form: its files (on disk where they are large) and its text fields."""

    files: Sequence[UploadFile]
    fields: Mapping[str, str]


class Uploads:
    """Receives request bodies; one instance per server, so that its bounds hold for all routes together.

    `photo` keeps bodies in memory, at most `max_queued_bytes` of them at once. `form` spools files to disk and
    accepts four forms at once. `timeout_s` is the time that a body of `max_image_bytes` may take; larger forms get
    a multiple of it.
    """

    def __init__(self, *, max_image_bytes: int, max_queued_bytes: int, timeout_s: float) -> None:
        self._max_image_bytes = max_image_bytes
        self._free_bytes = max_queued_bytes
        self._free_forms = _MAX_SPOOLED_FORMS
        self._timeout_s = timeout_s

    @asynccontextmanager
    async def photo(self, request: Request) -> AsyncIterator[bytes]:
        """The photo in the request. Its memory counts as used until the block ends.

        Raises ImageMissing, ImageTooLarge, QueueFull, RequestInvalid and UploadTooSlow.
        """
        media_type = media_type_of(request)
        is_json = media_type == "application/json"
        max_bytes = self._max_image_bytes * (4 if is_json else 3) // 3 + FORM_FRAMING_BYTES  # base64 grows by a third
        too_large = partial(photo_too_large, limit=self._max_image_bytes)
        length = content_length_of(request)
        if length is not None and length > max_bytes:
            raise too_large(length * 3 // 4 if is_json else length)
        reserved = max_bytes if length is None else length
        if reserved > self._free_bytes:
            raise QueueFull(
                f"The server is receiving too many uploads. Try again in {_RETRY_PHOTO_S:g} s.",
                retry_after_s=_RETRY_PHOTO_S,
            )
        self._free_bytes -= reserved
        try:
            body = _body(request, max_bytes, too_large)
            async with _time_limit(self._timeout_s):
                if media_type == "multipart/form-data":
                    photo = await _photo_in_form(request, body)
                else:
                    photo = b"".join([chunk async for chunk in body])
            if is_json:
                photo = photo_in_json(photo)
            if len(photo) > self._max_image_bytes:
                raise too_large(len(photo))
            yield photo
        finally:
            self._free_bytes += reserved

    @asynccontextmanager
    async def form(
        self, request: Request, *, max_bytes: int, max_files: int, max_fields: int
    ) -> AsyncIterator[UploadedForm]:
        """A multipart form with any number of files in the field `file`, open until the block ends.

        `max_bytes` bounds the whole form. Files above one megabyte are on disk.

        Raises ImageTooLarge, QueueFull, RequestInvalid and UploadTooSlow. Does not check single files.
        """
        length = content_length_of(request)
        if length is not None and length > max_bytes:
            raise form_too_large(length, max_bytes)
        if self._free_forms == 0:
            raise QueueFull(
                f"The server is receiving too many forms. Try again in {_RETRY_FORM_S:g} s.",
                retry_after_s=_RETRY_FORM_S,
            )
        full_images = ((length or max_bytes) - FORM_FRAMING_BYTES) / self._max_image_bytes
        self._free_forms -= 1
        try:
            body = _body(request, max_bytes, partial(form_too_large, limit=max_bytes))
            async with _time_limit(self._timeout_s * max(1, math.ceil(full_images))):
                form = await _read_form(request, body, max_files=max_files, max_fields=max_fields)
            try:
                yield UploadedForm(
                    files=[each for each in form.getlist(FILE_FIELD) if isinstance(each, UploadFile)],
                    fields={name: value for name, value in form.items() if isinstance(value, str)},
                )
            finally:
                await form.close()
        finally:
            self._free_forms += 1


@asynccontextmanager
async def _time_limit(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UploadTooSlow(
            f"The upload timed out after {seconds:g} s. Check your connection or send a smaller photo."
        ) from error


async def _body(
    request: Request, max_bytes: int, too_large: Callable[[int | None], ImageTooLarge]
) -> AsyncGenerator[bytes, None]:
    """The chunks of the body; raises `too_large` as soon as they exceed `max_bytes`."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_bytes:
            raise too_large(None)
        yield chunk


class _FormParser(MultiPartParser):
    """Notes whether the form has ended: Starlette's parser would drop its last part and leave a file open."""

    ended = False

    def on_end(self) -> None:
        """Called at the closing boundary."""
        self.ended = True


async def _read_form(
    request: Request, body: AsyncGenerator[bytes, None], *, max_files: int, max_fields: int, in_memory: bool = False
) -> FormData:
    """The fields of a form, which the caller closes. Raises RequestInvalid, and ImageMissing where it ends early.

    With `in_memory` files of any size stay in memory: the caller has reserved it.
    """

    async def whole() -> AsyncGenerator[bytes, None]:
        async for chunk in body:
            yield chunk
        if not parser.ended:
            raise ImageMissing("The form is incomplete. Upload it again.")

    parser = _FormParser(request.headers, whole(), max_files=max_files, max_fields=max_fields)
    if in_memory:
        parser.spool_max_size = sys.maxsize
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise RequestInvalid(f"The form cannot be read: {error.message}") from error


async def _photo_in_form(request: Request, body: AsyncGenerator[bytes, None]) -> bytes:
    """The first file in the field `file`. Raises ImageMissing where there is none."""
    form = await _read_form(request, body, max_files=_MAX_PARTS, max_fields=_MAX_PARTS, in_memory=True)
    try:
        for value in form.getlist(FILE_FIELD):
            if isinstance(value, UploadFile):
                return await value.read()
    finally:
        await form.close()
    raise ImageMissing(f"The form has no file in the field {FILE_FIELD!r}. Send: curl -F {FILE_FIELD}=@photo.jpg …")


def photo_too_large(byte_count: int | None, limit: int) -> ImageTooLarge:
    """The error for a photo of this size, or of an unknown one that exceeds the limit."""
    allowed = humanize.naturalsize(limit, format="%.3g")
    size = None if byte_count is None else humanize.naturalsize(byte_count, format="%.3g")
    if size is None or size == allowed:
        return ImageTooLarge(f"This photo is larger than the limit of {allowed}.")
    return ImageTooLarge(f"This photo is {size}. The limit is {allowed}.")


def form_too_large(byte_count: int | None, limit: int) -> ImageTooLarge:
    """The error for a form with several photos."""
    size = "" if byte_count is None else f" of {humanize.naturalsize(byte_count, format='%.3g')}"
    allowed = humanize.naturalsize(limit, format="%.3g")
    return ImageTooLarge(f"This upload{size} exceeds the limit of {allowed}. Send fewer photos at once.")


def photo_in_json(body: bytes) -> bytes:
    """The photo in `{"image": "<base64 or data: URL>"}`. Raises ImageMissing and RequestInvalid."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestInvalid(f"The body is not valid JSON: {error}.") from error
    text = document.get(JSON_FIELD) if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise ImageMissing(f'The JSON body has no photo. Send it as base64 text: {{"{JSON_FIELD}": "…"}}.')
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise RequestInvalid(f"The field {JSON_FIELD!r} is not valid base64: {error}.") from error


def media_type_of(request: Request) -> str:
    """The content type in lower case, without parameters; "" where there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def content_length_of(request: Request) -> int | None:
    """The announced length of the body in bytes; None where there is none or it is not a number."""
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
