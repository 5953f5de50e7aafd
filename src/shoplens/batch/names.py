"""Judge the names of files that others chose: which are never taken, and how to write any of them down. Pure."""

from __future__ import annotations

import hashlib
import re
from typing import Final

_LONGEST_BYTES: Final = 1_000
"""An index entry of PostgreSQL holds 2,700 bytes, and a name is part of one."""
_UNFINISHED: Final = (".part", ".tmp", ".filepart", ".crdownload", "~")
_PICTURES: Final = (
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".heif", ".avif",
)  # fmt: skip
_SIDECARS: Final = (".json", ".csv")
# Control characters, and those that reverse the direction of writing: harmless in a file, not on a terminal.
_UNSPEAKABLE: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


def readable(name: str) -> str:
    """`name` as text that any database and any terminal takes: what is not UTF-8 and what is no character is escaped.

    Longer ones than 1,000 bytes lose their middle, in whose place stands a hash of the whole.
    """
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a pair, which no file system makes but JSON can
        raw = name.encode("utf-8", "backslashreplace")
    text = raw.decode("utf-8", "backslashreplace")
    return _shortened(_UNSPEAKABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text))


def is_ignored(name: str) -> bool:
    """Whether a file or folder of this name is never looked at: hidden, or still being written by another program."""
    return name.startswith(".") or name.lower().endswith(_UNFINISHED)


def is_sidecar(name: str) -> bool:
    """Whether a file of this name tells about photos and is none."""
    return name.lower().endswith(_SIDECARS)


def told_photo(name: str) -> str | None:
    """The photo that the sidecar `photo.jpg.json` is about; None for other names, which are lists."""
    photo = name[: -len(".json")] if name.lower().endswith(".json") else ""
    return photo if may_have_sidecar(photo) else None


def may_have_sidecar(name: str) -> bool:
    """Whether `name` with `.json` behind it would be its sidecar: it ends like a picture."""
    return name.lower().endswith(_PICTURES)


def _shortened(text: str) -> str:
    raw = text.encode()
    if len(raw) <= _LONGEST_BYTES:
        return text
    half = _LONGEST_BYTES // 2 - 20
    start, end = raw[:half].decode(errors="ignore"), raw[-half:].decode(errors="ignore")
    return f"{start}…{hashlib.sha256(raw).hexdigest()[:16]}…{end}"
