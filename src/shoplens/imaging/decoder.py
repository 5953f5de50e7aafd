"""The one decoder: bytes in, an upright sRGB picture out, whichever way the bytes came."""

from __future__ import annotations

import io

import numpy as np
import simplejpeg
from PIL import Image

from shoplens.errors import ImageCorrupt, ImageTooLarge, ImageTooManyPixels
from shoplens.imaging import exif, geometry
from shoplens.imaging.picture import Limits, Picture
from shoplens.imaging.sniff import sniff


def decode(data: bytes, *, limits: Limits, short_side: int | None = None, isolation: object = None) -> Picture:
    """Thin first version: JPEG through simplejpeg, the rest through Pillow."""
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(f"The photo has {len(data):,} bytes; the limit is {limits.max_bytes:,}.")
    name = sniff(data)
    try:
        image = Image.open(io.BytesIO(data))
        width, height = image.size
        if width * height > limits.max_pixels:
            raise ImageTooManyPixels(f"The photo has {width} x {height} pixels; the limit is {limits.max_pixels:,}.")
        turn = exif.orientation(image.info.get("exif", b""))
        if name == "jpeg":
            scale = geometry.reduction(width, height, short_side)
            pixels = simplejpeg.decode_jpeg(
                data,
                "RGB",
                min_height=geometry.reduced(height, scale),
                min_width=geometry.reduced(width, scale),
                min_factor=1,
            )
        else:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageCorrupt("The photo is damaged.") from error
    if geometry.swaps_sides(turn):
        width, height = height, width
    return Picture(pixels=geometry.upright(pixels, turn), format=name, width=width, height=height)
