"""The one decoder: bytes in, an upright sRGB picture out. JPEG is decoded here by simplejpeg, the rest is delegated."""

from __future__ import annotations

from typing import Final

import simplejpeg

from shoplens.errors import ImageCorrupt, ImageDecoderFailed, ImageTooLarge, SampleError
from shoplens.images import formats, headers, pixels
from shoplens.images.headers import JpegHeader
from shoplens.images.picture import MEGABYTE, MEGAPIXEL, Limits, Picture
from shoplens.images.pixels import Pixels
from shoplens.images.sandbox import SandboxedDecoder, shared_decoder
from shoplens.images.thumbnails import thumbnail

_SANDBOXED: Final = ("avif", "heic")
# Huffman coding needs at least one bit for each block of 8 x 8 pixels: the size in a shorter file is wrong.
_MOST_PIXELS_PER_BYTE: Final = 512

_SALVAGED_SIDE: Final = 256
# A progressive file costs memory for all of its pixels at any scale, and this is only for a small picture.
_MOST_SALVAGED_PIXELS: Final = 25 * MEGAPIXEL
_LEAST_SHOWN: Final = 0.02


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
    if name == "jpeg":
        header = headers.read_jpeg(data)
        headers.check_size((header.width, header.height), limits)
        decoded = _decode_jpeg(data, header, short_side)
        if decoded is not None:
            return pixels.upright(decoded, header.orientation, name=name, width=header.width, height=header.height)
    else:
        headers.check_size(headers.read_size(name, data), limits)
    if name in _SANDBOXED:
        return (sandbox or shared_decoder()).decode(data, name=name, limits=limits, short_side=short_side)
    return formats.decode_with(formats.PLUGINS[name], name, data, limits=limits, short_side=short_side)


def _decode_jpeg(data: bytes, header: JpegHeader, short_side: int | None) -> Pixels | None:
    """Return sRGB pixels, not turned upright; None if Pillow must try.

    A progressive file needs two to three bytes per original pixel at any scale. Raises ImageCorrupt if data are
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
        raise ImageDecoderFailed("There was not enough memory to decode this photo. Send a smaller one.") from error
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


def salvage(data: bytes, *, limits: Limits, side: int = _SALVAGED_SIDE) -> bytes | None:
    """Return a JPEG of at most `side` pixels with what can still be seen in a damaged JPEG; None if nothing can.

    For people who look at what no decoder accepts; never used for classifying. The size in the header is checked
    against `limits`, and against a limit of its own, before anything is decoded.
    """
    try:
        if len(data) > limits.max_bytes or headers.sniff(data) != "jpeg":
            return None
        header = headers.read_jpeg(data)
        headers.check_size((header.width, header.height), limits)
        if header.components not in (1, 3) or header.width * header.height > _MOST_SALVAGED_PIXELS:
            return None
        _, width, height = pixels.reduction(header.width, header.height, side)
        if simplejpeg.decode_jpeg_header(data, strict=False)[:2] != (header.height, header.width):
            return None
        decoded: Pixels = simplejpeg.decode_jpeg(
            data, "RGB", min_height=height, min_width=width, min_factor=1, strict=False
        )
    except (SampleError, ValueError, KeyError, OverflowError, MemoryError):
        return None
    # Decoders fill what is missing with one colour, down to the last pixel.
    if decoded.shape != (height, width, 3) or (decoded != decoded[-1, -1]).any(axis=-1).mean() <= _LEAST_SHOWN:
        return None
    return thumbnail(pixels.upright(decoded, header.orientation, name="jpeg", width=width, height=height), side)
