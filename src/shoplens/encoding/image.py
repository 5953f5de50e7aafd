"""Turn one decoded picture into the tensor of one sample: Picture and ImageSpec in, array out. No I/O, no state."""

from __future__ import annotations

import io
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shoplens.encoding.spec import ImageSpec
from shoplens.imaging.picture import Picture

Pixels = NDArray[np.uint8]

_CV2_FILTERS: Final = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR}
_PILLOW_FILTERS: Final = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def encode(picture: Picture, spec: ImageSpec) -> NDArray[Any]:
    """One sample without a batch dimension, C-contiguous: (crop, crop, 3) or, for "nchw", (3, crop, crop).

    The dtype is `spec.dtype`. The array never shares memory with the picture.
    """
    pixels = _reencoded_crop(picture.pixels, spec) if spec.jpeg_quality else _crop(picture.pixels, spec)
    ordered = pixels if spec.colour == "rgb" else pixels[:, :, ::-1]
    values = ordered if spec.dtype == "uint8" else _normalised(ordered, spec)
    return np.ascontiguousarray(values if spec.layout == "nhwc" else values.transpose(2, 0, 1))


def _normalised(pixels: Pixels, spec: ImageSpec) -> NDArray[np.float32]:
    mean, scale = np.asarray(spec.mean, np.float32), np.asarray(spec.scale, np.float32)
    return ((pixels.astype(np.float32) - mean) / scale).astype(np.float32, copy=False)


def _crop(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """The centre crop at its final size, resampled from the part of the picture that it shows and from nothing else."""
    reduced = _reduced(pixels[_shown(pixels.shape[:2], spec)], spec.crop)
    return cv2.resize(reduced, (spec.crop, spec.crop), interpolation=_CV2_FILTERS[spec.interpolation])  # type: ignore[return-value]


def _shown(shape: tuple[int, int], spec: ImageSpec) -> tuple[slice, slice]:
    """Rows and columns of the picture that end up in the crop, to the nearest pixel."""
    height, width = shape
    short = min(height, width)
    sides = (height, width) if spec.fit == "squash" else (short, short)
    kept = [max(1, round(side * spec.crop / spec.resize)) for side in sides]
    return _middle(height, kept[0]), _middle(width, kept[1])


def _middle(length: int, kept: int) -> slice:
    start = (length - kept) // 2
    return slice(start, start + kept)


def _reduced(pixels: Pixels, crop: int) -> Pixels:
    """Halve by averaging until less than a factor of two is left, as the decoder does for JPEG: no aliasing."""
    factor = 1
    while min(pixels.shape[:2]) >= 2 * factor * crop:
        factor *= 2
    if factor == 1:
        return pixels
    height, width = pixels.shape[0] // factor, pixels.shape[1] // factor
    even = pixels[: height * factor, : width * factor]
    return cv2.resize(even, (width, height), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def _reencoded_crop(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """The same crop through Pillow, whose filter averages, and then through JPEG and back."""
    height, width = pixels.shape[:2]
    short = min(height, width)
    scaled = [round(side * spec.resize / short) for side in (width, height)]
    size = (spec.resize, spec.resize) if spec.fit == "squash" else (scaled[0], scaled[1])
    resized = Image.fromarray(pixels).resize(size, _PILLOW_FILTERS[spec.interpolation])
    left, top = (size[0] - spec.crop) // 2, (size[1] - spec.crop) // 2
    cropped = resized.crop((left, top, left + spec.crop, top + spec.crop))
    with io.BytesIO() as file:
        cropped.save(file, format="JPEG", quality=spec.jpeg_quality)
        return np.asarray(Image.open(file))
