"""Show what is left of a damaged JPEG: for people who look at what no decoder accepts. Never used for classifying."""

from __future__ import annotations

from typing import Final

import simplejpeg

from shoplens.errors import SampleError
from shoplens.images import geometry, headers
from shoplens.images.headers import sniff
from shoplens.images.picture import MEGAPIXEL, Limits, Picture
from shoplens.images.thumbnails import thumbnail

_SIDE: Final = 256
# A progressive file costs memory for all of its pixels at any scale, and this is only for a small picture.
_MOST_PIXELS: Final = 25 * MEGAPIXEL
_LEAST_SHOWN: Final = 0.02


def salvage(data: bytes, *, limits: Limits, side: int = _SIDE) -> bytes | None:
    """A JPEG of at most `side` pixels with what can still be seen in `data`; None where there is nothing to be seen.

    What its header announces is held against `limits`, and against a limit of its own, before anything is decoded.
    """
    try:
        if len(data) > limits.max_bytes or sniff(data) != "jpeg":
            return None
        facts = headers.read_jpeg(data)
        headers.check_size((facts.width, facts.height), limits)
    except SampleError:
        return None
    if facts.components not in (1, 3) or facts.width * facts.height > _MOST_PIXELS:
        return None
    pixels = _decoded(data, facts.width, facts.height, side)
    if pixels is None or not _shows_something(pixels):
        return None
    upright = geometry.upright(pixels, facts.orientation)
    picture = Picture(pixels=upright, format="jpeg", width=upright.shape[1], height=upright.shape[0])
    return thumbnail(picture, side)


def _shows_something(pixels: geometry.Pixels) -> bool:
    """Whether more than a few blocks came: decoders fill what is missing with one colour, down to the last pixel."""
    return float((pixels != pixels[-1, -1]).any(axis=-1).mean()) > _LEAST_SHOWN


def _decoded(data: bytes, width: int, height: int, side: int) -> geometry.Pixels | None:
    scale = geometry.reduction(width, height, side)
    wanted = geometry.reduced(height, scale), geometry.reduced(width, scale)
    try:
        if simplejpeg.decode_jpeg_header(data, strict=False)[:2] != (height, width):
            return None
        pixels: geometry.Pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=wanted[0], min_width=wanted[1], min_factor=1, strict=False
        )
    except (ValueError, KeyError, OverflowError, MemoryError):
        return None
    return pixels if pixels.shape == (*wanted, 3) else None
