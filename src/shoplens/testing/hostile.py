"""Files that attack or confuse image decoders, always the same, for tests of everything that takes photos.

Those that are made to cost time or memory are in `shoplens.testing.costly`.

for file in corpus():
    ...send file.data, compare with file.expected...
"""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageCms

Expected = Literal["refused", "decoded", "either"]

_SIZE: Final = (96, 64)
_WRITABLE: Final = {
    "jpeg": "JPEG",
    "png": "PNG",
    "webp": "WEBP",
    "gif": "GIF",
    "bmp": "BMP",
    "tiff": "TIFF",
    "avif": "AVIF",
}
_HUGE: Final = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class HostileFile:
    """One file. `expected` is what a good decoder does: refuse it, decode it, or either."""

    name: str
    data: bytes
    expected: Expected


def corpus(seed: int = 0) -> Iterator[HostileFile]:
    """Yield every file of the corpus, some hundreds, in a fixed order."""
    for expected, make in _FAMILIES:
        for name, data in make(random.Random(seed)):
            yield HostileFile(name=name, data=data, expected=expected)


def bodies(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `count` bodies for endurance tests: random bytes, and valid pictures cut, flipped and spliced."""
    chance = random.Random(seed)
    valid = list(valid_pictures().values())
    for _ in range(count):
        yield chance.choice(_MUTATIONS)(chance, chance.choice(valid))


def photo(width: int = _SIZE[0], height: int = _SIZE[1], seed: int = 0) -> Image.Image:
    """Return an RGB picture with smooth areas, edges and noise, the same for the same arguments."""
    across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [0.5 + 0.5 * np.sin(6 * (across * (1 + channel) + down * (3 - channel)) + seed) for channel in range(3)]
    noise = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    return Image.fromarray(np.clip(np.stack(waves, -1) * 255 + noise, 0, 255).astype(np.uint8))


def encoded(image: Image.Image, name: str, **options: object) -> bytes:
    """Return the image as a file of the format `name` (jpeg, png, webp, gif, bmp, tiff or avif)."""
    buffer = io.BytesIO()
    image.save(buffer, _WRITABLE[name], **options)
    return buffer.getvalue()


def valid_pictures() -> dict[str, bytes]:
    """Return a small valid picture of each format, and of the variants with another structure, by name."""
    image = photo()
    pictures = {name: encoded(image, name) for name in _WRITABLE}
    pictures["jpeg-progressive"] = encoded(image, "jpeg", progressive=True)
    pictures["jpeg-grey"] = encoded(image.convert("L"), "jpeg")
    pictures["webp-lossless"] = encoded(image, "webp", lossless=True)
    pictures["png-palette"] = encoded(image.quantize(16), "png")
    pictures["tiff-lzw"] = encoded(image, "tiff", compression="tiff_lzw")
    return pictures


def png_bomb(side: int = 12_000) -> bytes:
    """Return a one-bit PNG of `side` x `side` pixels that is a thousandth of its decoded size."""
    row = bytes(1 + (side + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    return _png_file(side, side, depth=1, colour=0, packed=packed)


def progressive_bomb(side: int = 16_000) -> bytes:
    """Return a progressive JPEG that announces `side` x `side` pixels, for which a decoder needs a buffer each."""
    return _patched_jpeg(encoded(photo(), "jpeg", progressive=True), side, side)


def scan_bomb(scans: int = 5_000) -> bytes:
    """Return a progressive JPEG that repeats its last scan `scans` times, and each costs a pass over all pixels."""
    data = encoded(photo(), "jpeg", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * scans + data[-2:]


_Files = Iterator[tuple[str, bytes]]
_Family = Callable[[random.Random], _Files]
_FAMILIES: Final[list[tuple[Expected, _Family]]] = []


def _family(expected: Expected) -> Callable[[_Family], _Family]:
    """Add the files that a function yields, as (name, data), to the corpus."""

    def register(make: _Family) -> _Family:
        _FAMILIES.append((expected, make))
        return make

    return register


@_family("refused")
def _empty(_: random.Random) -> _Files:
    yield "empty", b""
    yield "one-zero", b"\x00"
    yield "zeros", bytes(100_000)
    yield "newlines", b"\r\n" * 1_000


@_family("refused")
def _other_formats(_: random.Random) -> _Files:
    yield "html.jpg", b"<!DOCTYPE html><html><body>404</body></html>"
    yield "html-late.jpg", b"\n\n  <HTML><head><title>x</title></head></HTML>"
    yield "svg.jpg", b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
    yield "svg-xml.jpg", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>'
    yield "xml-entities.jpg", b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "aaa">]><x>&a;</x>'
    yield "pdf.jpg", b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n%%EOF"
    yield "json.jpg", b'{"error": "not found"}'
    yield "postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage"
    yield "zip.jpg", b"PK\x03\x04" + bytes(60)
    yield "icon.jpg", b"\x00\x00\x01\x00\x01\x00" + bytes(60)
    yield "photoshop.jpg", b"8BPS\x00\x01" + bytes(60)
    yield "jxl.jpg", b"\xff\x0a" + bytes(60)
    yield "mp4.jpg", _box(b"ftyp", b"isom\x00\x00\x02\x00isommp42") + _box(b"mdat", bytes(60))
    yield "wav.jpg", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(60)
    yield "python.jpg", b"import os\nos.system('true')\n"
    yield "utf16.jpg", "<html></html>".encode("utf-16")


@_family("refused")
def _truncated(_: random.Random) -> _Files:
    for name, data in valid_pictures().items():
        for percent in (2, 10, 30, 60, 80):
            yield f"{name}-cut-at-{percent}%", data[: len(data) * percent // 100]


@_family("refused")
def _wrong_headers(_: random.Random) -> _Files:
    yield "png-ihdr-huge", _png_file(_HUGE, _HUGE, depth=8, colour=2, packed=zlib.compress(bytes(10)))
    yield "png-ihdr-2^31", _png_file(2**31 - 1, 2**31 - 1, depth=16, colour=6, packed=zlib.compress(bytes(10)))
    yield "png-ihdr-larger-than-data", _png_file(4_000, 4_000, depth=8, colour=2, packed=zlib.compress(bytes(1_000)))
    yield "jpeg-sof-huge", _patched_jpeg(encoded(photo(), "jpeg"), 65_500, 65_500)
    yield "jpeg-sof-larger-than-data", _patched_jpeg(encoded(photo(), "jpeg"), 6_000, 8_000)
    yield "jpeg-sof-zero", _patched_jpeg(encoded(photo(), "jpeg"), 0, 0)
    yield "gif-screen-huge", _with(encoded(photo(), "gif"), 6, struct.pack("<HH", 65_535, 65_535))
    yield "bmp-negative-width", _with(encoded(photo(), "bmp"), 18, struct.pack("<ii", -96, 64))
    yield "bmp-huge", _with(encoded(photo(), "bmp"), 18, struct.pack("<ii", 2**31 - 1, -(2**31) + 1))
    yield "bmp-larger-than-data", _with(encoded(photo(), "bmp"), 18, struct.pack("<ii", 5_000, 5_000))
    yield "webp-canvas-huge", _webp_canvas(16_777_215, 16_777_215)
    yield "tiff-huge", _tiff({256: _HUGE, 257: _HUGE})
    yield "tiff-tile-huge", _tiff({256: 16, 257: 16, 322: 2**30, 323: 2**30, 324: 8, 325: 8})
    yield "tiff-directory-outside", b"II*\x00" + struct.pack("<I", 2**31) + bytes(60)
    yield "tiff-directory-in-header", b"II*\x00" + struct.pack("<I", 2) + bytes(60)
    yield "tiff-65535-tags", b"II*\x00" + struct.pack("<IH", 8, 65_535) + bytes(60)
    yield "tiff-million-strips", _tiff({256: 16, 257: 16, 258: 8, 259: 1, 262: 1}, {273: 5_000_000})
    yield "avif-huge", _iso_media(b"avif", _HUGE, _HUGE)
    yield "avif-larger-than-data", _iso_media(b"avif", 4_000, 4_000)
    yield "avif-without-boxes", _box(b"ftyp", b"avif\x00\x00\x00\x00avifmif1")
    yield "avif-circular-lengths", _box(b"ftyp", b"avif\x00\x00\x00\x00mif1") + struct.pack(">I4s", 1, b"meta") * 100
    yield "heic-huge", _iso_media(b"heic", _HUGE, _HUGE)
    yield "heic-larger-than-data", _iso_media(b"heic", 4_000, 4_000)


@_family("refused")
def _bombs(_: random.Random) -> _Files:
    yield "png-bomb", png_bomb()
    yield "jpeg-progressive-bomb", progressive_bomb()
    yield "jpeg-scan-bomb", scan_bomb()
    yield "jpeg-million-segments", b"\xff\xd8" + b"\xff\xfe\x00\x02" * 1_000_000
    yield "jpeg-fill-bytes", b"\xff\xd8" + b"\xff" * 2_000_000
    yield "gif-frame-larger-than-screen", _gif_with_huge_frame()


@_family("refused")
def _zero_sizes(_: random.Random) -> _Files:
    for width, height in ((0, 0), (0, 64), (64, 0)):
        yield f"png-{width}x{height}", _png_file(width, height, depth=8, colour=2, packed=zlib.compress(b""))
        yield f"bmp-{width}x{height}", _with(encoded(photo(), "bmp"), 18, struct.pack("<ii", width, height))
        yield f"gif-{width}x{height}", _with(encoded(photo(), "gif"), 6, struct.pack("<HH", width, height))


@_family("either")
def _noise(chance: random.Random) -> _Files:
    for length in (1, 10, 100, 1_000, 10_000):
        yield f"random-{length}", b"\x01" + chance.randbytes(length)
    for name, data in valid_pictures().items():
        for length in (4, 40, 4_000):
            yield f"{name}-signature-then-random-{length}", data[:16] + chance.randbytes(length)


@_family("either")
def _flipped(chance: random.Random) -> _Files:
    for name, data in valid_pictures().items():
        for number in range(8):
            yield f"{name}-flipped-{number}", _flip(chance, data)


@_family("decoded")
def _unusual_but_valid(_: random.Random) -> _Files:
    image = photo()
    jpeg = encoded(image, "jpeg")
    yield "jpeg-then-zip", jpeg + b"PK\x03\x04" + bytes(100)
    yield "jpeg-then-html", jpeg + b"<script>alert(1)</script>"
    yield "jpeg-twice", jpeg + jpeg
    yield "jpeg-with-pdf-comment", jpeg[:2] + _jpeg_segment(0xFE, b"%PDF-1.7 <html>") + jpeg[2:]
    yield "gif-with-script", encoded(image, "gif") + b"*/=1;alert(1)//"
    yield "png-then-html", encoded(image, "png") + b"<html></html>"
    yield "exif-garbage", jpeg[:2] + _jpeg_segment(0xE1, b"Exif\x00\x00II*\x00" + b"\xff" * 1_000) + jpeg[2:]
    yield "exif-circular", jpeg[:2] + _jpeg_segment(0xE1, b"Exif\x00\x00" + _circular_exif()) + jpeg[2:]
    yield "exif-full", jpeg[:2] + _jpeg_segment(0xE1, b"Exif\x00\x00" + bytes(65_000)) * 20 + jpeg[2:]
    yield "exif-orientation-99", encoded(image, "jpeg", exif=exif_block(99))
    yield "png-exif-4mb", _png_with(encoded(image, "png"), b"eXIf", b"MM\x00*" + bytes(4_000_000))
    yield "icc-garbage-jpeg", encoded(image, "jpeg", icc_profile=b"no profile" * 50)
    yield "icc-garbage-png", encoded(image, "png", icc_profile=b"no profile" * 50)
    yield "icc-cut-off", encoded(image, "jpeg", icc_profile=_srgb_profile()[:200])
    yield "tiff-circular-pages", _circular_tiff()
    for width, height in ((1, 1), (1, 5_000), (5_000, 1), (2, 3)):
        yield f"png-{width}x{height}", encoded(photo(width, height), "png")
        yield f"jpeg-{width}x{height}", encoded(photo(width, height), "jpeg")


def _cut(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.randrange(len(data))]


def _flip(chance: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 20)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _splice(chance: random.Random, data: bytes) -> bytes:
    start, end = sorted(chance.randrange(len(data)) for _ in range(2))
    return data[:start] + chance.randbytes(chance.randrange(64)) + data[end:]


def _junk(chance: random.Random, data: bytes) -> bytes:
    return data[: chance.choice((0, 4, 16, 64))] + chance.randbytes(chance.randrange(4_000))


_MUTATIONS: Final = (_cut, _flip, _splice, _junk)


def _with(data: bytes, at: int, replacement: bytes) -> bytes:
    return data[:at] + replacement + data[at + len(replacement) :]


def _jpeg_segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _patched_jpeg(data: bytes, width: int, height: int) -> bytes:
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return _with(data, frame + 5, struct.pack(">HH", height, width))


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png_file(width: int, height: int, *, depth: int, colour: int, packed: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, body) for kind, body in chunks)


def _png_with(data: bytes, kind: bytes, body: bytes) -> bytes:
    """Put one more chunk after the header of a PNG."""
    after_header = 8 + 25
    return data[:after_header] + _png_chunk(kind, body) + data[after_header:]


def exif_block(orientation: int) -> bytes:
    """Return an EXIF block with this orientation, a camera's name and a GPS position."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x0110] = "Camera of a shopper"
    exif[0x8825] = {1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)}
    return exif.tobytes()


