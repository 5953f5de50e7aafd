"""What a photo belongs to: order, item and reason from its file name, its sidecar file or a list in its folder.

The sidecar `photo.jpg.json` describes one photo. Every other JSON or CSV file is a list of photos in the same folder.
All names and texts come from outside and may contain anything.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any, Final

import orjson

from shoplens.batch.entities import References
from shoplens.errors import Misconfigured

MAX_SIDECAR_BYTES: Final = 1_000_000
MAX_LIST_BYTES: Final = 20_000_000
_MAX_NAME_BYTES: Final = 1_000
"""An index entry of PostgreSQL holds 2,700 bytes, and the name is part of one."""
_MAX_REFERENCE: Final = 200
_MAX_REASON: Final = 1_000
_UNFINISHED: Final = (".part", ".tmp", ".filepart", ".crdownload", "~")
_PHOTOS: Final = (
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif",
)  # fmt: skip
# Control characters, and characters that change the direction of text. They can hide what a terminal prints.
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class SidecarError(ValueError):
    """A sidecar, list or manifest that cannot be used. The message is a clause: `it is not JSON`."""


# File names


def readable(name: str) -> str:
    """`name` as text that is safe to store and print: control characters and bytes that are not UTF-8 are escaped.

    A name of more than 1,000 bytes keeps both ends; a hash of the whole replaces the middle.
    """
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a single surrogate, which JSON can contain
        raw = name.encode("utf-8", "backslashreplace")
    text = raw.decode("utf-8", "backslashreplace")
    text = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    raw = text.encode()
    if len(raw) <= _MAX_NAME_BYTES:
        return text
    half = _MAX_NAME_BYTES // 2 - 20
    start, end = raw[:half].decode(errors="ignore"), raw[-half:].decode(errors="ignore")
    return f"{start}…{hashlib.sha256(raw).hexdigest()[:16]}…{end}"


def is_ignored(name: str) -> bool:
    """Whether a file or folder is hidden or, by its name, still being written by an upload program."""
    return name.startswith(".") or name.lower().endswith(_UNFINISHED)


def is_sidecar(name: str) -> bool:
    """Whether a file is a sidecar or a list, and not a photo."""
    return name.lower().endswith((".json", ".csv"))


def is_photo_name(name: str) -> bool:
    """Whether the name ends like that of a photo, so that `name.json` is its sidecar."""
    return name.lower().endswith(_PHOTOS)


def sidecar_photo(name: str) -> str | None:
    """The photo that the sidecar `photo.jpg.json` describes; None if `name` is not that of a sidecar."""
    photo = name[: -len(".json")] if name.lower().endswith(".json") else ""
    return photo if is_photo_name(photo) else None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The setting `name_pattern`. Raises Misconfigured."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise Misconfigured(f"name_pattern is not a regular expression: {error}.") from error


def references_in_name(pattern: re.Pattern[str], name: str) -> References:
    """The groups `order`, `item` and `reason` of `pattern` in the file name without folder and extension."""
    match = pattern.search(name.rsplit("/", 1)[-1].rsplit(".", 1)[0])
    return references_from(match.groupdict() if match else {})


def merge_references(*sources: References) -> References:
    """Each field from the first of `sources` that has it."""
    names = [field.name for field in fields(References)]
    return References(**{name: next(filter(None, (getattr(each, name) for each in sources)), None) for name in names})


# Files


def parse_sidecar(data: bytes) -> References:
    """The content of `photo.jpg.json`. Raises SidecarError."""
    try:
        fields = orjson.loads(data)
    except ValueError as error:
        raise SidecarError("it is not JSON") from error
    if not isinstance(fields, dict):
        raise SidecarError('it is not an object such as {"order": "4711", "item": "A-12", "reason": "too small"}')
    return references_from(fields)


def parse_list(name: str, data: bytes) -> dict[str, References]:
    """The references of each photo that a CSV or JSON list names in `file`; the last row wins. Raises SidecarError."""
    rows: Iterator[Mapping[str, Any]]
    if name.lower().endswith(".csv"):
        rows = read_csv(data)
    else:
        try:
            content = orjson.loads(data)
        except ValueError as error:
            raise SidecarError("it is not JSON") from error
        rows = (row for row in (content if isinstance(content, list) else [content]) if isinstance(row, dict))
    try:
        found = {readable(file): references_from(row) for row in rows if (file := _text(row.get("file"), _MAX_REASON))}
    except csv.Error as error:
        raise SidecarError(f"it is not CSV: {error}") from error
    if not found:
        raise SidecarError("it names no photo in a column or field `file`")
    return found


def read_csv(data: bytes) -> csv.DictReader[str]:
    """The rows of a CSV file with a header; column names are in lower case. Iterating may raise csv.Error.

    The separator is the most frequent one of comma, semicolon and tab in the header. The text is UTF-8 or UTF-16 with
    or without a byte order mark, or else Windows-1252, as spreadsheets write it. Raises SidecarError if it is no text.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("cp1252", "replace")
    if "\0" in text:
        raise SidecarError("it is not text")
    header = text.partition("\n")[0]
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    try:
        rows.fieldnames = [column.strip().lower() for column in rows.fieldnames or ()]
    except csv.Error as error:
        raise SidecarError(f"it is not CSV: {error}") from error
    return rows


def references_from(said: Mapping[str, Any]) -> References:
    """The fields `item` (or `product`), `order`, `reason`, `customer` and `review`, cut to a sensible length."""
    return References(
        item=_text(said.get("item"), _MAX_REFERENCE) or _text(said.get("product"), _MAX_REFERENCE),
        order=_text(said.get("order"), _MAX_REFERENCE),
        reason=_text(said.get("reason"), _MAX_REASON),
        customer=_text(said.get("customer"), _MAX_REFERENCE),
        review=_text(said.get("review"), _MAX_REFERENCE),
    )


def _text(value: object, most: int) -> str | None:
    """Text or a number as readable text of at most `most` characters; None for everything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return readable(str(value).strip())[:most] or None
