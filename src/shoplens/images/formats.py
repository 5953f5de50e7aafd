"""Decode through the allow-listed Pillow plugins: every format but JPEG, and the unusual JPEGs."""

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
from shoplens.images import headers, pixels
from shoplens.images.picture import Limits, Picture
from shoplens.images.pixels import Pixels

Plugin = Callable[[io.BytesIO], ImageFile]

# Plugins are named here and called directly: `Image.open` would try others, and would warn about Pillow's own
# process-wide pixel limit after ours has already been checked.
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
    `headers.check_size` raises if the plugin finds another size than the header states.
    """
    try:
        with plugin(io.BytesIO(headers.first_tiff_page(data) if name == "tiff" else data)) as image:
            headers.check_size(image.size, limits)
            width, height = image.size
            # Pillow itself turns a TIFF upright while it loads it, and its size is already that of the result.
            orientation = headers.UPRIGHT if name == "tiff" else headers.exif_orientation(image.info.get("exif") or b"")
            scale, _, _ = pixels.reduction(width, height, short_side)
            if isinstance(image, JpegImageFile) and scale > 1:
                image.draft(None, (width // scale, height // scale))
                scale = 1
            decoded = _assemble(_first_frame(image), scale, image.info.get("icc_profile") or b"")
    except ShoplensError:
        raise
    except MemoryError as error:
        raise ImageDecoderFailed("There was not enough memory to decode this photo. Send a smaller one.") from error
    except Image.DecompressionBombError as error:
        # Only if our limit is far above Pillow's own, which its TIFF and WebP plugins always check.
        raise ImageTooManyPixels("The photo has more pixels than can be read in this format. Send a JPEG.") from error
    except Exception as error:
        # Plugins raise a dozen unrelated classes on damaged files.
        raise ImageCorrupt(f"The {name.upper()} file is damaged or incomplete. Upload it again.") from error
    return pixels.upright(decoded, orientation, name=name, width=width, height=height)


def _first_frame(image: ImageFile) -> Image.Image:
    """Load what a viewer shows first: of an animation its first frame, placed on the whole canvas."""
    if getattr(image, "default_image", False):
        # An animated PNG may carry one more picture for viewers that cannot animate; browsers do not show it.
        image.seek(1)
    covered = image.tile[0][1] if isinstance(image, GifImageFile) and image.tile else None
    image.load()
    if covered is None or covered == (0, 0, *image.size):
        return image
    canvas = Image.new("RGBA", image.size, (255, 255, 255, 0))
    canvas.paste(image.crop(covered).convert("RGBA"), covered)
    return canvas


def _assemble(image: Image.Image, scale: int, icc: bytes) -> Pixels:
    """Convert a loaded image to reduced sRGB pixels, band by band."""
    width, height = image.size
    white = pixels.white_level(image)
    inverted = False
    if isinstance(image, TiffImageFile):
        # A TIFF may use fewer bits than its container has. Pillow inverts one in which zero is white up to 8 bits only.
        bits = image.tag_v2.get(_TIFF_BITS, (16,))[0]
        white = float((1 << bits) - 1) if image.mode.startswith("I;16") and bits < 16 else white
        inverted = image.mode in pixels.WIDE_MODES and image.tag_v2.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO
    assembled = np.empty((-(-height // scale), -(-width // scale), 3), np.uint8)
    rows = max(1, _BAND_PIXELS // (8 * width)) * 8
    for top in range(0, height, rows):
        band = image if rows >= height else image.crop((0, top, width, min(height, top + rows)))
        flat = pixels.flatten(band, white)
        flat = ImageChops.invert(flat) if inverted else flat
        small = flat.reduce(scale) if scale > 1 else flat
        first = top // scale
        assembled[first : first + small.height] = np.asarray(pixels.to_srgb(small, icc))
    return assembled
