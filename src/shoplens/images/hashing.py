"""Two names for a photo: SHA-256 for the same bytes, a perceptual hash for the same look."""

from __future__ import annotations

import hashlib
from typing import Final

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

from shoplens.images import geometry

_SIDE: Final = 32
_KEPT: Final = 8
_SAMPLES_PER_SIDE: Final = 128


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of the bytes as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(pixels: NDArray[np.uint8]) -> str:
    """Return 16 hex digits that stay nearly the same when a photo is scaled or encoded again.

    `pixels` is (height, width, 3) uint8 RGB. The method is the DCT hash that Zauner describes in "Implementation and
    Benchmarking of Perceptual Image Hash Functions" (2010): 32 x 32 grey, the 8 x 8 lowest frequencies without the
    first row and column, one bit each for being above their median. Compare two hashes by the number of unequal bits.
    """
    grey = cv2.cvtColor(_thin_out(pixels), cv2.COLOR_RGB2GRAY)
    spectrum = cv2.dct(_squash(np.asarray(grey, np.uint8)).astype(np.float32))
    # Rounded, so that the hash of a picture of one colour does not hang on rounding errors.
    low = np.round(spectrum[1 : _KEPT + 1, 1 : _KEPT + 1], 2).ravel()
    middle = np.partition(low, (low.size // 2 - 1, low.size // 2))[low.size // 2 - 1 : low.size // 2 + 1].mean()
    return np.packbits(low > middle).tobytes().hex()


def _thin_out(pixels: NDArray[np.uint8]) -> MatLike:
    """Leave out pixels of a large picture; enough remain for an average of each of the 32 x 32 cells."""
    height, width = pixels.shape[:2]
    step = min(height, width) // _SAMPLES_PER_SIDE
    if step < 2:
        return pixels
    return cv2.resize(pixels, (width // step, height // step), interpolation=cv2.INTER_NEAREST_EXACT)


def _squash(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if min(grey.shape) < _SIDE:
        return np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    return geometry.shrink(grey, _SIDE, _SIDE, rest=cv2.INTER_AREA)
