"""Walk the markers of a JPEG up to its first scan: size, orientation and profile in a few microseconds."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from shoplens.images import exif

_MARKER: Final = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
_PREFIX: Final = 0xFF
_NO_MARKERS: Final = (0x00, 0xFF)
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_BODY: Final = frozenset((0x01, *range(0xD0, 0xD9)))
_START_OF_SCAN: Final = 0xDA
_APP1: Final = 0xE1
_APP2: Final = 0xE2
_EXIF: Final = b"Exif\x00\x00"
_ICC: Final = b"ICC_PROFILE\x00"

_MAX_SEGMENTS: Final = 5_000
_MAX_STRAY_BYTES: Final = 65_536
# Encoders write about ten scans. Each costs a pass over all coefficients, so thousands of tiny ones are an attack.
_MAX_SCANS: Final = 100
# Huffman coding spends at least one bit on each block of 8 x 8 pixels: a shorter file lies about its size.
_HUFFMAN_FRAMES: Final = frozenset((0xC0, 0xC1, 0xC2))
_MOST_PIXELS_PER_BYTE: Final = 512

_Segment = tuple[int, int, int]


class JpegHeader(NamedTuple):
    """What stands before the first scan. `icc` is empty if there is no colour profile.

    A named tuple, as it is made once per photo and a frozen dataclass takes ten times as long to make.
    """

    width: int
    height: int
    components: int
    huffman: bool
    orientation: int
    icc: bytes

    def fits_into(self, length: int) -> bool:
        """Tell whether a picture of this size can be coded in `length` bytes at all."""
        return not self.huffman or self.width * self.height <= _MOST_PIXELS_PER_BYTE * length


def read(data: bytes) -> JpegHeader:
    """Return the facts of a JPEG's header.

    Raises ValueError, struct.error or IndexError if the markers end before a scan begins, or if there are too many
    segments or scans.
    """
    frame: tuple[int, int, int] | None = None
    huffman = False
    orientation = exif.UPRIGHT
    profile: dict[int, bytes] = {}
    for marker, start, end in _segments(data):
        if marker in _START_OF_FRAME and frame is None:
            frame = struct.unpack_from(">xHHB", data, start)
            huffman = marker in _HUFFMAN_FRAMES
        elif marker == _APP1 and orientation == exif.UPRIGHT and data.startswith(_EXIF, start):
            orientation = exif.orientation(data[start:end])
        elif marker == _APP2 and data.startswith(_ICC, start):
            profile[data[start + 12]] = data[start + 14 : end]
        elif marker == _START_OF_SCAN and frame is not None:
            _check_scans(data, start, components=frame[2])
            height, width, components = frame
            icc = b"".join(profile[part] for part in sorted(profile))
            return JpegHeader(
                width=width, height=height, components=components, huffman=huffman, orientation=orientation, icc=icc
            )
    raise ValueError("no scan after a frame header")


def _segments(data: bytes) -> Iterator[_Segment]:
    """Yield (marker, start, end) of the segments up to and including the first scan's header."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if data[at] != _PREFIX or data[at + 1] in _NO_MARKERS:
            at = _skip_strays(data, at)
        marker = data[at + 1]
        at += 2
        if marker in _WITHOUT_BODY:
            continue
        end = at + (data[at] << 8 | data[at + 1])
        if end < at + 2 or end > len(data):
            raise ValueError("a segment that is cut off")
        yield marker, at + 2, end
        if marker == _START_OF_SCAN:
            return
        at = end


def _skip_strays(data: bytes, at: int) -> int:
    """Return where the next marker begins: fill bytes and rubbish may stand before it, as decoders skip them too."""
    found = _MARKER.search(data, at, at + _MAX_STRAY_BYTES)
    if found is None:
        raise ValueError("no further marker")
    return found.start()


def _check_scans(data: bytes, first: int, *, components: int) -> None:
    """A picture whose first scan holds all components in full has no other; else count them."""
    in_scan = data[first]
    last_coefficient = data[first + 2 * in_scan + 2]
    one_scan = in_scan == components and last_coefficient == 63
    if not one_scan and data.count(b"\xff\xda", first) > _MAX_SCANS:
        raise ValueError("too many scans")
