"""Photos whose state under the default policy is known."""

from __future__ import annotations

import cv2
import numpy as np

from tests.conftest import colourful, jpeg_of


def sharp(seed: int, *, width: int = 640, height: int = 480) -> bytes:
    """A photo that the default policy publishes: sharp, neither dark nor written, and nothing in particular."""
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    return jpeg_of(np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8))


def blurred(seed: int) -> bytes:
    """A photo that the default policy holds."""
    return jpeg_of(np.asarray(cv2.GaussianBlur(colourful(seed), (0, 0), 12), np.uint8))
