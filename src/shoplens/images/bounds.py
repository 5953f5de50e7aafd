"""Which files this process may decode itself: those whose structure bounds time and memory. A sandbox gets the rest.

Each walk below reads headers only, stops after a fixed number of steps, and says no where it is not sure.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from typing import Final

from shoplens.images import icc
from shoplens.images.headers import JpegHeader
from shoplens.images.picture import MEGAPIXEL

# A picture that must be decoded whole takes up to eight bytes and 35 ns for each of its pixels.
_MOST_PIXELS: Final = 16 * MEGAPIXEL
# Each scan of a JPEG is one more pass over all pixels; encoders write about ten.
_MOST_SCANNED_PIXELS: Final = 200 * MEGAPIXEL
# Applying a profile to a picture that is too narrow to be reduced takes as long as this many scans.
_SCANS_OF_PROFILE: Final = 6

_PNG_START: Final = 8
_MAX_PNG_CHUNKS: Final = 4_096
_PNG_CHUNK: Final = struct.Struct(">I4s")
# An animated PNG has several pictures, and `zTXt` is packed text.
_ODD_PNG_CHUNKS: Final = (b"acTL", b"zTXt")
_MAX_PROFILE_BYTES: Final = 1_000_000
_MAX_NAME_BYTES: Final = 80

_WEBP_START: Final = 12
_MAX_WEBP_CHUNKS: Final = 64
_WEBP_CHUNK: Final = struct.Struct("<4sI")
_WEBP_PICTURES: Final = (b"VP8 ", b"VP8L")
# A picture of one colour takes no bits at all for its pixels; a photo of more than a megapixel takes many.
_MOST_WEBP_PIXELS_PER_BYTE: Final = 1_000
# A lossless picture, or a lossless channel of transparency, may have its own codes for each 16 pixels. A set of them
# takes 5 kB and 20 µs, and two bytes of the file.
_LOSSLESS: Final = (b"VP8L", b"ALPH")
_MOST_LOSSLESS_PIXELS: Final = MEGAPIXEL // 4


def jpeg_is_bounded(header: JpegHeader) -> bool:
    """Whether this JPEG takes at most one pass over its pixels, or not too many passes over not too many."""
    pixels = header.width * header.height
    passes = header.scans + (_SCANS_OF_PROFILE if header.icc else 0)
    few_passes = header.scans == 1 or (pixels <= _MOST_PIXELS and passes * pixels <= _MOST_SCANNED_PIXELS)
    return header.huffman and header.components in (1, 3) and few_passes and _is_usual_profile(header.icc)


def png_is_bounded(data: bytes, size: tuple[int, int]) -> bool:
    """Whether this PNG has one picture, few chunks, no packed text, and a simple profile or none."""
    if size[0] * size[1] > _MOST_PIXELS:
        return False
    at = _PNG_START
    profiles = 0
    for _ in range(_MAX_PNG_CHUNKS):
        if at + _PNG_CHUNK.size > len(data):
            return True  # cut off, which the decoder will say
        length, kind = _PNG_CHUNK.unpack_from(data, at)
        if kind == b"IEND":
            return True
        if kind in _ODD_PNG_CHUNKS or (
            kind == b"iTXt" and _is_packed_text(data[at + 8 : at + 8 + _MAX_NAME_BYTES + 2])
        ):
            return False
        if kind == b"iCCP":
            profiles += 1
            if profiles > 1 or not _is_usual_profile(_png_profile(data[at + 8 : at + 8 + min(length, len(data))])):
                return False
        at += length + 12
    return False


def _is_packed_text(start: bytes) -> bool:
    """Whether the text of an iTXt chunk must be inflated; its flag stands behind its name."""
    _, _, rest = start.partition(b"\x00")
    return not rest.startswith(b"\x00")


def _png_profile(chunk: bytes) -> bytes | None:
    """The profile in an iCCP chunk; None if it cannot be unpacked within its limit."""
    name, _, packed = chunk.partition(b"\x00")
    if len(name) > _MAX_NAME_BYTES:
        return None
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(packed[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return None
    return profile if unpacker.eof else None


def webp_is_bounded(data: bytes, size: tuple[int, int]) -> bool:
    """Whether this WebP has one picture, as many bytes as a photo needs, and a simple profile or none.

    A lossless one must also be small.
    """
    pixels = size[0] * size[1]
    if pixels > _MOST_PIXELS or (pixels > MEGAPIXEL and pixels > _MOST_WEBP_PIXELS_PER_BYTE * len(data)):
        return False
    chunks = webp_chunks(data)
    if pixels > _MOST_LOSSLESS_PIXELS and any(kind in chunks for kind in _LOSSLESS):
        return False
    pictures = sum(kind in chunks for kind in _WEBP_PICTURES)
    return pictures == 1 and b"ANIM" not in chunks and _is_usual_profile(chunks.get(b"ICCP", b""))


def webp_chunks(data: bytes | mmap.mmap) -> dict[bytes, bytes]:
    """The first chunk of each kind, without copying the picture's; empty if there are too many."""
    chunks: dict[bytes, bytes] = {}
    at = _WEBP_START
    for _ in range(_MAX_WEBP_CHUNKS):
        if at + _WEBP_CHUNK.size > len(data):
            return chunks
        kind, length = _WEBP_CHUNK.unpack_from(data, at)
        at += _WEBP_CHUNK.size
        chunks.setdefault(kind, b"" if kind in _WEBP_PICTURES else data[at : at + length])
        at += length + length % 2
    return {}


def _is_usual_profile(profile: bytes | None) -> bool:
    return profile is not None and (not profile or icc.is_simple(profile))
