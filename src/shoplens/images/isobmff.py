"""Read just enough of an ISO media file (HEIC, AVIF) to name its format and pixel size. No native code."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))
_HEIC_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
_MAX_BOXES: Final = 10_000


def picture_format(data: bytes) -> str | None:
    """Return "avif" or "heic" from the brands of the leading `ftyp` box, None for any other file."""
    if data[4:8] != b"ftyp":
        return None
    length = min(int.from_bytes(data[:4], "big"), 256, len(data))
    brands = {data[at : at + 4] for at in (8, *range(16, length - 3, 4))}
    if brands & _AVIF_BRANDS:
        return "avif"
    return "heic" if brands & _HEIC_BRANDS else None


def size(data: bytes) -> tuple[int, int] | None:
    """Return (width, height) of the largest picture that the file announces, None if it announces none.

    A photo made of tiles announces each tile and the whole; thumbnails are smaller: the largest is the photo.
    """
    extents = [
        struct.unpack_from(">II", data, at + 4)
        for at, end in _descend(data, 0, len(data), (b"meta", b"iprp", b"ipco", b"ispe"))
        if end - at >= 12
    ]
    return max(extents, key=lambda extent: extent[0] * extent[1], default=None)


def _descend(data: bytes, start: int, end: int, path: tuple[bytes, ...]) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the contents of every box at `path`."""
    name, *rest = path
    for kind, at, stop in _boxes(data, start, end):
        if kind != name:
            continue
        if not rest:
            yield at, stop
        else:
            # `meta` is a full box: four bytes of version and flags stand before its children.
            yield from _descend(data, at + 4 if kind == b"meta" else at, stop, tuple(rest))


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, content start, content end) of the boxes in data[start:end]; stop at the first that lies."""
    for _ in range(_MAX_BOXES):
        if start + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if length == 1 and content + 8 <= end:
            (length,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = end if length == 0 else start + length
        if stop < content or stop > end:
            return
        yield kind, content, stop
        start = stop
