"""The two values of imaging: what a header says of a photo, and its decoded pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MEGABYTE: Final = 1_000_000
MEGAPIXEL: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is refused before anything is decoded."""

    max_bytes: int = 20 * MEGABYTE
    max_pixels: int = 50 * MEGAPIXEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An upright sRGB photo.

    `pixels` is (height, width, 3) uint8, C-contiguous. It may be smaller than the original by a power of two
    (scaled decoding); `width` and `height` are those of the original, seen upright. `format` is the lower-case
    name told by the content: jpeg, png, webp, gif, bmp, tiff, avif or heic.
    """

    pixels: NDArray[np.uint8]
    format: str
    width: int
    height: int
