"""The one decoder: bytes in, an upright sRGB picture out, whichever way the bytes came."""

from __future__ import annotations

from typing import Final

from shoplens.errors import ImageTooLarge
from shoplens.images import geometry, header, jpeg, raster
from shoplens.images.headers import sniff
from shoplens.images.picture import MEGABYTE, Limits, Picture
from shoplens.images.sandbox import SandboxedDecoder, shared_decoder

_ISOLATED: Final = ("avif", "heic")


def decode(
    data: bytes, *, limits: Limits, short_side: int | None = None, sandbox: SandboxedDecoder | None = None
) -> Picture:
    """Return the upright sRGB picture in `data`, told by its content; of an animation the first frame.

    With `short_side` the picture may come at 1/2, 1/4 or 1/8 of its size: the smallest whose shorter side has at
    least that many pixels. HEIC and AVIF are decoded by `sandbox`, or by one that the process shares if None.

    Raises ImageMissing, ImageTooLarge, ImageUnsupported, ImageTooSmall or ImageTooManyPixels before anything is
    decoded; ImageCorrupt, ImageNeedsExtra, ImageDecoderFailed or QueueFull later.
    """
    _check_bytes(data, limits)
    name = sniff(data)
    if name == "jpeg":
        return _decode_jpeg(data, limits, short_side)
    header.check_size(header.read_size(name, data), limits)
    if name in _ISOLATED:
        return (sandbox or shared_decoder()).decode(data, name=name, limits=limits, short_side=short_side)
    return raster.decode_with(raster.PLUGINS[name], name, data, limits=limits, short_side=short_side)


def _check_bytes(data: bytes, limits: Limits) -> None:
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"The photo has {len(data) / MEGABYTE:.1f} MB, more than the {limits.max_bytes / MEGABYTE:g} MB that are "
            "allowed. Send a smaller file."
        )


def _decode_jpeg(data: bytes, limits: Limits, short_side: int | None) -> Picture:
    facts = header.read_jpeg(data)
    header.check_size((facts.width, facts.height), limits)
    scale = geometry.reduction(facts.width, facts.height, short_side)
    pixels = jpeg.decode_fast(data, facts, scale)
    if pixels is None:
        return raster.decode_with(raster.PLUGINS["jpeg"], "jpeg", data, limits=limits, short_side=short_side)
    width, height = facts.width, facts.height
    if geometry.swaps_sides(facts.orientation):
        width, height = height, width
    return Picture(pixels=geometry.upright(pixels, facts.orientation), format="jpeg", width=width, height=height)
