"""The one decoder: bytes in, an upright sRGB picture out. JPEG is decoded here by simplejpeg, the rest is delegated."""

from __future__ import annotations

from typing import Final

import simplejpeg

from shoplens.errors import ImageCorrupt, ImageDecoderFailed, ImageTooLarge
from shoplens.images import colour, formats, geometry, headers
from shoplens.images.geometry import Pixels
from shoplens.images.headers import JpegHeader
from shoplens.images.picture import MEGABYTE, Limits, Picture
from shoplens.images.sandbox import SandboxedDecoder, shared_decoder

_SANDBOXED: Final = ("avif", "heic")


def decode(
    data: bytes, *, limits: Limits, short_side: int | None = None, sandbox: SandboxedDecoder | None = None
) -> Picture:
    """Return the upright sRGB picture in `data`, whose format is found by its content; of an animation the first frame.

    With `short_side` the picture may come at 1/2, 1/4 or 1/8 of its size: the smallest whose shorter side has at
    least that many pixels. HEIC and AVIF are decoded by `sandbox`, or by one that the process shares if None.

    Raises ImageMissing, ImageTooLarge, ImageUnsupported, ImageTooSmall or ImageTooManyPixels before anything is
    decoded; ImageCorrupt, ImageNeedsExtra, ImageDecoderFailed or QueueFull later.
    """
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"This photo is {len(data) / MEGABYTE:.1f} MB. The limit is {limits.max_bytes / MEGABYTE:g} MB."
        )
    name = headers.sniff(data)
    if name != "jpeg":
        headers.check_size(headers.read_size(name, data), limits)
        if name in _SANDBOXED:
            return (sandbox or shared_decoder()).decode(data, name=name, limits=limits, short_side=short_side)
        return formats.decode_with(formats.PLUGINS[name], name, data, limits=limits, short_side=short_side)

    header = headers.read_jpeg(data)
    headers.check_size((header.width, header.height), limits)
    pixels = _decode_jpeg(data, header, geometry.reduction(header.width, header.height, short_side))
    if pixels is None:
        return formats.decode_with(formats.PLUGINS["jpeg"], "jpeg", data, limits=limits, short_side=short_side)
    width, height = header.width, header.height
    if geometry.swaps_sides(header.orientation):
        width, height = height, width
    return Picture(pixels=geometry.upright(pixels, header.orientation), format="jpeg", width=width, height=height)


def _decode_jpeg(data: bytes, header: JpegHeader, scale: int) -> Pixels | None:
    """Return sRGB pixels, not turned upright, at 1/`scale` of the size; None if Pillow must try.

    A progressive file needs two to three bytes per original pixel at any scale. Raises ImageCorrupt if data are
    missing or damaged.
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
        raise ImageDecoderFailed("There was not enough memory to decode this photo. Send a smaller one.") from error
    except (ValueError, KeyError, OverflowError) as error:
        # Missing or wrong picture data is damage. Quirks such as padding before a marker leave the picture whole; as
        # only the first warning is reported, Pillow judges them again, and Pillow is strict on missing data.
        message = str(error)
        quirk = "extraneous bytes" in message or "ICC" in message
        if message.startswith("Premature end") or (message.startswith("Corrupt JPEG data") and not quirk):
            raise ImageCorrupt("The JPEG file is damaged or incomplete. Upload it again.") from error
        return None
    if pixels.shape != (height, width, 3):
        return None
    return colour.pixels_to_srgb(pixels, header.icc, grey=header.components == 1)
