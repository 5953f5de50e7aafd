"""Make the small JPEG that people see in lists; it is encoded from pixels, so no metadata can survive."""

from __future__ import annotations

from typing import Final

import simplejpeg

from shoplens.images import geometry
from shoplens.images.picture import Picture

_QUALITY: Final = 80


def thumbnail(picture: Picture, max_side: int = 256) -> bytes:
    """Return a JPEG whose longer side is at most `max_side` pixels; a smaller picture keeps its size."""
    height, width = picture.pixels.shape[:2]
    shrink = min(1.0, max_side / max(width, height))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    small = picture.pixels if shrink == 1.0 else geometry.shrink(picture.pixels, *size)
    return bytes(simplejpeg.encode_jpeg(small, quality=_QUALITY, colorspace="RGB", colorsubsampling="420"))
