"""Receive the photo of a request: multipart, raw bytes or JSON with base64, within byte, time and memory bounds."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from shoplens.errors import ImageMissing, ImageTooLarge, QueueFull, RequestInvalid, UploadTooSlow

FILE_FIELD = "file"
JSON_FIELD = "image"
_FRAMING_BYTES = 64 * 1024
_RETRY_AFTER_S = 1.0
_MAX_PARTS = 100


class Uploads:
    """The bodies in flight. One more than fits into `max_queued_bytes` is refused before it is read."""

    def __init__(self, *, max_image_bytes: int, max_queued_bytes: int, timeout_s: float) -> None:
        self._max_image_bytes = max_image_bytes
        self._free_bytes = max_queued_bytes
        self._timeout_s = timeout_s

    @contextmanager
    def admit(self, request: Request) -> Iterator[int]:
        """Reserve room for the body and give the most bytes that it may have. Raises ImageTooLarge, QueueFull."""
        most = self._most_bytes(request.headers.get("content-type", ""))
        announced = _content_length(request)
        if announced is not None and announced > most:
            raise self._too_large()
        reserved = most if announced is None else announced
        if reserved > self._free_bytes:
            raise QueueFull("Too many uploads are in flight. Try again in a second.", retry_after_s=_RETRY_AFTER_S)
        self._free_bytes -= reserved
        try:
            yield reserved
        finally:
            self._free_bytes += reserved

    async def read(self, request: Request, most: int) -> bytes:
        """The photo's bytes. Raises ImageMissing, ImageTooLarge, RequestInvalid and UploadTooSlow."""
        try:
            async with asyncio.timeout(self._timeout_s):
                body = await self._body(request, most)
        except TimeoutError as error:
            raise UploadTooSlow(f"The upload did not arrive within {self._timeout_s:g} s.") from error
        photo = photo_in(body, request.headers.get("content-type", ""))
        if len(photo) > self._max_image_bytes:
            raise self._too_large()
        return photo

    async def _body(self, request: Request, most: int) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > most:
                raise self._too_large()
            chunks.append(chunk)
        return b"".join(chunks)

    def _most_bytes(self, content_type: str) -> int:
        """Base64 is a third longer than what it carries, and forms have a frame around it."""
        is_json = _media_type(content_type) == "application/json"
        return self._max_image_bytes * (4 if is_json else 3) // 3 + _FRAMING_BYTES

    def _too_large(self) -> ImageTooLarge:
        return ImageTooLarge(f"The photo has more than {self._max_image_bytes:,} bytes, which is the limit here.")


def photo_in(body: bytes, content_type: str) -> bytes:
    """The photo in a request body, told by the content type; anything but a form or JSON is the photo itself."""
    match _media_type(content_type):
        case "multipart/form-data":
            return _photo_in_form(body, content_type)
        case "application/json":
            return _photo_in_json(body)
        case _:
            return body


def _photo_in_form(body: bytes, content_type: str) -> bytes:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise RequestInvalid("The multipart content type names no boundary; let your HTTP client set it.")
    form = _Form(body)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestInvalid(f"The multipart body cannot be read: {error}.") from error
    if form.photo is None:
        raise ImageMissing(f"The form has no field {FILE_FIELD!r} with the photo: curl -F {FILE_FIELD}=@photo.jpg …")
    return form.photo


class _Form:
    """Finds the field with the photo among the parts of a form that is wholly in memory."""

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._parts = 0
        self._header = b""
        self._value = b""
        self._name: bytes | None = None
        self._slices: list[bytes] = []
        self._complete = False
        self.photo: bytes | None = None

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._on_part,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
        }

    def _on_part(self) -> None:
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise RequestInvalid(f"The form has more than {_MAX_PARTS} parts.")
        self._name = None
        self._slices = []

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._name = parse_options_header(self._value)[1].get(b"name")
        self._header = self._value = b""

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE_FIELD.encode():
            self._slices.append(data[start:end])

    def _on_part_end(self) -> None:
        if self._name == FILE_FIELD.encode() and self.photo is None:
            self.photo = self._slices[0] if len(self._slices) == 1 else b"".join(self._slices)


def _photo_in_json(body: bytes) -> bytes:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestInvalid(f"The body is not JSON: {error}.") from error
    text = document.get(JSON_FIELD) if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise ImageMissing(f'The JSON body needs the photo as base64 text: {{"{JSON_FIELD}": "…"}}.')
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise RequestInvalid(f"The field {JSON_FIELD!r} is not valid base64: {error}.") from error


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _content_length(request: Request) -> int | None:
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
