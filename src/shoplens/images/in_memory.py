"""Pictures that a program already has in memory: Pillow images and arrays of pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from shoplens.errors import ImageCorrupt, ImageDecoderFailed, ImageUnsupported
from shoplens.images import headers, pixels
from shoplens.images.picture import Limits, Picture


def picture_of_image(image: Image.Image, *, limits: Limits, short_side: int | None = None) -> Picture:
    """The upright sRGB picture of a Pillow image, prepared as `decode` prepares a file.

    An image that Pillow has opened but not loaded is loaded here, in this process. Raises ImageTooSmall,
    ImageTooManyPixels, ImageCorrupt and ImageDecoderFailed.
    """
    headers.check_size(image.size, limits)
    name = (image.format or "pixels").lower()
    icc = image.info.get("icc_profile") or b""
    try:
        turned = _loaded_upright(image, name)
        width, height = turned.size
        scale, _, _ = pixels.reduction(width, height, short_side)
        flat = pixels.flatten(turned, pixels.white_level(turned))
        small = flat.reduce(scale) if scale > 1 else flat
        rgb = np.array(pixels.to_srgb(small, icc))
    except MemoryError as error:
        raise ImageDecoderFailed("There was not enough memory to read this picture. Use a smaller one.") from error
    return Picture(pixels=rgb, format=name, width=width, height=height)


def _loaded_upright(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception as error:  # only Pillow and its plugins run here: on damaged files they raise unrelated classes
        raise ImageCorrupt(f"The {name.upper()} picture is damaged or incomplete.") from error


def picture_of_array(array: NDArray[Any], *, limits: Limits, short_side: int | None = None) -> Picture:
    """The picture of an array of shape (height, width, 3), uint8, in the order red, green, blue, in sRGB.

    Raises ImageUnsupported for any other array, with what to do; and as `picture_of_image`.
    """
    if array.ndim != 3 or array.shape[2] != 3:
        hint = " Pass list(array) for a batch." if array.ndim == 4 else ""
        raise ImageUnsupported(
            f"The array has the shape {array.shape}. A picture has (height, width, 3): red, green, blue.{hint}"
        )
    if array.dtype != np.uint8:
        raise ImageUnsupported(
            f"The array has the type {array.dtype}. A picture has uint8; for floats from 0 to 1: "
            "(255 * array).round().astype('uint8')."
        )
    headers.check_size((array.shape[1], array.shape[0]), limits)
    return picture_of_image(Image.fromarray(np.ascontiguousarray(array)), limits=limits, short_side=short_side)