def _circular_exif() -> bytes:
    """A directory with one tag whose next directory is itself."""
    return b"II*\x00" + struct.pack("<IHHHII", 8, 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8)


def _srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _gif_with_huge_frame() -> bytes:
    data = encoded(photo(), "gif")
    descriptor = data.index(b",\x00\x00\x00\x00", 13)
    return _with(data, descriptor + 5, struct.pack("<HH", 65_535, 65_535))


def _webp_canvas(width: int, height: int) -> bytes:
    body = struct.pack("<B3x", 0) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    chunk = b"VP8X" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def _tiff(numbers: dict[int, int], arrays: dict[int, int] | None = None) -> bytes:
    """A directory of LONG tags; those in `arrays` announce that many values and point behind the end."""
    tags = {tag: (1, value) for tag, value in numbers.items()} | {
        tag: (count, 2**30) for tag, count in (arrays or {}).items()
    }
    entries = b"".join(struct.pack("<HHII", tag, 4, *tags[tag]) for tag in sorted(tags))
    return b"II*\x00" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


def _circular_tiff() -> bytes:
    data = encoded(photo(), "tiff")
    (directory,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, directory)
    return _with(data, directory + 2 + 12 * count, struct.pack("<I", directory))


def _box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body


def _iso_media(brand: bytes, width: int, height: int) -> bytes:
    """A file that announces a picture of this size and has none."""
    extent = _box(b"ispe", struct.pack(">III", 0, width, height))
    properties = _box(b"iprp", _box(b"ipco", extent))
    return _box(b"ftyp", brand + bytes(4) + brand + b"mif1") + _box(b"meta", bytes(4) + properties)
