"""The small JPEG that people see in lists. It is encoded from pixels, so it carries no metadata."""

from __future__ import annotations

from typing import Final

import simplejpeg

from shoplens.images import geometry
from shoplens.images.geometry import Pixels
from shoplens.images.picture import Picture

_QUALITY: Final = 80
_SIDE: Final = 256


def thumbnail(picture: Picture, max_side: int = _SIDE) -> bytes:
    """Return a JPEG whose longer side is at most `max_side` pixels; a smaller picture keeps its size."""
    return encode_thumbnail(reduce_once(picture, max_side), max_side)


def reduce_once(picture: Picture, max_side: int = _SIDE) -> Pixels:
    """Return (height, width, 3) RGB pixels, halved by averaging as often as the longer side keeps `max_side` pixels.

    Both the thumbnail and the perceptual hash start from them.
    """
    return geometry.halved(picture.pixels, max_side)


def encode_thumbnail(pixels: Pixels, max_side: int = _SIDE) -> bytes:
    """Return the pixels of `reduce_once` as a JPEG whose longer side is at most `max_side` pixels."""
    height, width = pixels.shape[:2]
    scale = max_side / max(width, height)
    if scale < 1:
        pixels = geometry.shrink(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    return bytes(simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorspace="RGB", colorsubsampling="420"))
