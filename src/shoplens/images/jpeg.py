"""The fast path for JPEG: SIMD decoding at 1/1, 1/2, 1/4 or 1/8, as strict on missing data as it must be."""

from __future__ import annotations

import simplejpeg

from shoplens.errors import ImageCorrupt, ImageDecoderFailed
from shoplens.images import colour, geometry
from shoplens.images.geometry import Pixels
from shoplens.images.jpeg_header import JpegHeader


def decode_fast(data: bytes, header: JpegHeader, scale: int) -> Pixels | None:
    """Return (height, width, 3) sRGB pixels, not turned upright, at 1/`scale` of the size; None if Pillow must try.

    A progressive file needs two to three bytes per original pixel at any scale, for that is how the format works.
    Raises ImageCorrupt if data are missing or damaged.
    """
    if not header.fits_into(len(data)):
        raise ImageCorrupt("The JPEG has too few bytes for its size. Send the photo again.")
    if header.components not in (1, 3):
        return None
    height, width = geometry.reduced(header.height, scale), geometry.reduced(header.width, scale)
    try:
        if simplejpeg.decode_jpeg_header(data, strict=False)[:2] != (header.height, header.width):
            raise ImageCorrupt("The JPEG contradicts itself about its size. Send the photo again.")
        pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, min_factor=1)
    except MemoryError as error:
        raise ImageDecoderFailed("There was not enough memory to read this photo. Send a smaller one.") from error
    except (ValueError, KeyError, OverflowError) as error:
        if _is_damage(str(error)):
            raise ImageCorrupt("The JPEG is damaged or was cut off on its way. Send the photo again.") from error
        return None
    if pixels.shape != (height, width, 3):
        return None
    return colour.pixels_to_srgb(pixels, header.icc, grey=header.components == 1)


def _is_damage(message: str) -> bool:
    """Tell missing or wrong picture data from quirks that leave the picture whole, such as padding before a marker.

    Only the first warning is reported, so a quirk is judged again by Pillow, which is strict on missing data.
    """
    if message.startswith("Premature end"):
        return True
    return message.startswith("Corrupt JPEG data") and "extraneous bytes" not in message and "ICC" not in message
