"""The general path: every other format, and unusual JPEGs, through the allow-listed Pillow plugins."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Final

import numpy as np
from PIL import Image, ImageChops
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from shoplens.errors import ImageCorrupt, ImageDecoderFailed, ImageTooManyPixels, ShoplensError
from shoplens.images import colour, exif, geometry, header, tiff
from shoplens.images.geometry import Pixels
from shoplens.images.picture import Limits, Picture

Plugin = Callable[[io.BytesIO], ImageFile]

# Plugins are named here and called directly: `Image.open` would try others, and would answer for Pillow's own
# process-wide pixel limit with a warning after ours has already been checked.
PLUGINS: Final[dict[str, Plugin]] = {
    "jpeg": JpegImageFile,
    "png": PngImageFile,
    "gif": GifImageFile,
    "bmp": BmpImageFile,
    "tiff": TiffImageFile,
    "webp": WebPImageFile,
}

_TIFF_PHOTOMETRIC: Final = 262
_TIFF_BITS: Final = 258
_WHITE_IS_ZERO: Final = 0

# Work on about this many pixels at a time, so that intermediate copies stay small beside the photo itself.
_BAND_PIXELS: Final = 1_000_000


def decode_with(plugin: Plugin, name: str, data: bytes, *, limits: Limits, short_side: int | None) -> Picture:
    """Return the upright sRGB picture that `plugin` finds in `data`.

    Raises ImageCorrupt for whatever the plugin raises, ImageDecoderFailed if memory ran out, and what
    `header.check_size` raises if the plugin finds another size than the header announced.
    """
    try:
        return _decode(plugin, name, data, limits, short_side)
    except ShoplensError:
        raise
    except MemoryError as error:
        raise ImageDecoderFailed(
            "There was not enough memory to read this photo. Send it in a smaller size."
        ) from error
    except Image.DecompressionBombError as error:
        # Only if our limit was set far above Pillow's own, which its TIFF and WebP plugins keep asking for.
        raise ImageTooManyPixels("The photo has more pixels than can be read in this format. Send a JPEG.") from error
    except Exception as error:
        # Plugins raise a dozen unrelated classes on damaged files; whichever it is, the file is at fault.
        raise ImageCorrupt(
            f"The {name.upper()} file is damaged or was cut off on its way. Send the photo again."
        ) from error


def _decode(plugin: Plugin, name: str, data: bytes, limits: Limits, short_side: int | None) -> Picture:
    with plugin(io.BytesIO(tiff.first_page_only(data) if name == "tiff" else data)) as image:
        header.check_size(image.size, limits)
        width, height = image.size
        # Pillow turns a TIFF itself while it loads it, and gives its size as it will be then.
        orientation = exif.UPRIGHT if name == "tiff" else exif.orientation(image.info.get("exif") or b"")
        scale = geometry.reduction(width, height, short_side)
        if isinstance(image, JpegImageFile) and scale > 1:
            image.draft(None, (width // scale, height // scale))
            scale = 1
        pixels = _assemble(_first_frame(image), scale, image.info.get("icc_profile") or b"")
    if geometry.swaps_sides(orientation):
        width, height = height, width
    return Picture(pixels=geometry.upright(pixels, orientation), format=name, width=width, height=height)


def _first_frame(image: ImageFile) -> Image.Image:
    """Load what a viewer shows first: of an animation its first frame, placed on the whole canvas."""
    if getattr(image, "default_image", False):
        # An animated PNG may carry one more picture for viewers that cannot animate; nobody else sees it.
        image.seek(1)
    covered = image.tile[0][1] if isinstance(image, GifImageFile) and image.tile else None
    image.load()
    if covered is None or covered == (0, 0, *image.size):
        return image
    canvas = Image.new("RGBA", image.size, (255, 255, 255, 0))
    canvas.paste(image.crop(covered).convert("RGBA"), covered)
    return canvas


def _assemble(image: Image.Image, scale: int, icc: bytes) -> Pixels:
    """Bring a loaded image to reduced sRGB pixels, band by band."""
    width, height = image.size
    white = _white_level(image)
    pixels = np.empty((geometry.reduced(height, scale), geometry.reduced(width, scale), 3), np.uint8)
    rows = max(1, _BAND_PIXELS // (8 * width)) * 8
    for top in range(0, height, rows):
        band = image if rows >= height else image.crop((0, top, width, min(height, top + rows)))
        flat = _positive(colour.flatten(band, white), image)
        small = flat.reduce(scale) if scale > 1 else flat
        first = top // scale
        pixels[first : first + small.height] = np.asarray(colour.to_srgb(small, icc))
    return pixels


def _white_level(image: Image.Image) -> float:
    """Return the value of white in wide modes; a TIFF may use fewer bits than its container has."""
    bits = image.tag_v2.get(_TIFF_BITS, (16,))[0] if isinstance(image, TiffImageFile) else 16
    if image.mode.startswith("I;16") and bits < 16:
        return float((1 << bits) - 1)
    return colour.white_level(image)


def _positive(flat: Image.Image, image: Image.Image) -> Image.Image:
    """Invert a wide TIFF in which zero is white; Pillow does so for eight bits and fewer, but not for more."""
    wide = image.mode in colour.WIDE_MODES
    if wide and isinstance(image, TiffImageFile) and image.tag_v2.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
        return ImageChops.invert(flat)
    return flat
