"""Two hashes of a photo: SHA-256 for equal bytes, a perceptual hash for an equal look."""

from __future__ import annotations

import hashlib
from typing import Final

import cv2
import numpy as np

from shoplens.images import geometry
from shoplens.images.geometry import Pixels
from shoplens.images.picture import ImageFacts, Picture
from shoplens.images.thumbnails import reduce_once

_SIDE: Final = 32
_FREQUENCIES: Final = 8
_HALVED_SIDE: Final = 128


def facts_of(data: bytes, picture: Picture, *, small: Pixels | None = None, sha256: str | None = None) -> ImageFacts:
    """Return the facts of a photo from its file and its decoded picture.

    `small` are the pixels of `reduce_once` and `sha256` is the hash of `data`, where the caller already has them.
    """
    return ImageFacts(
        format=picture.format,
        width=picture.width,
        height=picture.height,
        byte_count=len(data),
        sha256=sha256 or sha256_hex(data),
        phash=perceptual_hash(reduce_once(picture) if small is None else small),
    )


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of the bytes as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(pixels: Pixels) -> str:
    """Return 16 hex digits that stay nearly the same when a photo is scaled or encoded again.

    `pixels` is (height, width, 3) uint8 RGB; those of `reduce_once` have enough detail. The method
    is the DCT hash of Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions" (2010): 32 x 32
    grey, the 8 x 8 lowest frequencies without the first row and column, one bit each for being above their median.
    Compare two hashes by the number of unequal bits.
    """
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    # Halving is many times as quick as any other averaging, but leaves out odd rows: few of them at this size.
    grey = geometry.halved(grey, _HALVED_SIDE)
    grey = np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    spectrum = cv2.dct(np.asarray(grey, np.float32))
    # Rounded, so that rounding errors do not decide the bits of a picture of one colour.
    low = np.round(spectrum[1 : _FREQUENCIES + 1, 1 : _FREQUENCIES + 1], 2).ravel()
    middle = np.sort(low)[low.size // 2 - 1 : low.size // 2 + 1].mean()
    return np.packbits(low > middle).tobytes().hex()
