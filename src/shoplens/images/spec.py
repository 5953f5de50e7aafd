"""How a bundle wants its pictures: the preprocessing spec that travels with the model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSpec:
    """From a picture to the tensor of one sample.

    The picture is resized (`short_side`: the shorter side becomes `resize` pixels; `squash`: both sides do), the
    centre `crop` x `crop` pixels are cut out, put into `colour` order, and mapped to `(x - mean) / scale` per
    channel in that order. With `dtype="uint8"` the raw pixels are passed on and the graph does the mapping itself.
    `resampling="exact"` averages over all pixels that one stands for, as Pillow and torchvision do. `"fast"` makes the
    crop at twice its size and averages it in squares of four: a quarter of the time, and nearly the same pixels.
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
