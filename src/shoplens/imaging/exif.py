"""Read the orientation out of an EXIF block: the one fact of it that changes the pixels. Never raises."""

from __future__ import annotations

import struct
from typing import Final

UPRIGHT: Final = 1
_ORIENTATION_TAG: Final = 0x0112
_SHORT: Final = 3
_MAX_TAGS: Final = 1_000


def orientation(block: bytes) -> int:
    """Return 1 to 8 from an EXIF block, with or without its `Exif` prefix; 1 if it has none or is damaged."""
    block = block.removeprefix(b"Exif\x00\x00")
    try:
        return _orientation(block)
    except struct.error:
        return UPRIGHT


def _orientation(block: bytes) -> int:
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(block[:4])
    if order is None:
        return UPRIGHT
    (directory,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, directory)
    for entry in range(directory + 2, directory + 2 + 12 * min(count, _MAX_TAGS), 12):
        tag, kind = struct.unpack_from(order + "HH", block, entry)
        if tag == _ORIENTATION_TAG and kind == _SHORT:
            (value,) = struct.unpack_from(order + "H", block, entry + 8)
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
