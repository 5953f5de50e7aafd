"""Read the first directory of a TIFF structure, which is also how EXIF is laid out. No pixels, no values copied."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_NUMBERS: Final = {3: "H", 4: "I"}
_ORDERS: Final = {b"II*\x00": "<", b"MM\x00*": ">"}
_ENTRY_BYTES: Final = 12
_MAX_TAGS: Final = 1_000


class Directory(NamedTuple):
    """The tags of one page by their number, in the byte order of their file ("<" or ">").

    A tag is (type, number of values that it announces, the four bytes that hold the values or their offset).
    """

    order: str
    tags: dict[int, tuple[int, int, bytes]]

    def number(self, name: int) -> int | None:
        """Return the value of a tag that is one whole number, else None."""
        kind, count, field = self.tags.get(name, (0, 0, b""))
        if count != 1 or kind not in _NUMBERS:
            return None
        value: int = struct.unpack_from(self.order + _NUMBERS[kind], field)[0]
        return value


def first_directory(block: bytes) -> Directory:
    """Return the first directory.

    Raises ValueError if this is not TIFF, and struct.error if it points outside of itself.
    """
    order, start, end = _locate(block)
    entries = struct.iter_unpack(order + "HHI4s", block[start:end])
    return Directory(order, {name: (kind, count, field) for name, kind, count, field in entries})


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
    end = directory + 2 + _ENTRY_BYTES * count
    if count > _MAX_TAGS or end > len(block):
        raise ValueError("more tags than there can be")
    return order, directory + 2, end
