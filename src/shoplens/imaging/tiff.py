"""Read the first directory of a TIFF structure, which is also how EXIF is laid out. No pixels, no values copied."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

SHORT: Final = 3
LONG: Final = 4
_ORDERS: Final = {b"II*\x00": "<", b"MM\x00*": ">"}
_MAX_TAGS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """One entry: its TIFF type, how many values it announces, and the first if it is a single number."""

    kind: int
    count: int
    number: int | None


def first_directory(block: bytes) -> dict[int, Tag]:
    """Return the tags of the first directory by number.

    Raises ValueError if this is not TIFF, and struct.error if it points outside of itself.
    """
    order, start, end = _locate(block)
    return dict(_tag(block, order, at) for at in range(start, end, 12))


def first_page_only(data: bytes) -> bytes:
    """Return the file with the link from its first page to the next cut.

    Readers follow that chain to count the pages, however long or circular a hostile file makes it.
    Raises what `first_directory` raises.
    """
    order, _, end = _locate(data)
    (following,) = struct.unpack_from(order + "I", data, end)
    return data if following == 0 else b"".join((data[:end], bytes(4), data[end + 4 :]))


def _locate(block: bytes) -> tuple[str, int, int]:
    """Return the byte order, and where the entries of the first directory start and end."""
    order = _ORDERS.get(block[:4])
    if order is None:
        raise ValueError("not a TIFF structure")
    (directory,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, directory)
    if count > _MAX_TAGS:
        raise ValueError("too many tags")
    return order, directory + 2, directory + 2 + 12 * count


def _tag(block: bytes, order: str, at: int) -> tuple[int, Tag]:
    name, kind, count = struct.unpack_from(order + "HHI", block, at)
    number = None
    if count == 1 and kind in (SHORT, LONG):
        (number,) = struct.unpack_from(order + ("H" if kind == SHORT else "I"), block, at + 8)
    return name, Tag(kind=kind, count=count, number=number)
