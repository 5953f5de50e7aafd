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
    # The greatest power of two that leaves at least `resize` pixels on the shorter side.
    factor = 1 << max(0, (min(picture.pixels.shape[:2]) // spec.resize).bit_length() - 1)
    height, width = (length // factor for length in picture.pixels.shape[:2])
    rows, columns = _crop_spans(height, width, spec)
    resample = _average if spec.resampling == "exact" else _supersample
    pixels = resample(picture.pixels, factor, rows, columns, spec)
    if spec.jpeg_quality is not None:  # for models that were trained on the losses of JPEG
        with io.BytesIO() as file:
            Image.fromarray(pixels).save(file, format="JPEG", quality=spec.jpeg_quality)
            pixels = np.asarray(Image.open(file))
    return arrange(pixels, spec)


def arrange(pixels: Pixels, spec: ImageSpec) -> NDArray[Any]:
    """Bring pixels of the final size, (crop, crop, 3) RGB, into the order and number range of the model."""
    values: NDArray[Any] = pixels if spec.colour == "rgb" else pixels[:, :, ::-1]
    if spec.dtype == "float32":
        mean, scale = np.asarray(spec.mean, np.float32), np.asarray(spec.scale, np.float32)
        values = (values.astype(np.float32) - mean) / scale
    return np.ascontiguousarray(values if spec.layout == "nhwc" else values.transpose(2, 0, 1))


def crop_within(height: int, width: int, spec: ImageSpec) -> tuple[float, float, float, float]:
    """The part of a picture that a model sees: top, left, bottom and right in shares of its height and width."""
    rows, columns = _crop_spans(height, width, spec)
    return rows[0] / height, columns[0] / width, rows[1] / height, columns[1] / width


def _crop_spans(height: int, width: int, spec: ImageSpec) -> tuple[Span, Span]:
    """From where to where the crop reaches down and across, in (fractions of) pixels of the halved picture."""
    if spec.fit == "squash":
        down = across = spec.resize
    else:
        short = min(height, width)
        down, across = round(height * spec.resize / short), round(width * spec.resize / short)
    top, left = (down - spec.crop) // 2, (across - spec.crop) // 2
    row, column = height / down, width / across
    return (top * row, (top + spec.crop) * row), (left * column, (left + spec.crop) * column)


def _supersample(pixels: Pixels, factor: int, rows: Span, columns: Span, spec: ImageSpec) -> Pixels:
    """The crop by OpenCV, whose filters do not widen with the scale: at twice its size first, then averaged."""

    def whole(span: Span, length: int) -> slice:
        """The span to the nearest whole pixels; never empty."""
        start = min(round(span[0]), length - 1)
        return slice(start, min(max(round(span[1]), start + 1), length))

    height, width = (length // factor for length in pixels.shape[:2])
    window = _window(pixels, factor, whole(rows, height), whole(columns, width))
    interpolation = _CV2_FILTERS[spec.interpolation]
    if min(window.shape[:2]) > spec.crop:
        window = np.asarray(cv2.resize(window, (2 * spec.crop, 2 * spec.crop), interpolation=interpolation), np.uint8)
        interpolation = cv2.INTER_AREA
    return np.asarray(cv2.resize(window, (spec.crop, spec.crop), interpolation=interpolation), np.uint8)


def _average(pixels: Pixels, factor: int, rows: Span, columns: Span, spec: ImageSpec) -> Pixels:
    """The crop by Pillow, whose filters widen with the scale and so average over all that a pixel stands for."""

    def reach(span: Span, length: int) -> slice:
        """The pixels that the filter reads for `span`, which are more than it covers."""
        margin = _PILLOW_REACH[spec.interpolation] * max(1.0, (span[1] - span[0]) / spec.crop) + 1
        return slice(max(0, math.floor(span[0] - margin)), min(length, math.ceil(span[1] + margin)))

    height, width = (length // factor for length in pixels.shape[:2])
    top, left = reach(rows, height), reach(columns, width)
    window = Image.fromarray(np.ascontiguousarray(_window(pixels, factor, top, left)))
    box = (columns[0] - left.start, rows[0] - top.start, columns[1] - left.start, rows[1] - top.start)
    return np.asarray(window.resize((spec.crop, spec.crop), _PILLOW_FILTERS[spec.interpolation], box=box))


def _window(pixels: Pixels, factor: int, rows: slice, columns: slice) -> Pixels:
    """These rows and columns of the picture divided by `factor`."""
    part = pixels[rows.start * factor : rows.stop * factor, columns.start * factor : columns.stop * factor]
    if factor == 1:
        return part
    size = columns.stop - columns.start, rows.stop - rows.start
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
