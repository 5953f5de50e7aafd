"""What a file is and how large its picture is, read from its header before any native code sees it.

The readers below take microseconds and allocate nothing, so a file that exceeds the limits is refused at no cost.
"""

from __future__ import annotations

import io
import mmap
import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from shoplens.errors import (
    ImageCorrupt,
    ImageMissing,
    ImageTooManyPixels,
    ImageTooSmall,
    ImageUnsupported,
    SampleError,
)
from shoplens.images.picture import MEGAPIXEL, Limits
from shoplens.messages import marked

Size = tuple[int, int]

UPRIGHT: Final = 1

_ACCEPTED: Final = marked("JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF or HEIC")
_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "jpeg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
    (b"BM", "bmp"),
    (b"II*\x00", "tiff"),
    (b"MM\x00*", "tiff"),
)
_AVIF_BRANDS: Final = frozenset((b"avif", b"avis"))
_HEIC_BRANDS: Final = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))

# Only for the error message. In lower case, because the text is compared in lower case.
_UNSUPPORTED: Final = (
    (b"%pdf", marked("a PDF document")),
    (b"%!ps", marked("a PostScript document")),
    (b"<!doctype html", marked("an HTML page")),
    (b"<html", marked("an HTML page")),
    (b"<", marked("markup text")),
    (b"{", marked("JSON text")),
    (b"[", marked("JSON text")),
    (b"pk\x03\x04", marked("a ZIP archive")),
    (b"\x1f\x8b", marked("a gzip archive")),
    (b"8bps", marked("a Photoshop file")),
    (b"ii+\x00", marked("a BigTIFF picture")),
    (b"mm\x00+", marked("a BigTIFF picture")),
    (b"\x00\x00\x01\x00", marked("an icon file")),
    (b"\xff\x0a", marked("a JPEG XL picture")),
    (b"\x00\x00\x00\x0cjxl ", marked("a JPEG XL picture")),
    (b"\x00\x00\x00\x0cjp  ", marked("a JPEG 2000 picture")),
    (b"\xff\x4f\xff\x51", marked("a JPEG 2000 picture")),
    (b"riff", marked("a sound or video file")),
)


def sniff(data: bytes) -> str:
    """Return the format's name: jpeg, png, webp, gif, bmp, tiff, avif or heic.

    Raises ImageMissing for no bytes and ImageUnsupported for anything else.
    """
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4], "big"), 256, len(data))
        brands = {data[at : at + 4] for at in (8, *range(16, length - 3, 4))}
        if brands & _AVIF_BRANDS:
            return "avif"
        if brands & _HEIC_BRANDS:
            return "heic"
    raise _refusal(data)


def _refusal(data: bytes) -> SampleError:
    if not data:
        return ImageMissing("The file is empty. Choose another photo.")
    text = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").lower()
    if data[4:8] == b"ftyp":
        kind = marked("a video or another media file")
    elif text.startswith(b"<") and b"<svg" in text:
        kind = marked("an SVG drawing")
    else:
        kind = next((name for signature, name in _UNSUPPORTED if text.startswith(signature)), "")
    detected = marked(f" This is {kind}.") if kind else ""
    return ImageUnsupported(f"Unsupported file type.{detected} Use {_ACCEPTED}.")


_DAMAGED: Final = (struct.error, ValueError, IndexError, KeyError)
"""What the readers below raise for a header that is cut off or contradicts itself."""


def _damaged(name: str) -> ImageCorrupt:
    return ImageCorrupt(f"The header of this {name.upper()} file is damaged or incomplete. Upload it again.")


