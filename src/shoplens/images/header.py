"""Read the pixel size out of a header with our own few lines, so that a refusal costs no decoder and no memory."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Final, TypeVar

from shoplens.errors import ImageCorrupt, ImageTooManyPixels, ImageTooSmall
from shoplens.images import isobmff, jpeg_header, tiff
from shoplens.images.jpeg_header import JpegHeader
from shoplens.images.picture import MEGAPIXEL, Limits

Size = tuple[int, int]
Facts = TypeVar("Facts")

_TIFF_SIZE: Final = (256, 257)
_TIFF_TILE: Final = (322, 323)
_TIFF_MAX_TILE_PIXELS: Final = 16 * MEGAPIXEL
# An honest photo has at most a few thousand numbers in a tag (strip offsets); decoders unpack them all to objects.
_TIFF_MAX_NUMBERS: Final = 250_000
_TIFF_BYTE_KINDS: Final = (1, 2, 6, 7)


def read_size(name: str, data: bytes) -> Size:
    """Return (width, height) in pixels as the header of a file of format `name` announces them, not turned upright.

    Raises ImageCorrupt if the header is cut off or contradicts itself.
    """
    return _read(_READERS[name], name, data)


def read_jpeg(data: bytes) -> JpegHeader:
    """Return all that a JPEG's header tells. Raises ImageCorrupt as `read_size` does."""
    return _read(jpeg_header.read, "jpeg", data)


def check_size(size: Size, limits: Limits) -> None:
    """Raise ImageTooSmall for a side of zero, ImageTooManyPixels for more than `limits.max_pixels`."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageTooSmall(f"The photo is {width} x {height} pixels: there is nothing to see. Send another photo.")
    if width * height > limits.max_pixels:
        raise ImageTooManyPixels(
            f"The photo has {width} x {height} pixels, more than the {limits.max_pixels / MEGAPIXEL:g} megapixels "
            "that are allowed. Send it in a smaller size."
        )


def _read(reader: Callable[[bytes], Facts], name: str, data: bytes) -> Facts:
    try:
        return reader(data)
    except (struct.error, ValueError, IndexError, KeyError) as error:
        raise ImageCorrupt(
            f"The header of this {name.upper()} file is damaged or cut off. Send the photo again."
        ) from error


def _png(data: bytes) -> Size:
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise ValueError("IHDR is not first")
    return width, height


def _gif(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> Size:
    (length,) = struct.unpack_from("<I", data, 14)
    # A negative height means that the rows go from top to bottom.
    width, height = struct.unpack_from("<HH" if length == 12 else "<ii", data, 18)
    if width < 0:
        raise ValueError("negative width")
    return width, abs(height)


def _tiff(data: bytes) -> Size:
    page = tiff.first_directory(data)
    if any(count > _TIFF_MAX_NUMBERS and kind not in _TIFF_BYTE_KINDS for kind, count, _ in page.tags.values()):
        raise ValueError("a tag with too many numbers")
    if _TIFF_TILE[0] in page.tags:
        width, height = _sides(page, _TIFF_TILE)
        if width * height > _TIFF_MAX_TILE_PIXELS:
            raise ValueError("a tile that is too large")
    return _sides(page, _TIFF_SIZE)


def _sides(page: tiff.Directory, names: tuple[int, int]) -> Size:
    width, height = (page.number(name) for name in names)
    if width is None or height is None:
        raise ValueError("sides that are no numbers")
    return width, height


def _webp(data: bytes) -> Size:
    match data[12:16]:
        case b"VP8X":
            return _little24(data, 24) + 1, _little24(data, 27) + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            raise ValueError("no picture chunk")


def _little24(data: bytes, at: int) -> int:
    low, high = struct.unpack_from("<HB", data, at)
    return int(low | high << 16)


def _iso_media(data: bytes) -> Size:
    size = isobmff.size(data)
    if size is None:
        raise ValueError("no picture extent")
    return size


_READERS: Final[dict[str, Callable[[bytes], Size]]] = {
    "png": _png,
    "gif": _gif,
    "bmp": _bmp,
    "tiff": _tiff,
    "webp": _webp,
    "avif": _iso_media,
    "heic": _iso_media,
}
