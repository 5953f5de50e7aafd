"""The values of this package: limits, a decoded picture, the facts of a photo, and what a model wants.

Importing this module loads no third-party package, so manifests, entities and the command line can use it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels: TypeAlias = NDArray[np.uint8]

MEGABYTE: Final = 1_000_000
MEGAPIXEL: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The largest photo that is decoded.

    `max_whole_pixels` is for one that no decoder can read at a fraction of its size: all but JPEGs of a single scan.
    """

    max_bytes: int = 20 * MEGABYTE
    max_pixels: int = 50 * MEGAPIXEL
    max_whole_pixels: int = 25 * MEGAPIXEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An upright sRGB photo.

    `pixels` is (height, width, 3) uint8, C-contiguous. It may be smaller than the original by a power of two
    (scaled decoding); `width` and `height` are those of the original, upright. `format` is the lower-case name of
    the format that the content has: jpeg, png, webp, gif, bmp, tiff, avif or heic.
    """

    pixels: Pixels
    format: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is recorded of a photo. `width` and `height` are in pixels, upright; hashes are lower-case hex."""

    format: str
    width: int
    height: int
    byte_count: int
    sha256: str
    phash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """How a picture looks, measured at one size whatever its own size is; see `measuring.py`.

    `sharpness` is the variance of the Laplacian; `brightness` is the mean and `contrast` the standard deviation of the
    luma, 0 to 255. `dark_share` and `bright_share` are the shares of nearly black and nearly white pixels,
    `text_share` that of areas that look like lines of text, `border_share` that of an even frame or bars, all 0 to 1.
    `fingerprint` finds copies of it (`fingerprint.py`).
    """

    sharpness: float
    brightness: float
    contrast: float
    dark_share: float
    bright_share: float
    text_share: float
    border_share: float
    fingerprint: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """The preprocessing that a model needs: from a picture to the tensor of one sample. It is stored in the bundle.

    The picture is resized (`short_side`: the shorter side becomes `resize` pixels; `squash`: both sides do), the
    centre `crop` x `crop` pixels are cut out, put into `colour` order, and mapped to `(x - mean) / scale` per
    channel in that order. With `dtype="uint8"` the raw pixels are passed on and the graph does the mapping itself.
    `resampling="exact"` averages over all source pixels of a target pixel, as Pillow and torchvision do. `"fast"`
    makes the crop at twice its size and averages squares of four pixels: a quarter of the time, nearly the same pixels.
    `jpeg_quality` re-encodes the crop as JPEG first, for models that were trained on such pixels.
    """

    resize: int
    crop: int
    fit: Literal["short_side", "squash"] = "short_side"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    colour: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nhwc", "nchw"] = "nhwc"
    dtype: Literal["uint8", "float32"] = "float32"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    resampling: Literal["exact", "fast"] = "exact"
    jpeg_quality: int | None = None
