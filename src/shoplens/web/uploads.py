"""Receive what a request uploads: one photo (multipart, raw bytes or JSON with base64), or a form with files.

Byte limits are counted while the body arrives, so nothing larger is ever held. A body that would exceed the
limit is refused before it is read where its length is announced.
"""

from __future__ import annotations

import asyncio
import binascii
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Final
from urllib.parse import unquote

import humanize
import msgspec
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from shoplens.advice import meant
from shoplens.errors import ImageMissing, ImageTooLarge, RequestInvalid
from shoplens.messages import marked
from shoplens.texts.cleaning import DESCRIPTION_CHARACTERS, TITLE_CHARACTERS, clean
from shoplens.web.bodies import SMALL_BODY_BYTES, body_of, content_length
from shoplens.web.shares import ClientRate, ClientShares, address_of

FILE_FIELD: Final = "file"
TEXT_FIELD: Final = "text"
URL_FIELD: Final = "url"
JSON_FIELD: Final = "image"
FORM_FRAMING_BYTES: Final = 64 * 1024
"""How much longer than its photo a form may be: boundaries, headers and short fields."""

_MAX_PARTS: Final = 100
_MAX_SPOOLED_FORMS: Final = 16
_RETRY_PHOTO_S: Final = 1.0
_RETRY_FORM_S: Final = 2.0

_JSON_HINT: Final = f'The JSON body has no photo. Send it as base64 text: {{"{JSON_FIELD}": "…"}}.'
_JSON_HEAD: Final = re.compile(rb'\s{0,99}\{\s{0,99}"image"\s{0,99}:\s{0,99}"(?:data:[^",]{0,999},)?')
_JSON_TAIL: Final = re.compile(rb'"\s{0,99}\}\s{0,99}\Z')
_JSON_TAIL_BYTES: Final = 200
_BASE64_PIECE: Final = 256 * 1024
_UNKNOWN_FIELD: Final = re.compile("unknown field `(.+)`", re.DOTALL)
_MAX_URL_CHARACTERS: Final = 2_000
_MAX_TEXT_BYTES: Final = 5_000_000
"""Of a text in JSON; it is cut to its length when it is cleaned."""


FetchPhoto = Callable[[str], Awaitable[bytes]]
"""Fetches the photo at an address that a request names."""


class _PhotoDocument(msgspec.Struct):
    image: str


class _UrlDocument(msgspec.Struct, forbid_unknown_fields=True):
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedForm:
    """A received form: its files (on disk where they are large) and its text fields."""

    files: Sequence[UploadFile]
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedSample:
    """A photo, a text, or both; the text is cleaned, "" without one.

    `file_name` is that of a form or an address, as it was sent. `url` is the address from which the photo is fetched.
    """

    photo: bytes | None
    text: str = ""
    file_name: str | None = None
    url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedPhotos:
    """Several photos in memory, and the text fields beside them."""

    photos: Sequence[bytes]
    fields: Mapping[str, str]