def check_size(size: Size, limits: Limits, *, whole: bool = True) -> None:
    """Raise ImageTooSmall for a side of zero, ImageTooManyPixels for more than the limit.

    That is `limits.max_pixels`, and also `limits.max_whole_pixels` for a picture that must be decoded `whole`.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ImageTooSmall(f"This photo is {width} × {height} px. Choose another photo.")
    if width * height > limits.max_pixels:
        raise ImageTooManyPixels(
            f"This photo is {width:,} × {height:,} px ({width * height / MEGAPIXEL:.3g} MP). "
            f"The limit is {limits.max_pixels / MEGAPIXEL:g} MP."
        )
    if whole and width * height > limits.max_whole_pixels:
        raise ImageTooManyPixels(
            f"This photo is {width:,} × {height:,} px ({width * height / MEGAPIXEL:.3g} MP). The limit is "
            f"{limits.max_whole_pixels / MEGAPIXEL:g} MP in this format. Send it as a JPEG."
        )


# JPEG: https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B

_MARKER: Final = re.compile(rb"\xff[^\x00\xff]", re.DOTALL)
_PREFIX: Final = 0xFF
_NO_MARKERS: Final = (0x00, 0xFF)
_START_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_BODY: Final = frozenset((0x01, *range(0xD0, 0xD9)))
_START_OF_SCAN: Final = 0xDA
_APP1: Final = 0xE1
_APP2: Final = 0xE2
_EXIF: Final = b"Exif\x00\x00"
_ICC: Final = b"ICC_PROFILE\x00"

_MAX_SEGMENTS: Final = 5_000
_MAX_STRAY_BYTES: Final = 65_536
# Encoders write about ten scans. Each costs a pass over all coefficients, so thousands of small ones are an attack.
_MAX_SCANS: Final = 100
_PROGRESSIVE: Final = 0xC2
_HUFFMAN_FRAMES: Final = frozenset((0xC0, 0xC1, _PROGRESSIVE))


class JpegHeader(NamedTuple):
    """What stands before the first scan. `icc` is empty if there is no colour profile.

    `scans` is 1 for a file that is decoded in one pass, and otherwise at least the number of passes.

    A named tuple, because one is made per photo and a frozen dataclass takes ten times as long to make.
    """

    width: int
    height: int
    components: int
    huffman: bool
    scans: int
    orientation: int
    icc: bytes


def read_jpeg(data: bytes) -> JpegHeader:
    """Return what the header of a JPEG states. Raises ImageCorrupt as `read_size` does."""
    frame: tuple[int, int, int] | None = None
    kind = 0
    orientation = UPRIGHT
    profile: dict[int, bytes] = {}
    try:
        for marker, start, end in _jpeg_segments(data):
            if marker in _START_OF_FRAME and frame is None:
                frame = struct.unpack_from(">xHHB", data, start)
                kind = marker
            elif marker == _APP1 and orientation == UPRIGHT and data.startswith(_EXIF, start):
                orientation = exif_orientation(data[start:end])
            elif marker == _APP2 and data.startswith(_ICC, start):
                profile[data[start + 12]] = data[start + 14 : end]
            elif marker == _START_OF_SCAN and frame is not None:
                height, width, components = frame
                # A first scan with all components is the only one, unless the file is progressive.
                one_scan = kind != _PROGRESSIVE and data[start] == components
                scans = 1 if one_scan else data.count(b"\xff\xda", start - 4) + 1
                if scans > _MAX_SCANS:
                    raise ValueError("too many scans")
                icc = b"".join(profile[part] for part in sorted(profile))
                huffman = kind in _HUFFMAN_FRAMES
                return JpegHeader(width, height, components, huffman, scans, orientation, icc)
        raise ValueError("no scan after a frame header")
    except _DAMAGED as error:
        raise _damaged("jpeg") from error


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of the segments up to and including the first scan's header."""
    at = 2
    for _ in range(_MAX_SEGMENTS):
        if data[at] != _PREFIX or data[at + 1] in _NO_MARKERS:
            # Fill bytes and stray bytes may stand before a marker; decoders skip them too.
            found = _MARKER.search(data, at, at + _MAX_STRAY_BYTES)
            if found is None:
                raise ValueError("no further marker")
            at = found.start()
        marker = data[at + 1]
        at += 2
        if marker in _WITHOUT_BODY:
            continue
        end = at + (data[at] << 8 | data[at + 1])
        if end < at + 2 or end > len(data):
            raise ValueError("a segment that is cut off")
        yield marker, at + 2, end
        if marker == _START_OF_SCAN:
            return
        at = end


# TIFF, whose structure EXIF uses too: https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf, section 2

_TIFF_ORDERS: Final = {b"II*\x00": "<", b"MM\x00*": ">"}
_TIFF_NUMBERS: Final = {3: "H", 4: "I"}
_TIFF_BYTE_KINDS: Final = (1, 2, 6, 7)
_TIFF_ENTRY_BYTES: Final = 12
_TIFF_MAX_TAGS: Final = 1_000
_TIFF_MAX_TILE_PIXELS: Final = 16 * MEGAPIXEL
# A real photo has at most a few thousand numbers in a tag (strip offsets); decoders unpack them all to objects.
_TIFF_MAX_NUMBERS: Final = 250_000
_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323
_ORIENTATION: Final = 0x0112

# A tag: its type, how many values it states, and the four bytes that hold the values or their offset.
_Tag = tuple[int, int, bytes]


def exif_orientation(block: bytes) -> int:
    """Return 1 to 8 from an EXIF block, with or without its `Exif` prefix; 1 if it has none or is damaged."""
    try:
        order, tags = _tiff_tags(block.removeprefix(_EXIF))
        value = _tiff_number(order, tags, _ORIENTATION)
    except (ValueError, struct.error):
        return UPRIGHT
    return value if 1 <= value <= 8 else UPRIGHT


def first_tiff_page(data: mmap.mmap) -> mmap.mmap | io.BytesIO:
    """Return the file, or a copy without the link from its first page to the next where there is one.

    Readers follow that chain to count the pages, however long or circular a hostile file makes it.
    Raises ValueError or struct.error if this is no TIFF.
    """
    _, _, end = _tiff_directory(data)
    if end + 4 > len(data):
        raise ValueError("the directory is cut off")
    if data[end : end + 4] == bytes(4):
        return data
    single = bytearray(data)
    single[end : end + 4] = bytes(4)
    return io.BytesIO(single)


