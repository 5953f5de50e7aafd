"""What is done with the pixels of any format: reduce them, bring them to 8-bit sRGB on white, turn them upright."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from shoplens.images.picture import MEGAPIXEL, Picture

# One picture is one unit of work; parallelism comes from working on several pictures at once. OpenCV would
# otherwise start a thread per core for each call. The setting holds for the whole process and is made only here.
cv2.setNumThreads(1)

Pixels = NDArray[np.uint8]

WIDE_MODES: Final = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")

_SCALES: Final = (8, 4, 2)
# A very long picture is reduced further than its short side asks for.
_MOST_REDUCED: Final = 16 * MEGAPIXEL
# Work on about this many pixels at a time, so that intermediate copies stay small beside the photo itself.
_BAND_PIXELS: Final = 1_000_000
_WHITE: Final = 255
_FULL_SCALES: Final = (255, 65_535)
_BASIC_MODES: Final = ("L", "RGB", "CMYK")
_MAX_PROFILE_BYTES: Final = 4_000_000
_CACHED_TRANSFORMS: Final = 16
# A profile whose effect stays below this many steps of 255 is sRGB under another name; applying it only costs time.
_INVISIBLE: Final = 2


def reduction(width: int, height: int, short_side: int | None) -> tuple[int, int, int]:
    """Return the largest scale of 1, 2, 4, 8 that leaves the shorter side at least `short_side` pixels.

    It is larger where that would leave more than 16 MP of a very long picture. With it come width and height at
    1/scale; a fraction of a pixel counts as one.
    """
    scale = 1
    if short_side is not None:
        scale = next((scale for scale in _SCALES if min(width, height) >= scale * short_side), 1)
        while scale < _SCALES[0] and width * height > _MOST_REDUCED * scale * scale:
            scale *= 2
    return scale, -(-width // scale), -(-height // scale)


def upright(pixels: Pixels, orientation: int, *, name: str, width: int, height: int) -> Picture:
    """Return the picture without its EXIF orientation (1 to 8). `name` is its format.

    `width` and `height` are those of the original as its file has them; pixels are C-contiguous, also in the result.
    """
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
            turned = pixels
    if orientation >= 5:
        width, height = height, width
    return Picture(pixels=np.asarray(turned, np.uint8), format=name, width=width, height=height)


def flatten(image: Image.Image, white: float = _FULL_SCALES[1]) -> Image.Image:
    """Return the image in mode L, RGB or CMYK: 8 bits, and what is transparent shows white.

    `white` is the value of white in the wide modes (see `white_level`).

    Blending comes before the profile and before any scaling, so hidden colours can never shine through.
    """
    if image.mode in WIDE_MODES:
        return _narrow(image, white)
    if image.has_transparency_data:
        seen = image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
        canvas = Image.new("L" if seen.mode == "LA" else "RGB", seen.size, "white")
        canvas.paste(seen.convert(canvas.mode), mask=seen.getchannel("A"))
        return canvas
    if image.mode in _BASIC_MODES:
        return image
    if image.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")
        return ImageCms.applyTransform(image, transform) or image.convert("L")
    return image.convert("L" if image.mode == "1" else "RGB")


def _narrow(image: Image.Image, white: float) -> Image.Image:
    """Scale 16-bit, 32-bit and float grey to 8 bits."""
    values = np.asarray(image)
    if values.dtype.itemsize == 2 and white == _FULL_SCALES[1]:
        narrowed = (values >> 8).astype(np.uint8)
    else:
        scaled = np.nan_to_num(values.astype(np.float32)) * np.float32(_WHITE / white)
        narrowed = np.clip(np.rint(scaled), 0, _WHITE).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        narrowed[values == transparent] = _WHITE
    return Image.fromarray(narrowed)


def white_level(image: Image.Image) -> float:
    """Return the value that stands for white in a wide grey image.

    Sixteen bits say it themselves. For 32 bits and floats no format does: 1 for floats up to 1, else the smallest
    usual full scale that holds the largest value, else that value.
    """
    if image.mode not in ("I", "F"):
        return _FULL_SCALES[1]
    values = np.asarray(image)
    finite = values[np.isfinite(values)]
    largest = float(finite.max()) if finite.size else 1.0
    scales = (1, *_FULL_SCALES) if image.mode == "F" else _FULL_SCALES
    return next((scale for scale in scales if largest <= scale), largest)


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Return an RGB image from one of mode L, RGB or CMYK. A broken or unfitting profile is ignored."""
    transform = find_transform(icc, image.mode) if 0 < len(icc) <= _MAX_PROFILE_BYTES else None
    converted = None if transform is None else ImageCms.applyTransform(image, transform)
    return image.convert("RGB") if converted is None else converted


def pixels_to_srgb(pixels: Pixels, icc: bytes, *, grey: bool) -> Pixels:
    """Apply a profile to (height, width, 3) pixels; with `grey` all three channels are the same and it is for one."""
    if len(icc) > _MAX_PROFILE_BYTES or find_transform(icc, "L" if grey else "RGB") is None:
        return pixels
    converted = np.empty_like(pixels)
    for rows in bands(*pixels.shape[:2]):
        image = Image.fromarray(np.ascontiguousarray(pixels[rows, :, 0]) if grey else pixels[rows])
        converted[rows] = np.asarray(to_srgb(image, icc))
    return converted


def bands(height: int, width: int) -> Iterator[slice]:
    """Yield the rows of a picture in parts of about a megapixel; all but the last have a multiple of 8 rows."""
    rows = max(1, _BAND_PIXELS // (8 * width)) * 8
    return (slice(top, min(height, top + rows)) for top in range(0, height, rows))


@functools.lru_cache(_CACHED_TRANSFORMS)  # building one costs milliseconds, and shops meet few profiles
def find_transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB; None if there is nothing to do or nothing that can be done."""
    try:
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(icc)), _srgb(), mode, "RGB")
        if mode == "CMYK":
            return transform
        # Try it on an even sample of all colours.
        levels = np.linspace(0, _WHITE, 256 if mode == "L" else 9).round().astype(np.uint8)
        sample = levels[None, :] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
        image = Image.fromarray(np.ascontiguousarray(sample))
        changed = np.asarray(ImageCms.applyTransform(image, transform), np.int16)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    difference = np.abs(changed - np.asarray(image.convert("RGB"), np.int16))
    return None if difference.max() <= _INVISIBLE else transform


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
