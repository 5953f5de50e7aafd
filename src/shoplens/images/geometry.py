"""Scale by powers of two and turn upright."""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

# One picture is one unit of work; parallelism comes from working on several pictures at once. OpenCV would
# otherwise start a thread per core for each call. The setting holds for the whole process and is made only here.
cv2.setNumThreads(1)

Pixels = NDArray[np.uint8]
_SCALES: Final = (8, 4, 2)


def reduction(width: int, height: int, short_side: int | None) -> int:
    """Return the largest of 1, 2, 4, 8 that leaves the shorter side at least `short_side` pixels."""
    if short_side is None:
        return 1
    shorter = min(width, height)
    return next((scale for scale in _SCALES if shorter >= scale * short_side), 1)


def reduced(side: int, scale: int) -> int:
    """Return the length of a side after reduction; a fraction of a pixel counts as one."""
    return -(-side // scale)


def halved(pixels: Pixels, side: int) -> Pixels:
    """Average two by two as often as the longer side stays at least `side` pixels.

    A last odd row or column is left out. OpenCV vectorises averaging by two and by no other factor.
    """
    rows, columns = pixels.shape[:2]
    while max(rows, columns) >= 2 * side and min(rows, columns) >= 2:
        rows, columns = rows // 2, columns // 2
        halves = pixels[: 2 * rows, : 2 * columns]
        pixels = np.asarray(cv2.resize(halves, (columns, rows), interpolation=cv2.INTER_AREA), np.uint8)
    return pixels


def shrink(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resize to (height, width) by linear interpolation, for factors below two."""
    return np.asarray(cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undo an EXIF orientation (1 to 8); the result is C-contiguous."""
    match orientation:
        case 2:
            turned = cv2.flip(pixels, 1)
        case 3:
            turned = cv2.rotate(pixels, cv2.ROTATE_180)
        case 4:
            turned = cv2.flip(pixels, 0)
        case 5:
            turned = cv2.transpose(pixels)
        case 6:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_CLOCKWISE)
        case 7:
            turned = cv2.flip(cv2.transpose(pixels), -1)
        case 8:
            turned = cv2.rotate(pixels, cv2.ROTATE_90_COUNTERCLOCKWISE)
        case _:
            return pixels
    return turned  # type: ignore[return-value]


def swaps_sides(orientation: int) -> bool:
    """Whether undoing this orientation exchanges width and height."""
    return orientation >= 5