class Uploads:
    """Receives request bodies; one instance per server, so that its bounds hold for all routes together.

    `sample` keeps bodies in memory, at most `max_queued_bytes` of them at once. `form` spools files to disk and
    accepts sixteen forms at once. One address may hold at most half of the bytes, but always one photo, and a quarter
    of the forms.
    """

    def __init__(self, *, max_image_bytes: int, max_queued_bytes: int, uploads_per_minute: int | None = None) -> None:
        self._max_image_bytes = max_image_bytes
        self._bytes = ClientShares(
            max_queued_bytes,
            largest_share=max(max_queued_bytes // 2, _longest_body(max_image_bytes, is_json=True)),
            what="uploads",
            retry_after_s=_RETRY_PHOTO_S,
        )
        self._forms = ClientShares(
            _MAX_SPOOLED_FORMS, largest_share=_MAX_SPOOLED_FORMS // 4, what="forms", retry_after_s=_RETRY_FORM_S
        )
        self._rate = ClientRate(uploads_per_minute)

    @asynccontextmanager
    async def photo(self, request: Request) -> AsyncIterator[bytes]:
        """The photo in the request. Raises as `sample`, and ImageMissing for a text without a photo."""
        async with self.sample(request) as sample:
            if sample.photo is None:
                raise no_file()
            yield sample.photo

    @asynccontextmanager
    async def sample(self, request: Request, *, fetch: FetchPhoto | None = None) -> AsyncIterator[UploadedSample]:
        """The photo in the request, and the text in a form. Its memory counts as used until the block ends.

        With `fetch` a form or JSON may have the address of a photo in its place. Raises ImageMissing, ImageTooLarge,
        QueueFull, RequestInvalid, UploadTooSlow, and what `fetch` raises.
        """
        media_type = media_type_of(request)
        is_json = media_type == "application/json"
        max_bytes = _longest_body(self._max_image_bytes, is_json=is_json)
        length = content_length(request.headers)
        if length is not None and length > max_bytes:
            raise photo_too_large(length * 3 // 4 if is_json else length, self._max_image_bytes)
        address = address_of(request)
        self._rate.require(address)
        with ExitStack() as held:
            held.enter_context(self._bytes.held(address, max_bytes if length is None else length))
            body_of(request).allow(max_bytes, partial(photo_too_large, limit=self._max_image_bytes))
            if media_type == "multipart/form-data":
                sample = await _sample_in_form(request)
            else:
                body = b"".join([chunk async for chunk in request.stream()])
                # JSON on a thread and in pieces: 27 MB would keep the event loop for 100 ms.
                sample = await asyncio.to_thread(_sample_in_json, body) if is_json else UploadedSample(photo=body)
            if sample.url is not None:
                if fetch is None:
                    raise no_file()
                held.enter_context(self._bytes.held(address, self._max_image_bytes))
                sample = replace(sample, photo=await fetch(sample.url))
            if sample.photo is not None and len(sample.photo) > self._max_image_bytes:
                raise photo_too_large(len(sample.photo), self._max_image_bytes)
            yield sample

    @asynccontextmanager
    async def photos(self, request: Request, *, most: int, max_fields: int) -> AsyncIterator[UploadedPhotos]:
        """The photos in the field `file` of a multipart form. Their memory counts as used until the block ends.

        Raises ImageMissing without one, ImageTooLarge, QueueFull, RequestInvalid and UploadTooSlow.
        """
        if media_type_of(request) != "multipart/form-data":
            raise ImageMissing(
                f"Send a multipart form with photos in the field {FILE_FIELD!r}: curl -F {FILE_FIELD}=@photo.jpg …"
            )
        max_bytes = min(most * self._max_image_bytes + FORM_FRAMING_BYTES, self._bytes.largest_share)
        length = content_length(request.headers)
        if length is not None and length > max_bytes:
            raise form_too_large(length, max_bytes)
        address = address_of(request)
        self._rate.require(address)
        with self._bytes.held(address, max_bytes if length is None else length):
            body_of(request).allow(max_bytes, partial(form_too_large, limit=max_bytes))
            form = await _read_form(request, max_files=most, max_fields=max_fields, in_memory=True)
            try:
                found = [await each.read() for each in form.getlist(FILE_FIELD) if isinstance(each, UploadFile)]
                fields = {name: value for name, value in form.items() if isinstance(value, str)}
            finally:
                await form.close()
            if not found:
                raise ImageMissing(f"The form has no file in the field {FILE_FIELD!r}.")
            yield UploadedPhotos(photos=found, fields=fields)

    @asynccontextmanager
    async def texts_and_photos(
        self, request: Request, *, most: int, fields: frozenset[str]
    ) -> AsyncIterator[UploadedPhotos]:
        """Texts with up to `most` photos, or none: a multipart form, or JSON with `photos` as a list of base64 texts.

        `fields` are the texts that are known; JSON may not hold others. A JSON body is at most as long as one photo of
        the largest size needs. Raises ImageMissing, ImageTooLarge, QueueFull, RequestInvalid and UploadTooSlow.
        """
        is_json = media_type_of(request) == "application/json"
        if not is_json and media_type_of(request) != "multipart/form-data":
            raise RequestInvalid(
                f"Send JSON ({', '.join(sorted(fields))}, photos), or a multipart form with photos in {FILE_FIELD!r}."
            )
        max_bytes = (
            _longest_body(self._max_image_bytes, is_json=is_json)
            if is_json or most == 1
            else (min(most * self._max_image_bytes + FORM_FRAMING_BYTES, self._bytes.largest_share))
        )
        length = content_length(request.headers)
        if length is not None and length > max_bytes:
            raise form_too_large(length, max_bytes)
        address = address_of(request)
        self._rate.require(address)
        with self._bytes.held(address, max_bytes if length is None else length):
            body_of(request).allow(max_bytes, partial(form_too_large, limit=max_bytes))
            if is_json:
                body = b"".join([chunk async for chunk in request.stream()])
                sample = await asyncio.to_thread(texts_in_json, body, fields=fields, most=most)
            else:
                sample = await _fields_in_form(request, most)
            for photo in sample.photos:
                if len(photo) > self._max_image_bytes:
                    raise photo_too_large(len(photo), self._max_image_bytes)
            yield sample

    @asynccontextmanager
    async def form(
        self, request: Request, *, max_bytes: int, max_files: int, max_fields: int
    ) -> AsyncIterator[UploadedForm]:
        """A multipart form with any number of files in the field `file`, open until the block ends.

        `max_bytes` bounds the whole form. Files above one megabyte are on disk.

        Raises ImageTooLarge, QueueFull, RequestInvalid and UploadTooSlow. Does not check single files.
        """
        if media_type_of(request) != "multipart/form-data":
            raise RequestInvalid(
                f"Send a multipart form with files in the field {FILE_FIELD!r}: curl -F {FILE_FIELD}=@…"
            )
        length = content_length(request.headers)
        if length is not None and length > max_bytes:
            raise form_too_large(length, max_bytes)
        address = address_of(request)
        self._rate.require(address)
        with self._forms.held(address, 1):
            body_of(request).allow(max_bytes, partial(form_too_large, limit=max_bytes))
            form = await _read_form(request, max_files=max_files, max_fields=max_fields)
            try:
                yield UploadedForm(
                    files=[each for each in form.getlist(FILE_FIELD) if isinstance(each, UploadFile)],
                    fields={name: value for name, value in form.items() if isinstance(value, str)},
                )
            finally:
                await form.close()


def _longest_body(max_image_bytes: int, *, is_json: bool) -> int:
    """Base64 grows by a third."""
    return max_image_bytes * (4 if is_json else 3) // 3 + FORM_FRAMING_BYTES


class _FormParser(MultiPartParser):
    """Notes whether the form has ended: Starlette's parser would drop its last part and leave a file open."""

    ended = False

    def on_end(self) -> None:
        """Called at the closing boundary."""
        self.ended = True


async def _read_form(request: Request, *, max_files: int, max_fields: int, in_memory: bool = False) -> FormData:
    """The fields of a form, which the caller closes. Raises RequestInvalid, and ImageMissing where it ends early.

    With `in_memory` files of any size stay in memory: the caller has reserved it.
    """

    async def whole() -> AsyncGenerator[bytes, None]:
        async for chunk in request.stream():
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


async def _sample_in_form(request: Request) -> UploadedSample:
    """The first file in the field `file`, or the address in `url`, and the field `text`.

    Raises ImageMissing where there is none of them.
    """
    form = await _read_form(request, max_files=_MAX_PARTS, max_fields=_MAX_PARTS, in_memory=True)
    try:
        texts = [value for value in form.getlist(TEXT_FIELD) if isinstance(value, str)]
        title, _, description = (texts[0] if texts else "").strip().partition("\n")
        text = f"{clean(title, TITLE_CHARACTERS)}\n{clean(description, DESCRIPTION_CHARACTERS)}".strip()
        urls = [value.strip() for value in form.getlist(URL_FIELD) if isinstance(value, str) and value.strip()]
        for value in form.getlist(FILE_FIELD):
            if isinstance(value, UploadFile) and (value.size or not urls):
                if urls:
                    raise RequestInvalid("Send a photo or the address of one, not both.")
                return UploadedSample(photo=await value.read(), text=text, file_name=value.filename)
        if urls:
            return _named_by(urls[0], text)
    finally:
        await form.close()
    if not texts:
        raise no_file()
    return UploadedSample(photo=None, text=text)


def _named_by(url: str, text: str = "") -> UploadedSample:
    """A sample whose photo is still to be fetched. Raises RequestInvalid for an endless address."""
    if len(url) > _MAX_URL_CHARACTERS:
        raise RequestInvalid(f"The address has more than {_MAX_URL_CHARACTERS:,} characters.")
    return UploadedSample(photo=None, text=text, url=url, file_name=unquote(url.partition("?")[0]))


def _sample_in_json(body: bytes) -> UploadedSample:
    """The photo in `image`, or its address in `url`. Raises ImageMissing and RequestInvalid."""
    if len(body) <= SMALL_BODY_BYTES:
        with suppress(msgspec.ValidationError, msgspec.DecodeError, UnicodeError):
            return _named_by(msgspec.json.decode(body, type=_UrlDocument).url)
    return UploadedSample(photo=photo_in_json(body))


def no_file() -> ImageMissing:
    """The error for a form without a photo."""
    return ImageMissing(f"The form has no file in the field {FILE_FIELD!r}. Send: curl -F {FILE_FIELD}=@photo.jpg …")


async def _fields_in_form(request: Request, most: int) -> UploadedPhotos:
    """All files in the field `file`, and the text fields."""
    form = await _read_form(request, max_files=most, max_fields=_MAX_PARTS, in_memory=True)
    try:
        # A browser sends an empty file for a field that was left empty.
        found = [await each.read() for each in form.getlist(FILE_FIELD) if isinstance(each, UploadFile) and each.size]
        return UploadedPhotos(
            photos=found, fields={name: value for name, value in form.items() if isinstance(value, str)}
        )
    finally:
        await form.close()


def texts_in_json(body: bytes, *, fields: frozenset[str], most: int) -> UploadedPhotos:
    """The texts and photos of a JSON object. Raises RequestInvalid.

    The parser only finds where each field begins and ends, so that no document, however it is nested or filled, becomes
    millions of objects.
    """
    try:
        document = msgspec.json.decode(body, type=_document_of(fields))
        texts = {name: _text_in(name, getattr(document, name)) for name in sorted(fields)}
        photos = _photos_in(bytes(document.photos), most)
    except msgspec.ValidationError as error:
        if unknown := _UNKNOWN_FIELD.search(str(error)):
            name = unknown[1][:80]
            raise RequestInvalid(f"There is no field {name!r}{meant(name, {*fields, 'photos'})}.") from error
        raise RequestInvalid(f"The body is not a JSON object: {str(error)[:200]}.") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise RequestInvalid(f"The body is not a JSON object: {error}.") from error
    return UploadedPhotos(photos=photos, fields={name: text for name, text in texts.items() if text is not None})


@cache
def _document_of(fields: frozenset[str]) -> type[Any]:
    """An object with these fields and `photos`, none of which is read yet."""
    missing = msgspec.Raw(b"null")
    named: list[Any] = [(name, msgspec.Raw, missing) for name in (*sorted(fields), "photos")]
    return msgspec.defstruct("Document", named, forbid_unknown_fields=True)


def _text_in(name: str, value: msgspec.Raw) -> str | None:
    if len(value) > _MAX_TEXT_BYTES:
        raise RequestInvalid(f"The field {name!r} has more than {_MAX_TEXT_BYTES:,} bytes.")
    try:
        return msgspec.json.decode(value, type=str | None)
    except msgspec.ValidationError as error:
        raise RequestInvalid(f"The field {name!r} must be a text.") from error


def _photos_in(value: bytes, most: int) -> list[bytes]:
    """The photos of a JSON list of base64 texts, null for none."""
    if value.count(b",") > 2 * most:  # base64 has no comma, and a `data:` URL has one
        raise RequestInvalid(f"There are too many photos; at most {most} may be sent.")
    try:
        texts = msgspec.json.decode(value, type=list[str] | None) or []
    except msgspec.ValidationError as error:
        raise RequestInvalid("The field 'photos' must be a list of base64 texts.") from error
    if len(texts) > most:
        raise RequestInvalid(f"There are {len(texts)} photos; at most {most} may be sent.")
    return [_photo_of(each.encode()) for each in texts]


def _photo_of(text: bytes) -> bytes:
    """The photo in a base64 text or `data:` URL, in pieces, so that other threads run between them."""
    start = text.find(b",") + 1 if text.startswith(b"data:") else 0
    pieces = range(start, len(text), _BASE64_PIECE)
    photo = [_decoded(text[at : at + _BASE64_PIECE], after_padding=False, field="photos") for at in pieces]
    return b"".join(photo)


def photo_too_large(byte_count: int | None, limit: int) -> ImageTooLarge:
    """The error for a photo of this size, or of an unknown one that exceeds the limit."""
    allowed = humanize.naturalsize(limit, format="%.3g")
    size = None if byte_count is None else humanize.naturalsize(byte_count, format="%.3g")
    if size is None or size == allowed:
        return ImageTooLarge(f"This photo is larger than the limit of {allowed}.")
    return ImageTooLarge(f"This photo is {size}. The limit is {allowed}.")


def form_too_large(byte_count: int | None, limit: int) -> ImageTooLarge:
    """The error for a form with several photos."""
    size = "" if byte_count is None else marked(f" of {humanize.naturalsize(byte_count, format='%.3g')}")
    allowed = humanize.naturalsize(limit, format="%.3g")
    return ImageTooLarge(f"This upload{size} exceeds the limit of {allowed}. Send fewer photos at once.")


def photo_in_json(body: bytes) -> bytes:
    """The photo in `{"image": "<base64 or data: URL>"}`. Raises ImageMissing and RequestInvalid.

    In pieces, so that other threads run between them. A long document must have exactly this form, since a parser
    would hold the interpreter for its whole length.
    """
    text, start, end = _base64_in(body)
    photo, rest, padded = [], b"", False
    for at in range(start, end, _BASE64_PIECE):
        piece = (rest + text[at : min(at + _BASE64_PIECE, end)]).replace(b"\\/", b"/")  # PHP writes \/ for /
        used = (len(piece) - piece.endswith(b"\\")) // 4 * 4
        photo.append(_decoded(piece[:used], after_padding=padded))
        rest, padded = piece[used:], padded or piece[:used].endswith(b"=")
    photo.append(_decoded(rest, after_padding=padded))
    return b"".join(photo)


def _base64_in(body: bytes) -> tuple[bytes, int, int]:
    """Where the base64 text of a document lies, without `data:…,`."""
    if len(body) <= SMALL_BODY_BYTES:
        try:
            text = msgspec.json.decode(body, type=_PhotoDocument).image.encode()
        except msgspec.ValidationError as error:
            raise ImageMissing(_JSON_HINT) from error
        except (msgspec.DecodeError, UnicodeError) as error:
            raise RequestInvalid(f"The body is not valid JSON: {error}.") from error
        return text, text.find(b",") + 1 if text.startswith(b"data:") else 0, len(text)
    head, tail = _JSON_HEAD.match(body), _JSON_TAIL.search(body, len(body) - _JSON_TAIL_BYTES)
    if head is None:
        raise ImageMissing(_JSON_HINT)
    if tail is None or body.find(b'"', head.end(), tail.start()) >= 0:
        raise RequestInvalid(f"The body is not valid JSON, or has more than the field {JSON_FIELD!r}.")
    return body, head.end(), tail.start()


def _decoded(text: bytes, *, after_padding: bool, field: str = JSON_FIELD) -> bytes:
    try:
        if after_padding and text:
            raise ValueError("Excess data after padding")
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError as error:
        raise RequestInvalid(f"The field {field!r} is not valid base64: {error}.") from error


def media_type_of(request: Request) -> str:
    """The content type in lower case, without parameters; "" where there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()
