"""Measure how a picture looks: sharpness, light, lines of text, an even frame. All at one size, in some 5 ms."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from shoplens.images.fingerprint import fingerprint
from shoplens.images.picture import Measurements
from shoplens.images.pixels import Pixels
from shoplens.images.thumbnails import halved

SIDE: Final = 512
"""The longer side at which everything is measured, in pixels. A smaller picture is enlarged."""

_DARK: Final = 24
_BRIGHT: Final = 250
_EVEN_SPREAD: Final = 6.0
_EDGE: Final = 48
_LEAST_LINE: Final = (4, 12)
"""The least height and width of a line of text, in pixels."""
_MOST_LINE_HEIGHT: Final = 40
_LEAST_ASPECT: Final = 2.0
_LEAST_FILL: Final = 0.45


def measure(pixels: Pixels) -> Measurements:
    """Measure a picture, (height, width, 3) uint8 RGB of any size."""
    small = halved(pixels, SIDE)
    grey = _grey_at_one_size(small)
    flat = grey.ravel()
    return Measurements(
        sharpness=float(cv2.Laplacian(grey, cv2.CV_32F).var()),
        brightness=float(flat.mean()),
        contrast=float(flat.std()),
        dark_share=float((flat < _DARK).mean()),
        bright_share=float((flat > _BRIGHT).mean()),
        text_share=_text_share(grey),
        border_share=_border_share(grey),
        fingerprint=fingerprint(small),
    )


def _grey_at_one_size(pixels: Pixels) -> Pixels:
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(grey, size, interpolation=method), np.uint8)


def _text_share(grey: Pixels) -> float:
    """The share of the picture that lines of text cover.

    Letters are strong edges close beside each other: joined along the line they make long, low, well filled areas.
    """
    gradient = cv2.morphologyEx(grey, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    edges = (gradient > _EDGE).astype(np.uint8)
    lines = cv2.morphologyEx(edges, cv2.MORPH_CLOSE, np.ones((1, 9), np.uint8))
    count, _, found, _ = cv2.connectedComponentsWithStats(lines, connectivity=4)
    if count < 2:
        return 0.0
    width, height = found[1:, cv2.CC_STAT_WIDTH], found[1:, cv2.CC_STAT_HEIGHT]
    box = width * height
    like_text = (
        (height >= _LEAST_LINE[0])
        & (width >= _LEAST_LINE[1])
        & (height <= _MOST_LINE_HEIGHT)
        & (width >= _LEAST_ASPECT * height)
        & (found[1:, cv2.CC_STAT_AREA] >= _LEAST_FILL * box)
    )
    return float(box[like_text].sum() / grey.size)


def _border_share(grey: Pixels) -> float:
    """The share of the picture that even rows and columns at its edges make up, as in a photo of a screen with bars."""
    rows, columns = grey.std(axis=1) < _EVEN_SPREAD, grey.std(axis=0) < _EVEN_SPREAD
    height, width = grey.shape
    inner_height = height - _run(rows) - _run(rows[::-1])
    inner_width = width - _run(columns) - _run(columns[::-1])
    return 1.0 if inner_height <= 0 or inner_width <= 0 else 1 - inner_height * inner_width / (height * width)


def _run(even: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> int:
    """How many of the first values are true."""
    return len(even) if even.all() else int(np.argmin(even))
