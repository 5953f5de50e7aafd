"""A photo made small: its thumbnail, and its perceptual hash. Both start from the pixels that `halved` returns."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import simplejpeg

from shoplens.images.picture import Picture
from shoplens.images.pixels import Pixels

_SIDE: Final = 256
_QUALITY: Final = 80

_HASHED_SIDE: Final = 32
_FREQUENCIES: Final = 8
_HALVED_SIDE: Final = 128


def halved(pixels: Pixels, side: int = _SIDE) -> Pixels:
    """Average two by two as often as the longer side stays at least `side` pixels.

    A last odd row or column is left out. OpenCV vectorises averaging by two and by no other factor.
    """
    rows, columns = pixels.shape[:2]
    while max(rows, columns) >= 2 * side and min(rows, columns) >= 2:
        rows, columns = rows // 2, columns // 2
        even = pixels[: 2 * rows, : 2 * columns]
        pixels = np.asarray(cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    return pixels


def thumbnail(picture: Picture, max_side: int = _SIDE) -> bytes:
    """Return a JPEG whose longer side is at most `max_side` pixels; a smaller picture keeps its size.

    It is encoded from pixels, so it carries no metadata.
    """
    return encode_thumbnail(halved(picture.pixels, max_side), max_side)


def encode_thumbnail(pixels: Pixels, max_side: int = _SIDE) -> bytes:
    """The same from pixels, (height, width, 3) RGB, that are halved already."""
    height, width = pixels.shape[:2]
    scale = max_side / max(width, height)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_LINEAR), np.uint8)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=_QUALITY, colorspace="RGB", colorsubsampling="420"))


def perceptual_hash(pixels: Pixels) -> str:
    """Return 16 hex digits that stay nearly the same when a photo is scaled or encoded again.

    `pixels` is (height, width, 3) uint8 RGB; those of `halved` have enough detail. The method
    is the DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010): 32 x 32
    grey, the 8 x 8 lowest frequencies without the first row and column, one bit each for being above their median.
    Compare two hashes by the number of unequal bits.
    """
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    # Halving is many times as quick as any other averaging, but leaves out odd rows: few of them at this size.
    grey = halved(grey, _HALVED_SIDE)
    grey = np.asarray(cv2.resize(grey, (_HASHED_SIDE, _HASHED_SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    spectrum = cv2.dct(np.asarray(grey, np.float32))
    # Rounded, so that rounding errors do not decide the bits of a picture of one colour.
    low = np.round(spectrum[1 : _FREQUENCIES + 1, 1 : _FREQUENCIES + 1], 2).ravel()
    middle = np.sort(low)[low.size // 2 - 1 : low.size // 2 + 1].mean()
    return np.packbits(low > middle).tobytes().hex()
