"""Bring any pixel mode and colour profile to 8-bit sRGB on white."""

from __future__ import annotations

import hashlib
import io
from collections import OrderedDict
from threading import Lock
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from shoplens.images.geometry import Pixels

_WHITE: Final = 255
_MAX_PROFILE_BYTES: Final = 4_000_000
_CACHED_TRANSFORMS: Final = 16
# A profile whose effect stays below this many steps of 255 is sRGB under another name; applying it only costs time.
_INVISIBLE: Final = 2
_FULL_SCALES: Final = (255, 65_535)
WIDE_MODES: Final = ("I;16", "I;16B", "I;16L", "I;16N", "I", "F")

_BASIC_MODES: Final = ("L", "RGB", "CMYK")


def to_srgb(image: Image.Image, icc: bytes) -> Image.Image:
    """Return an RGB image from one of mode L, RGB or CMYK. A broken or unfitting profile is ignored."""
    transform = _transforms.find(icc, image.mode) if icc else None
    if transform is None:
        return image.convert("RGB")
    converted = ImageCms.applyTransform(image, transform)
    return image.convert("RGB") if converted is None else converted


def pixels_to_srgb(pixels: Pixels, icc: bytes, *, grey: bool) -> Pixels:
    """Apply a profile to (height, width, 3) pixels; with `grey` all three channels are the same and it is for one."""
    mode = "L" if grey else "RGB"
    if not icc or _transforms.find(icc, mode) is None:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0]) if grey else pixels)
    return np.array(to_srgb(image, icc))


def flatten(image: Image.Image, white: float) -> Image.Image:
    """Return the image in mode L, RGB or CMYK: 8 bits, and what is transparent shows white.

    `white` is the value of white in the wide modes (see `white_level`).

    Blending comes before the profile and before any scaling, so hidden colours can never shine through.
    """
    if image.mode in WIDE_MODES:
        return _narrow(image, white)
    if image.has_transparency_data:
        return _on_white(image)
    if image.mode in _BASIC_MODES:
        return image
    if image.mode == "1":
        return image.convert("L")
    return _from_lab(image) if image.mode == "LAB" else image.convert("RGB")


def _narrow(image: Image.Image, white: float) -> Image.Image:
    """Scale 16-bit, 32-bit and float grey to 8 bits."""
    values = np.asarray(image)
    hidden = _hidden(image, values)
    if values.dtype.itemsize == 2 and white == _FULL_SCALES[1]:
        narrowed = (values >> 8).astype(np.uint8)
    else:
        scaled = np.nan_to_num(values.astype(np.float32)) * np.float32(_WHITE / white)
        narrowed = np.clip(np.rint(scaled), 0, _WHITE).astype(np.uint8)
    if hidden is not None:
        narrowed[hidden] = _WHITE
    return Image.fromarray(narrowed)


def white_level(image: Image.Image) -> float:
    """Return the value that stands for white in a wide grey image.

    Sixteen bits say it themselves. For 32 bits and floats no format does: 1 for floats up to 1, else the smallest
    usual full scale that holds the largest value, else that value.
    """
    if image.mode not in ("I", "F"):
        return _FULL_SCALES[1]
    largest = _largest(image)
    scales = (1, *_FULL_SCALES) if image.mode == "F" else _FULL_SCALES
    return next((scale for scale in scales if largest <= scale), largest)


def _largest(image: Image.Image) -> float:
    values = np.asarray(image)
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else 1.0


def _hidden(image: Image.Image, values: NDArray[np.generic]) -> NDArray[np.bool_] | None:
    """Return where a grey value that is declared transparent stands."""
    transparent = image.info.get("transparency")
    return np.asarray(values == transparent) if isinstance(transparent, int) else None


def _on_white(image: Image.Image) -> Image.Image:
    seen = image.convert("LA" if image.mode in ("LA", "La") else "RGBA")
    canvas = Image.new("L" if seen.mode == "LA" else "RGB", seen.size, "white")
    canvas.paste(seen.convert(canvas.mode), mask=seen.getchannel("A"))
    return canvas


def _from_lab(image: Image.Image) -> Image.Image:
    transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")
    return ImageCms.applyTransform(image, transform) or image.convert("L")


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


class _Transforms:
    """The transforms of the last few profiles: building one costs milliseconds, and shops meet few profiles."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[tuple[bytes, str], ImageCms.ImageCmsTransform | None] = OrderedDict()

    def find(self, icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
        """Return the transform to sRGB; None if there is nothing to do or nothing that can be done."""
        key = (hashlib.sha256(icc).digest(), mode)
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        transform = _build(icc, mode)
        with self._lock:
            self._known[key] = transform
            if len(self._known) > _CACHED_TRANSFORMS:
                self._known.popitem(last=False)
        return transform


_transforms = _Transforms()


def _build(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    if len(icc) > _MAX_PROFILE_BYTES:
        return None
    try:
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(icc)), _srgb(), mode, "RGB")
        return None if _changes_nothing(transform, mode) else transform
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _changes_nothing(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Try the transform on an even sample of all colours."""
    if mode == "CMYK":
        return False
    levels = np.linspace(0, _WHITE, 256 if mode == "L" else 9).round().astype(np.uint8)
    sample = levels[None, :] if mode == "L" else np.stack(np.meshgrid(levels, levels, levels), -1).reshape(1, -1, 3)
    image = Image.fromarray(np.ascontiguousarray(sample))
    changed = ImageCms.applyTransform(image, transform)
    difference = np.asarray(changed, np.int16) - np.asarray(image.convert("RGB"), np.int16)
    return bool(np.abs(difference).max() <= _INVISIBLE)
