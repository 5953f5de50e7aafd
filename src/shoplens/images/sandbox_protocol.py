"""What the isolated decoder and its owner say to each other: fixed binary headers, never pickles, never text."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

FORMATS: Final = ("avif", "heic")

# Request: index into FORMATS, most pixels allowed, short side wanted (0: full size), length of the file that follows.
REQUEST: Final = struct.Struct(">BQIQ")

# Reply: status, width and height of the original seen upright, width and height of the RGB pixels that follow.
REPLY: Final = struct.Struct(">BIIII")


class Status(IntEnum):
    """How it went. Pixels follow only after OK."""

    OK = 0
    CORRUPT = 1
    TOO_MANY_PIXELS = 2
    TOO_SMALL = 3
    OUT_OF_MEMORY = 4
    EXTRA_MISSING = 5
    EXTRA_UNSAFE = 6
