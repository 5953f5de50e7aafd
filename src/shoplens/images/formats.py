"""Decode with the library of each format: simplejpeg, OpenCV for still WebP, and allow-listed Pillow plugins.

Nothing here limits time or memory. `decoder` gives it what is bounded by its structure, a sandbox everything else.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageChops
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from shoplens.errors import ImageCorrupt, ImageDecoderFailed
from shoplens.images import headers, pixels
from shoplens.images.bounds import webp_chunks
from shoplens.images.headers import JpegHeader
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

# Huffman coding needs at least one bit for each block of 8 x 8 pixels: the size in a shorter file is wrong.
_MOST_PIXELS_PER_BYTE: Final = 512


def decode_jpeg(data: bytes, header: JpegHeader, short_side: int | None) -> Pixels | None:
    """Return sRGB pixels, not turned upright; None if Pillow must try.

    A progressive file needs two to six bytes per original pixel at any scale. Raises ImageCorrupt if data are
    missing or damaged.
    """
    if header.huffman and header.width * header.height > _MOST_PIXELS_PER_BYTE * len(data):
        raise ImageCorrupt("The JPEG has too few bytes for its size. Send the photo again.")
    if header.components not in (1, 3):
        return None
    _, width, height = pixels.reduction(header.width, header.height, short_side)
    try:
        if simplejpeg.decode_jpeg_header(data, strict=False)[:2] != (header.height, header.width):
            raise ImageCorrupt("The JPEG contradicts itself about its size. Send the photo again.")
        decoded: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=1)
    except MemoryError as error:
        raise _out_of_memory() from error
    except (ValueError, KeyError, OverflowError) as error:
        # Missing or wrong picture data is damage. Quirks such as padding before a marker leave the picture whole; as
        # only the first warning is reported, Pillow judges them again, and Pillow is strict on missing data.
        message = str(error)
        quirk = "extraneous bytes" in message or "ICC" in message
        if message.startswith("Premature end") or (message.startswith("Corrupt JPEG data") and not quirk):
            raise ImageCorrupt("The JPEG file is damaged or incomplete. Upload it again.") from error
        return None
    if decoded.shape != (height, width, 3):
        return None
    return pixels.pixels_to_srgb(decoded, header.icc, grey=header.components == 1) if header.icc else decoded


def decode_webp(data: bytes, *, limits: Limits, short_side: int | None) -> Picture:
    """Return the upright sRGB picture in a WebP that is not animated: with OpenCV, in a third of Pillow's memory.

    Raises ImageCorrupt, ImageDecoderFailed, and what `headers.check_size` raises.
    """
    width, height = headers.read_size("webp", data)
    headers.check_size((width, height), limits)
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except (MemoryError, cv2.error) as error:
        raise _out_of_memory() from error
    if decoded is None or decoded.shape not in ((height, width, 3), (height, width, 4)):
        raise _damaged("webp")
    order = cv2.COLOR_BGRA2RGBA if decoded.shape[2] == 4 else cv2.COLOR_BGR2RGB
    chunks = webp_chunks(data)
    small = _assemble(
        (width, height),
        lambda rows: pixels.flatten(Image.fromarray(np.asarray(cv2.cvtColor(decoded[rows], order), np.uint8))),
        pixels.reduction(width, height, short_side)[0],
        chunks.get(b"ICCP", b""),
    )
    orientation = headers.exif_orientation(chunks.get(b"EXIF", b""))
    return pixels.upright(small, orientation, name="webp", width=width, height=height)


def decode_with(plugin: Plugin, name: str, file: io.BytesIO, *, limits: Limits, short_side: int | None) -> Picture:
    """Return the upright sRGB picture that `plugin` finds in `file`.

    Raises ImageCorrupt for whatever the plugin raises, ImageDecoderFailed if memory ran out, and what
    `headers.check_size` raises if the plugin finds another size than the header states.
    """
    with _plugin_errors(name):
        image = plugin(file)
    with image:
        headers.check_size(image.size, limits)
        width, height = image.size
        # Pillow itself turns a TIFF upright while it loads it, and its size is already that of the result.
        orientation = headers.UPRIGHT if name == "tiff" else headers.exif_orientation(image.info.get("exif") or b"")
        scale, _, _ = pixels.reduction(width, height, short_side)
        with _plugin_errors(name):
            if isinstance(image, JpegImageFile) and scale > 1:
                image.draft(None, (width // scale, height // scale))
                scale = 1
            loaded = _first_frame(image)
            flatten = _flattening(loaded)
        try:
            decoded = _assemble(loaded.size, flatten, scale, image.info.get("icc_profile") or b"")
        except MemoryError as error:
            raise _out_of_memory() from error
    del image, loaded, flatten  # turning takes as much memory again as the result
    return pixels.upright(decoded, orientation, name=name, width=width, height=height)


@contextmanager
def _plugin_errors(name: str) -> Iterator[None]:
    """Around what a plugin does, and nothing else: on damaged files plugins raise a dozen unrelated classes."""
    try:
        yield
    except MemoryError as error:
        raise _out_of_memory() from error
    except Exception as error:
        raise _damaged(name) from error


def _first_frame(image: ImageFile) -> Image.Image:
    """Load what a viewer shows first: of an animation its first frame, placed on the whole canvas."""
    if getattr(image, "default_image", False):
        # An animated PNG may carry one more picture for viewers that cannot animate; browsers do not show it.
        image.seek(1)
    covered = image.tile[0][1] if isinstance(image, GifImageFile) and image.tile else None
    image.load()
    _check_palette(image)
    if covered is None or covered == (0, 0, *image.size):
        return image
    canvas = Image.new("RGBA", image.size, (255, 255, 255, 0))
    canvas.paste(image.crop(covered).convert("RGBA"), covered)
    return canvas


def _check_palette(image: ImageFile) -> None:
    """Raises ValueError for a picture whose palette is missing.

    A PNG may name more transparent colours than its palette has. libpng, and so every browser, ignores them all then.
    """
    if image.mode != "P":
        return
    if image.palette is None:
        raise ValueError("the palette is missing")
    alphas = image.info.get("transparency")
    if isinstance(alphas, bytes) and len(alphas) > len(image.palette.palette) // len(image.palette.mode):
        del image.info["transparency"]


def _flattening(image: Image.Image) -> Callable[[slice], Image.Image]:
    """A function that returns these rows of the loaded image in mode L, RGB or CMYK, as `pixels.flatten` does."""
    width, height = image.size
    white = pixels.white_level(image)
    inverted = False
    if isinstance(image, TiffImageFile):
        # A TIFF may use fewer bits than its container has. Pillow inverts one in which zero is white up to 8 bits only.
        bits = image.tag_v2.get(_TIFF_BITS, (16,))[0]
        white = float((1 << bits) - 1) if image.mode.startswith("I;16") and bits < 16 else white
        inverted = image.mode in pixels.WIDE_MODES and image.tag_v2.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO

    def flatten(rows: slice) -> Image.Image:
        whole = rows.stop - rows.start == height
        flat = pixels.flatten(image if whole else image.crop((0, rows.start, width, rows.stop)), white)
        return ImageChops.invert(flat) if inverted else flat

    return flatten


def _assemble(size: tuple[int, int], band: Callable[[slice], Image.Image], scale: int, icc: bytes) -> Pixels:
    """Convert a picture to reduced sRGB pixels, band by band."""
    width, height = size
    assembled = np.empty((-(-height // scale), -(-width // scale), 3), np.uint8)
    for rows in pixels.bands(height, width):
        flat = band(rows)
        small = flat.reduce(scale) if scale > 1 else flat
        first = rows.start // scale
        assembled[first : first + small.height] = np.asarray(pixels.to_srgb(small, icc))
    return assembled


def _damaged(name: str) -> ImageCorrupt:
    return ImageCorrupt(f"The {name.upper()} file is damaged or incomplete. Upload it again.")


def _out_of_memory() -> ImageDecoderFailed:
    return ImageDecoderFailed("There was not enough memory to decode this photo. Send a smaller one.")