def _tiff(data: bytes) -> Size:
    order, tags = _tiff_tags(data)
    if any(count > _TIFF_MAX_NUMBERS and kind not in _TIFF_BYTE_KINDS for kind, count, _ in tags.values()):
        raise ValueError("a tag with too many numbers")
    if _TILE_WIDTH in tags:
        pixels = _tiff_number(order, tags, _TILE_WIDTH) * _tiff_number(order, tags, _TILE_HEIGHT)
        if pixels > _TIFF_MAX_TILE_PIXELS:
            raise ValueError("a tile that is too large")
    return _tiff_number(order, tags, _WIDTH), _tiff_number(order, tags, _HEIGHT)


def _tiff_tags(block: bytes) -> tuple[str, dict[int, _Tag]]:
    """Return the byte order ("<" or ">") and the tags of the first directory by their number."""
    order, start, end = _tiff_directory(block)
    entries = struct.iter_unpack(order + "HHI4s", block[start:end])
    return order, {name: (kind, count, field) for name, kind, count, field in entries}


def _tiff_directory(block: bytes | mmap.mmap) -> tuple[str, int, int]:
    """Return the byte order, and where the entries of the first directory start and end."""
    order = _TIFF_ORDERS.get(bytes(block[:4]))
    if order is None:
        raise ValueError("not a TIFF structure")
    (directory,) = struct.unpack_from(order + "I", block, 4)
    (count,) = struct.unpack_from(order + "H", block, directory)
    end = directory + 2 + _TIFF_ENTRY_BYTES * count
    if count > _TIFF_MAX_TAGS or end > len(block):
        raise ValueError("more tags than the file can hold")
    return order, directory + 2, end


def _tiff_number(order: str, tags: dict[int, _Tag], name: int) -> int:
    """Return the value of a tag that is one whole number. Raises ValueError for any other."""
    kind, count, field = tags.get(name, (0, 0, b""))
    if count != 1 or kind not in _TIFF_NUMBERS:
        raise ValueError(f"tag {name} is not one number")
    (value,) = struct.unpack_from(order + _TIFF_NUMBERS[kind], field)
    return int(value)


# The other formats


def read_size(name: str, data: bytes) -> Size:
    """Return (width, height) in pixels as the header of a file of format `name` states them, not turned upright.

    `name` is any but jpeg. Raises ImageCorrupt if the header is cut off or contradicts itself.
    """
    try:
        match name:
            case "png":
                kind, width, height = struct.unpack_from(">4sII", data, 12)
                if kind != b"IHDR":
                    raise ValueError("IHDR is not first")
            case "gif":
                width, height = struct.unpack_from("<HH", data, 6)
            case "bmp":
                (length,) = struct.unpack_from("<I", data, 14)
                # A negative height means that the rows go from top to bottom.
                width, height = struct.unpack_from("<HH" if length == 12 else "<ii", data, 18)
                if width < 0:
                    raise ValueError("negative width")
                height = abs(height)
            case "webp":
                width, height = _webp(data)
            case "tiff":
                width, height = _tiff(data)
            case _:
                width, height = _iso_media(data)
    except _DAMAGED as error:
        raise _damaged(name) from error
    return width, height


def _webp(data: bytes) -> Size:
    match data[12:16]:
        case b"VP8X":
            width_low, width_high, height_low, height_high = struct.unpack_from("<HBHB", data, 24)
            return (width_low | width_high << 16) + 1, (height_low | height_high << 16) + 1
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case _:
            raise ValueError("no picture chunk")


# HEIC and AVIF: ISO base media file format, ISO/IEC 14496-12 and 23008-12

_MAX_BOXES: Final = 10_000
_EXTENTS: Final = (b"meta", b"iprp", b"ipco", b"ispe")


def _iso_media(data: bytes) -> Size:
    """The largest extent: a photo of tiles states each tile and the whole, and thumbnails are smaller."""
    extents: list[Size] = [
        struct.unpack_from(">II", data, at + 4)
        for at, end in _find_boxes(data, 0, len(data), _EXTENTS, iter(range(_MAX_BOXES)))
        if end - at >= 12
    ]
    return max(extents, key=lambda extent: extent[0] * extent[1])  # ValueError if there is none


def _find_boxes(
    data: bytes, start: int, end: int, path: tuple[bytes, ...], steps: Iterator[int]
) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of the contents of every box at `path`; stop at the first box with an impossible length.

    Each box on the way, at any depth, takes one of `steps`.
    """
    for _ in steps:
        if start + 8 > end:
            return
        length, kind = struct.unpack_from(">I4s", data, start)
        content = start + 8
        if length == 1 and content + 8 <= end:
            (length,) = struct.unpack_from(">Q", data, content)
            content += 8
        stop = end if length == 0 else start + length
        if stop < content or stop > end:
            return
        if kind == path[0] and len(path) == 1:
            yield content, stop
        elif kind == path[0]:
            # `meta` is a full box: four bytes of version and flags stand before its children.
            yield from _find_boxes(data, content + 4 if kind == b"meta" else content, stop, path[1:], steps)
        start = stop
