"""Turn one decoded picture into the tensor of one sample: Picture and ImageSpec in, array out. No I/O, no state.

Where the crop lies is decided once, for both resamplers, in the pixels of the resized picture, as training pipelines
do: a picture of w x h pixels becomes W x H, and the crop starts at ((W - crop) // 2, (H - crop) // 2). Neither
resampler makes the resized picture; both read the part of the original that the crop shows.

A picture that is at least twice as large as needed is first halved by averaging, as often as possible. That is what
the decoder's scaled decoding does to a JPEG, so the same photo as JPEG and as PNG meets the same filters.
"""

from __future__ import annotations

import io
import math
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from shoplens.images.picture import ImageSpec, Picture

Pixels: TypeAlias = NDArray[np.uint8]
Span: TypeAlias = tuple[float, float]

_CV2_FILTERS: Final = {"bicubic": cv2.INTER_CUBIC, "bilinear": cv2.INTER_LINEAR}
_PILLOW_FILTERS: Final = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_PILLOW_REACH: Final = {"bicubic": 2.0, "bilinear": 1.0}


def preprocess(picture: Picture, spec: ImageSpec) -> NDArray[Any]:
    """One sample without a batch dimension, C-contiguous: (crop, crop, 3) or, for "nchw", (3, crop, crop).

    The dtype is `spec.dtype`. The array never shares memory with the picture.
    """
    pixels = _crop(picture.pixels, spec)
    if spec.jpeg_quality is not None:
        pixels = _reencoded(pixels, spec.jpeg_quality)
    return arrange(pixels, spec)


def arrange(pixels: Pixels, spec: ImageSpec) -> NDArray[Any]:
    """Bring pixels of the final size, (crop, crop, 3) RGB, into the order and number range of the model."""
    ordered = pixels if spec.colour == "rgb" else pixels[:, :, ::-1]
    values = ordered if spec.dtype == "uint8" else _normalised(ordered, spec)
    return np.ascontiguousarray(values if spec.layout == "nhwc" else values.transpose(2, 0, 1))


def _crop(pixels: Pixels, spec: ImageSpec) -> Pixels:
    """The centre crop at its final size."""
    factor = _reduction(pixels.shape[:2], spec.resize)
    height, width = (length // factor for length in pixels.shape[:2])
    down, across = _resized(height, width, spec)
    rows, columns = _span(height, down, spec.crop), _span(width, across, spec.crop)
    if spec.resampling == "exact":
        return _averaged(pixels, factor, rows, columns, spec)
    top, left = _whole(rows, height), _whole(columns, width)
    return _supersampled(_window(pixels, factor, top, left), spec)


def _reduction(shape: tuple[int, ...], resize: int) -> int:
    """The greatest power of two that leaves at least `resize` pixels on the shorter side."""
    return 1 << max(0, (min(shape) // resize).bit_length() - 1)


def _resized(height: int, width: int, spec: ImageSpec) -> tuple[int, int]:
    """Height and width of the resized picture that is never made."""
    if spec.fit == "squash":
        return spec.resize, spec.resize
    short = min(height, width)
    return round(height * spec.resize / short), round(width * spec.resize / short)


def _span(length: int, resized: int, crop: int) -> Span:
    """From where to where the crop reaches along one side, in (fractions of) pixels of the picture."""
    offset, step = (resized - crop) // 2, length / resized
    return offset * step, (offset + crop) * step


def _whole(span: Span, length: int) -> slice:
    """The span to the nearest whole pixels; never empty."""
    start = min(round(span[0]), length - 1)
    return slice(start, min(max(round(span[1]), start + 1), length))


def _supersampled(window: Pixels, spec: ImageSpec) -> Pixels:
    """The window at the size of the crop: OpenCV's filters do not widen with the scale, so twice that size first."""
    interpolation = _CV2_FILTERS[spec.interpolation]
    if min(window.shape[:2]) <= spec.crop:
        return _resize(window, spec.crop, spec.crop, interpolation)
    double = _resize(window, 2 * spec.crop, 2 * spec.crop, interpolation)
    return _resize(double, spec.crop, spec.crop, cv2.INTER_AREA)


def _averaged(pixels: Pixels, factor: int, rows: Span, columns: Span, spec: ImageSpec) -> Pixels:
    """The crop by Pillow, whose filters widen with the scale and so average over all that a pixel stands for."""
    height, width = (length // factor for length in pixels.shape[:2])
    top, left = (_reach(span, length, spec) for span, length in ((rows, height), (columns, width)))
    window = Image.fromarray(np.ascontiguousarray(_window(pixels, factor, top, left)))
    box = (columns[0] - left.start, rows[0] - top.start, columns[1] - left.start, rows[1] - top.start)
    return np.asarray(window.resize((spec.crop, spec.crop), _PILLOW_FILTERS[spec.interpolation], box=box))


def _reach(span: Span, length: int, spec: ImageSpec) -> slice:
    """The pixels that the filter reads for `span`, which are more than it covers."""
    margin = _PILLOW_REACH[spec.interpolation] * max(1.0, (span[1] - span[0]) / spec.crop) + 1
    return slice(max(0, math.floor(span[0] - margin)), min(length, math.ceil(span[1] + margin)))


def _window(pixels: Pixels, factor: int, rows: slice, columns: slice) -> Pixels:
    """These rows and columns of the picture divided by `factor`."""
    part = pixels[rows.start * factor : rows.stop * factor, columns.start * factor : columns.stop * factor]
    if factor == 1:
        return part
    return _resize(part, rows.stop - rows.start, columns.stop - columns.start, cv2.INTER_AREA)


def _resize(pixels: Pixels, height: int, width: int, interpolation: int) -> Pixels:
    resized: Any = cv2.resize(pixels, (width, height), interpolation=interpolation)
    return resized  # type: ignore[no-any-return]


def _reencoded(pixels: Pixels, quality: int) -> Pixels:
    """The pixels after a way through JPEG, with the losses that some models were trained on."""
    with io.BytesIO() as file:
        Image.fromarray(pixels).save(file, format="JPEG", quality=quality)
        return np.asarray(Image.open(file))


def _normalised(pixels: Pixels, spec: ImageSpec) -> NDArray[np.float32]:
    mean, scale = np.asarray(spec.mean, np.float32), np.asarray(spec.scale, np.float32)
    return (pixels.astype(np.float32) - mean) / scale
