"""Two names for a photo: SHA-256 for the same bytes, a perceptual hash for the same look."""

from __future__ import annotations

import hashlib
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

_SIDE: Final = 32
_KEPT: Final = 8


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of the bytes as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def perceptual_hash(pixels: NDArray[np.uint8]) -> str:
    """Return 16 hex digits that stay nearly the same when a photo is scaled or encoded again.

    `pixels` is (height, width, 3) uint8 RGB. The method is the DCT hash that Zauner describes in "Implementation and
    Benchmarking of Perceptual Image Hash Functions" (2010): 32 x 32 grey, the 8 x 8 lowest frequencies without the
    first row and column, one bit each for being above their median. Compare two hashes by the number of unequal bits.
    """
    small = cv2.resize(pixels, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA)
    spectrum = cv2.dct(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32))
    low = spectrum[1 : _KEPT + 1, 1 : _KEPT + 1]
    return np.packbits(low > np.median(low)).tobytes().hex()
