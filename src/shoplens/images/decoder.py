"""The one decoder: bytes in, an upright sRGB picture out, here where the file's structure bounds the cost, or apart."""

from __future__ import annotations

import io
from typing import Final

import simplejpeg

from shoplens.errors import ImageTooLarge, SampleError
from shoplens.images import bounds, formats, headers, pixels
from shoplens.images.picture import MEGABYTE, Limits, Picture
from shoplens.images.pixels import Pixels
from shoplens.images.sandbox import SandboxedDecoder, shared_decoder
from shoplens.images.thumbnails import thumbnail

_SALVAGED_SIDE: Final = 256
_LEAST_SHOWN: Final = 0.02


def decode(
    data: bytes, *, limits: Limits, short_side: int | None = None, sandbox: SandboxedDecoder | None = None
) -> Picture:
    """Return the upright sRGB picture in `data`, whose format is found by its content; of an animation the first frame.

    With `short_side` the picture may come at 1/2, 1/4 or 1/8 of its size: the smallest whose shorter side has at
    least that many pixels, and never more than 16 MP. What `bounds` does not admit to this process is decoded by
    `sandbox`, or by one that the process shares if None.

    Raises ImageMissing, ImageTooLarge, ImageUnsupported, ImageTooSmall or ImageTooManyPixels before anything is
    decoded; ImageCorrupt, ImageNeedsExtra, ImageDecoderFailed or QueueFull later.
    """
    return decode_here(data, limits=limits, short_side=short_side) or decode_apart(
        data, limits=limits, short_side=short_side, sandbox=sandbox or shared_decoder()
    )


def decode_here(data: bytes, *, limits: Limits, short_side: int | None = None) -> Picture | None:
    """The first half of `decode`: the picture if this process may decode the file, None if only the sandbox may."""
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"This photo is {len(data) / MEGABYTE:.1f} MB. The limit is {limits.max_bytes / MEGABYTE:g} MB."
        )
    name = headers.sniff(data)
    return _decode_jpeg(data, limits, short_side) if name == "jpeg" else _decode_other(name, data, limits, short_side)


def decode_apart(data: bytes, *, limits: Limits, short_side: int | None, sandbox: SandboxedDecoder) -> Picture:
    """The second half of `decode`, for a file for which `decode_here` returned None. Waits for a process."""
    return sandbox.decode(data, name=headers.sniff(data), limits=limits, short_side=short_side)


def _decode_jpeg(data: bytes, limits: Limits, short_side: int | None) -> Picture | None:
    """The picture in a JPEG; None if the sandbox must decode it."""
    header = headers.read_jpeg(data)
    headers.check_size((header.width, header.height), limits, whole=header.scans > 1)
    if not bounds.jpeg_is_bounded(header):
        return None
    decoded = formats.decode_jpeg(data, header, short_side)
    if decoded is None:
        return None
    return pixels.upright(decoded, header.orientation, name="jpeg", width=header.width, height=header.height)


def _decode_other(name: str, data: bytes, limits: Limits, short_side: int | None) -> Picture | None:
    """The picture in a PNG or WebP; None if the sandbox must decode it, which it does for all other formats."""
    size = headers.read_size(name, data)
    headers.check_size(size, limits)
    if name == "png" and bounds.png_is_bounded(data, size):
        plugin = formats.PLUGINS[name]
        return formats.decode_with(plugin, name, io.BytesIO(data), limits=limits, short_side=short_side)
    if name == "webp" and bounds.webp_is_bounded(data, size):
        return formats.decode_webp(data, limits=limits, short_side=short_side)
    return None


def salvage(data: bytes, *, limits: Limits, side: int = _SALVAGED_SIDE) -> bytes | None:
    """Return a JPEG of at most `side` pixels with what can still be seen in a damaged JPEG; None if nothing can.

    For people who look at what no decoder accepts; never used for classifying. The size in the header is checked
    against `limits`, and its structure as for any photo in this process, before anything is decoded.
    """
    try:
        if len(data) > limits.max_bytes or headers.sniff(data) != "jpeg":
            return None
        header = headers.read_jpeg(data)
        headers.check_size((header.width, header.height), limits, whole=header.scans > 1)
        if not bounds.jpeg_is_bounded(header):
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
