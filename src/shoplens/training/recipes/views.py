"""Random views of one picture, as training wants them: a part of it, mirrored or not, in another light.

Methods: random resized crops (Szegedy et al. 2015) and colour jitter, as is usual for photos.
"""

from __future__ import annotations

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

_LEAST_AREA: Final = 0.4
_STRETCH: Final = math.log(4 / 3)
_LIGHT: Final = 0.25


def random_view(pixels: Pixels, side: int, random: np.random.Generator) -> Pixels:
    """(side, side, 3) uint8 of `pixels` (height, width, 3): the same for the same state of `random`."""
    part = _part(pixels, random)
    shrinks = min(part.shape[:2]) >= side
    filtering = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = np.asarray(cv2.resize(part, (side, side), interpolation=filtering), np.uint8)
    if random.random() < 0.5:
        resized = resized[:, ::-1]
    return _lit(resized, random)


def _part(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """A rectangle of at least `_LEAST_AREA` of the picture, squashed by at most 4 to 3 relative to the whole."""
    height, width = pixels.shape[:2]
    area = random.uniform(_LEAST_AREA, 1.0)
    stretch = math.exp(random.uniform(-_STRETCH, _STRETCH) / 2)
    down = min(height, max(1, round(height * math.sqrt(area) / stretch)))
    across = min(width, max(1, round(width * math.sqrt(area) * stretch)))
    top, left = random.integers(0, height - down + 1), random.integers(0, width - across + 1)
    return pixels[top : top + down, left : left + across]


def _lit(pixels: Pixels, random: np.random.Generator) -> Pixels:
    """Brighter or darker, harder or softer, greyer or more colourful, and of a slightly other tint."""
    contrast, colour = random.uniform(1 - _LIGHT, 1 + _LIGHT, 2)
    shift = random.uniform(-_LIGHT, _LIGHT) * 128 + random.uniform(-12, 12, 3)
    values = pixels.astype(np.float32)
    grey = values.mean(axis=2, keepdims=True)
    values = grey + (values - grey) * np.float32(colour)
    values = (values - 128) * np.float32(contrast) + 128 + shift.astype(np.float32)
    return np.asarray(np.clip(values, 0, 255), np.uint8)
