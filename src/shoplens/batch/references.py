"""Tell what a photo of a returned thing belongs to: by its file name, or by what lies beside it. Pure.

A sidecar `photo.jpg.json` is about one photo. Any other JSON or CSV file is a list of photos in the same folder.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from shoplens.batch.entities import References
from shoplens.batch.names import readable
from shoplens.errors import Misconfigured

LONGEST_SIDECAR_BYTES: Final = 1_000_000
LONGEST_LIST_BYTES: Final = 20_000_000
_LONGEST_REFERENCE: Final = 200
_LONGEST_REASON: Final = 1_000
_DELIMITERS: Final = ",;\t"
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a sidecar or list says, by file name; or why it cannot be used, and then it says nothing."""

    by_name: Mapping[str, References] = field(default_factory=dict)
    fault: str | None = None


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """The setting `name_pattern`. Raises Misconfigured."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise Misconfigured(f"channels.batch.commit_items.name_pattern is no regular expression: {error}.") from error


def from_name(pattern: re.Pattern[str], name: str) -> References:
    """What the last part of `name`, without its ending, says by the groups `order`, `item` and `reason`."""
    file = name.rsplit("/", 1)[-1]
    match = pattern.search(file.rsplit(".", 1)[0])
    return _references(match.groupdict() if match else {})


def joined(first: References, second: References) -> References:
    """Field by field what `first` says, else what `second` says."""
    return References(
        item=first.item or second.item, order=first.order or second.order, reason=first.reason or second.reason
    )


def read_sidecar(photo: str, data: bytes) -> Told:
    """What `photo.jpg.json` says about `photo`."""
    try:
        fields = orjson.loads(data)
    except ValueError:
        return Told(fault="is not JSON")
    if not isinstance(fields, dict):
        return Told(fault='is not an object such as {"order": "4711", "item": "A-12", "reason": "too small"}')
    return Told(by_name={readable(photo): _references(fields)})


def read_list(name: str, data: bytes) -> Told:
    """What a list says about the photos that it names in `file`; later rows win."""
    rows = _csv_rows(data) if name.lower().endswith(".csv") else _json_rows(data)
    if isinstance(rows, str):
        return Told(fault=rows)
    try:
        told = {readable(file): _references(row) for row in rows if (file := _text(row.get("file"), _LONGEST_REASON))}
    except csv.Error as error:
        return Told(fault=f"is not CSV: {error}")
    return Told(by_name=told) if told else Told(fault="names no photo in a column or field `file`")


def _json_rows(data: bytes) -> Iterator[Row] | str:
    try:
        content = orjson.loads(data)
    except ValueError:
        return "is not JSON"
    rows = content if isinstance(content, list) else [content]
    return (row for row in rows if isinstance(row, dict))


def _csv_rows(data: bytes) -> Iterator[Row] | str:
    text = _decoded(data)
    if "\0" in text:
        return "is not text"
    header = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=header.count)
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    return ({str(key).strip().lower(): value for key, value in row.items()} for row in rows)


def _decoded(data: bytes) -> str:
    """UTF-8, or what spreadsheets write."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _references(fields: Row) -> References:
    return References(
        item=_text(fields.get("item"), _LONGEST_REFERENCE),
        order=_text(fields.get("order"), _LONGEST_REFERENCE),
        reason=_text(fields.get("reason"), _LONGEST_REASON),
    )


def _text(value: object, longest: int) -> str | None:
    """Text and numbers, cut to `longest` characters; None for nothing and for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    return readable(str(value).strip())[:longest] or None
