"""Receive photos of returned goods as one multipart form: many files, bounded in number, bytes and time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from shoplens.batch.entities import References
from shoplens.errors import ImageMissing, ImageTooLarge, QueueFull, RequestInvalid, UploadTooSlow
from shoplens.web.uploads import FILE_FIELD

MOST_FILES: Final = 500
_REFERENCES: Final = ("item", "order", "reason")
_LONGEST_REFERENCE: Final = 1_000
_MOST_FORMS_AT_ONCE: Final = 4
_RETRY_AFTER_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SentPhotos:
    """The files of a form, on disk while they are large, and what the sender calls the returned things."""

    files: Sequence[UploadFile]
    references: References


class PhotoForms:
    """`max_body_bytes` bounds a whole form; `timeout_s` is for each `max_image_bytes` of it."""

    def __init__(self, *, max_body_bytes: int, max_image_bytes: int, timeout_s: float) -> None:
        self._max_body_bytes = max_body_bytes
        self._max_image_bytes = max_image_bytes
        self._timeout_s = timeout_s
        self._free = _MOST_FORMS_AT_ONCE

    @asynccontextmanager
    async def receive(self, request: Request) -> AsyncIterator[SentPhotos]:
        """The photos of a form, as long as the block lasts.

        Raises ImageMissing, ImageTooLarge, QueueFull, RequestInvalid and UploadTooSlow.
        """
        announced = request.headers.get("content-length", "")
        length = int(announced) if announced.isascii() and announced.isdigit() else self._max_body_bytes
        if length > self._max_body_bytes:
            raise self._too_large()
        with self._admit():
            form = await self._read(request, timeout_s=self._timeout_s * math.ceil(length / self._max_image_bytes))
            try:
                yield _photos_in(form)
            finally:
                await form.close()

    @contextmanager
    def _admit(self) -> Iterator[None]:
        if self._free == 0:
            raise QueueFull("Too many forms with photos are being sent. Try again.", retry_after_s=_RETRY_AFTER_S)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1

    async def _read(self, request: Request, *, timeout_s: float) -> FormData:
        bounded = Request(request.scope, self._counted(request.receive))
        try:
            async with asyncio.timeout(timeout_s):
                return await bounded.form(max_files=MOST_FILES, max_fields=len(_REFERENCES))
        except TimeoutError as error:
            raise UploadTooSlow(f"The photos did not arrive within {timeout_s:g} s.") from error
        except HTTPException as error:
            raise RequestInvalid(f"The form cannot be read: {error.detail}") from error

    def _counted(self, receive: Receive) -> Receive:
        seen = 0

        async def counting() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._max_body_bytes:
                raise self._too_large()
            return message

        return counting

    def _too_large(self) -> ImageTooLarge:
        return ImageTooLarge(f"The form has more than {self._max_body_bytes:,} bytes; send fewer photos at once.")


def has_form(request: Request) -> bool:
    """Whether a form comes with the request. Raises RequestInvalid for a body of another kind."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() == "multipart/form-data":
        return True
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        raise RequestInvalid(
            f"Send photos as a form, curl -F {FILE_FIELD}=@photo.jpg …, or nothing, to have the usual source looked at."
        )
    return False


def _photos_in(form: FormData) -> SentPhotos:
    files = [value for value in form.getlist(FILE_FIELD) if isinstance(value, UploadFile)]
    if not files:
        raise ImageMissing(f"The form has no field {FILE_FIELD!r} with a photo: curl -F {FILE_FIELD}=@photo.jpg …")
    item, order, reason = (_reference(form, name) for name in _REFERENCES)
    return SentPhotos(files=files, references=References(item=item, order=order, reason=reason))


def _reference(form: FormData, name: str) -> str | None:
    value = form.get(name)
    text = value.replace("\x00", "").strip() if isinstance(value, str) else ""
    if len(text) > _LONGEST_REFERENCE:
        raise RequestInvalid(f"The field {name!r} has more than {_LONGEST_REFERENCE} characters.")
    return text or None
