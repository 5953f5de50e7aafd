"""Read the orientation out of an EXIF block: the one fact of it that changes the pixels. Never raises."""

from __future__ import annotations

import struct
from typing import Final

from shoplens.images import tiff

UPRIGHT: Final = 1
_ORIENTATION: Final = 0x0112


def orientation(block: bytes) -> int:
    """Return 1 to 8 from an EXIF block, with or without its `Exif` prefix; 1 if it has none or is damaged."""
    try:
        value = tiff.first_directory(block.removeprefix(b"Exif\x00\x00")).number(_ORIENTATION)
    except (ValueError, struct.error):
        return UPRIGHT
    return value if value is not None and 1 <= value <= 8 else UPRIGHT
