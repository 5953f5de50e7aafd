"""Files that would cost a careless decoder seconds of CPU time or hundreds of megabytes; each is a real attack.

They are valid as far as possible, since what is plainly damaged costs nobody anything.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from collections.abc import Iterator
from typing import Final

import numpy as np
from PIL import Image, ImageCms

from shoplens.testing.hostile import exif_block

_FLOOD: Final = 400_000
_LARGE: Final = (4_000, 3_900)
# Below the limit for what must be decoded whole, and as near to it as matters.
_LARGEST: Final = (5_000, 4_900)


def costly_files() -> Iterator[tuple[str, bytes]]:
    """Yield (name, data) of each file, up to some megabytes long."""
    for make in (_profiles, _bmp, _tiff_files, _webp_files, _png_files, _gif_files, _iso_files, _jpeg_files):
        yield from make()


# Colour profiles


def pipeline_profile(elements: int = 30_000) -> bytes:
    """Return an sRGB profile with a `D2B0` pipeline of so many matrices, all stored in the same 60 bytes."""
    matrix = struct.pack(">4s4xHH12f", b"matf", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    at = 16 + 8 * elements
    pipeline = struct.pack(">4s4xHHI", b"mpet", 3, 3, elements) + struct.pack(">II", at, len(matrix)) * elements
    return _with_tag(b"D2B0", pipeline + matrix)


def table_profile(points: int = 43) -> bytes:
    """Return an sRGB profile with an `A2B0` table of `points` cubed colours: simple, and nearly 1 MB with 43."""
    table = np.random.default_rng(0).integers(0, 65_536, 3 * points**3, dtype=np.uint16).astype(">u2").tobytes()
    curve = struct.pack(">HH", 0, 65_535)
    identity = struct.pack(">9i", 65_536, 0, 0, 0, 65_536, 0, 0, 0, 65_536)
    head = struct.pack(">4s4xBBBx", b"mft2", 3, 3, points) + identity + struct.pack(">HH", 2, 2)
    return _with_tag(b"A2B0", head + curve * 3 + table + curve * 3)


def overlapping_profile() -> bytes:
    """Return a profile whose tags overlap."""
    profile = bytearray(_srgb())
    first, second = (132 + 12 * number for number in range(2))
    (offset, size) = struct.unpack_from(">II", profile, first + 4)
    struct.pack_into(">II", profile, second + 4, offset + 2, size)
    return bytes(profile)


def _profiles() -> Iterator[tuple[str, bytes]]:
    picture = _flat(1_200, 900)
    for kind, profile in (("pipeline", pipeline_profile()), ("table", table_profile()), ("odd", overlapping_profile())):
        for name in ("jpeg", "png", "webp", "tiff"):
            yield f"{name}-icc-{kind}", _encoded(picture, name, icc_profile=profile)
    yield "cmyk-jpeg-icc-pipeline", _encoded(picture.convert("CMYK"), "jpeg", icc_profile=pipeline_profile())
    yield "grey-png-icc-pipeline", _encoded(picture.convert("L"), "png", icc_profile=pipeline_profile())


def _srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _with_tag(name: bytes, data: bytes) -> bytes:
    """The sRGB profile with one more tag."""
    profile = _srgb()
    (count,) = struct.unpack_from(">I", profile, 128)
    end = 132 + 12 * count
    entries = [struct.unpack_from(">4sII", profile, at) for at in range(132, end, 12)]
    body = profile[end:] + bytes(-len(profile) % 4)
    tags = [(tag, offset + 12, size) for tag, offset, size in entries]
    tags.append((name, end + 12 + len(body), len(data)))
    table = struct.pack(">I", len(tags)) + b"".join(struct.pack(">4sII", *tag) for tag in tags)
    whole = bytearray(profile[:128] + table + body + data)
    struct.pack_into(">I", whole, 0, len(whole))
    return bytes(whole)


# Formats


def _bmp() -> Iterator[tuple[str, bytes]]:
    width, height = _LARGEST
    palette = bytes(range(256)) * 4
    for name, packed in (("short", b"\x00\x01\x00\x00"), ("long", b"\x01\x01" * _FLOOD + b"\x00\x01")):
        info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(packed), 0, 0, 256, 0)
        head = struct.pack("<2sIHHI", b"BM", 54 + 1_024 + len(packed), 0, 0, 54 + 1_024)
        yield f"bmp-rle-{name}", head + info + palette + packed
    wide = struct.pack("<IiiHHIIiiII", 40, 2_000_000, 12, 1, 8, 1, 4, 0, 0, 256, 0)
    jump = b"\x00\x02\xff\xff"  # 255 pixels to the right and 255 rows up
    yield "bmp-rle-jump", struct.pack("<2sIHHI", b"BM", 54 + 1_024 + 4, 0, 0, 54 + 1_024) + wide + palette + jump


def _tiff_files() -> Iterator[tuple[str, bytes]]:
    tile = zlib.compress(bytes(16 * 1_000_000), 9)
    yield "tiff-tiles", _tiff(5_000, 16, tile, {322: 16, 323: 1_000_000}, parts=313)
    yield "tiff-large-tiles", _tiff(5_000, 4_000, tile, {322: 4_000, 323: 4_000}, parts=2)
    width, height = _LARGEST
    row = zlib.compress(bytes(width), 9)
    yield "tiff-strips", _tiff(width, height, row, {278: 1}, parts=height)
    strip = zlib.compress(bytes(width * height), 9)
    yield "tiff-same-strips", _tiff(width, height, strip, {278: 1}, parts=height)


def _tiff(width: int, height: int, part: bytes, tags: dict[int, int], *, parts: int) -> bytes:
    """A grey deflated TIFF all of whose tiles or strips are the same bytes."""
    tiled = 322 in tags
    offsets_tag, counts_tag = (324, 325) if tiled else (273, 279)
    entries = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1, **tags}
    at = 8 + 2 + 12 * (len(entries) + 2) + 4
    rows = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries.items()]
    rows.append(struct.pack("<HHII", offsets_tag, 4, parts, at))
    rows.append(struct.pack("<HHII", counts_tag, 4, parts, at + 4 * parts))
    rows.sort(key=lambda row: int.from_bytes(row[:2], "little"))
    data_at = at + 8 * parts
    arrays = struct.pack("<I", data_at) * parts + struct.pack("<I", len(part)) * parts
    head = b"II*\x00" + struct.pack("<IH", 8, len(rows)) + b"".join(rows) + bytes(4)
    return head + arrays + part


def flat_webp(width: int, height: int) -> bytes:
    """Return a valid WebP of one colour, whatever its size in 38 bytes: a code of one symbol takes no bits."""
    bits = (width - 1) | (height - 1) << 14
    coded = bits.to_bytes(4, "little") + sum(1 << 3 + 4 * code for code in range(5)).to_bytes(4, "little") + bytes(8)
    return _webp_file(b"VP8L", b"\x2f" + coded + bytes(1))


def _webp_files() -> Iterator[tuple[str, bytes]]:
    yield "webp-50-mp-in-38-bytes", flat_webp(16_383, 3_051)
    yield "webp-24-mp-in-38-bytes", flat_webp(*_LARGEST)
    yield "webp-1-mp-in-38-bytes", flat_webp(1_000, 1_000)
    animated = _encoded(_flat(*_LARGE), "webp", method=0, save_all=True, append_images=[_flat(*_LARGE, colour=9)])
    yield "webp-animated", animated
    plain = _encoded(_flat(640, 480), "webp")
    flood = plain[12:] + b"JUNK\x00\x00\x00\x00" * _FLOOD
    yield "webp-chunks", b"RIFF" + struct.pack("<I", len(flood) + 4) + b"WEBP" + flood
    coded = _lossless_codes(1_024)
    yield "webp-65536-codes", _webp_file(b"VP8L", coded)
    seen = Image.effect_noise((1_024, 1_024), 50)
    transparent = _encoded(Image.merge("RGBA", (seen, seen, seen, seen)), "webp", quality=1)
    at = transparent.index(b"ALPH")
    (length,) = struct.unpack_from("<I", transparent, at + 4)
    packed = b"\x01" + coded[5:]
    channel = b"ALPH" + struct.pack("<I", len(packed)) + packed + bytes(len(packed) % 2)
    parts = transparent[12:at] + channel + transparent[at + 8 + length + length % 2 :]
    yield "webp-65536-codes-of-transparency", b"RIFF" + struct.pack("<I", len(parts) + 4) + b"WEBP" + parts


def _lossless_codes(side: int) -> bytes:
    """A lossless picture of one colour with other codes for each 4 x 4 pixels, up to 65,536 sets of five codes."""
    sets = (side // 4) ** 2
    # Which set each 4 x 4 pixels use: a picture whose green and red values are the lower and the upper byte.
    eight_bits = "0" + f"{8:04b}"[::-1] + "".join("100" if at in (2, 11) else "000" for at in range(12))
    every_byte = eight_bits + "1" + f"{3:03b}"[::-1] + f"{254:08b}"[::-1] + "1" * 256
    zero = "1000"
    head = f"{0x2F:08b}"[::-1] + 2 * f"{side - 1:014b}"[::-1] + "0000" + "0" + "1" + f"{11:04b}"[::-1] + "1000"
    chosen = "".join(f"{at & 255:08b}{at >> 8:08b}" for at in range(sets))
    bits = head + "0" + 2 * every_byte + 3 * zero + chosen + 5 * sets * zero
    return int(bits[::-1], 2).to_bytes(-(-len(bits) // 8), "little") + bytes(8)


def _webp_file(kind: bytes, body: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(body)) + body + bytes(len(body) % 2)
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk


def _png_files() -> Iterator[tuple[str, bytes]]:
    plain = _encoded(_flat(640, 480), "png")
    text = _png_chunk(b"tEXt", b"k\x00v")
    yield "png-texts", plain[:33] + text * _FLOOD + plain[33:]
    packed = zlib.compress(bytes(1_000_000), 9)
    yield "png-packed-texts", plain[:33] + _png_chunk(b"zTXt", b"k\x00\x00" + packed) * 2_000 + plain[33:]
    international = _png_chunk(b"iTXt", b"k\x00\x01\x00\x00\x00" + packed)
    yield "png-packed-international-texts", plain[:33] + international * 2_000 + plain[33:]
    profile = _png_chunk(b"iCCP", b"k\x00\x00" + packed)
    yield "png-profiles", plain[:33] + profile * 2_000 + plain[33:]
    start = plain.index(b"IDAT") + 4
    (length,) = struct.unpack_from(">I", plain, start - 8)
    pixels = plain[start : start + length]
    single = b"".join(_png_chunk(b"IDAT", pixels[at : at + 1]) for at in range(len(pixels)))
    yield "png-single-bytes", plain[:33] + single + _png_chunk(b"IEND", b"")
    yield "png-empty-data", plain[:33] + _png_chunk(b"IDAT", b"") * _FLOOD + plain[33:]
    for name, colour, depth, size in (
        ("rgba", 6, 8, 4),
        ("rgba-16", 6, 16, 8),
        ("grey-16", 0, 16, 2),
        ("rgb", 2, 8, 3),
    ):
        for where, (width, height) in (("here", _LARGE), ("apart", _LARGEST)):
            yield f"png-{name}-{where}", _flat_png(width, height, colour, depth, size)
    turned = _png_chunk(b"eXIf", exif_block(6).removeprefix(b"Exif\x00\x00"))
    for name, colour, size in (("rgba-16", 6, 8), ("grey-16-alpha", 4, 4)):
        long = _flat_png(400, 39_900, colour, 16, size)
        yield f"png-{name}-long-turned", long[:33] + turned + long[33:]
    frames = [_flat(2_000, 2_000, colour=each) for each in (9, 99)]
    yield "png-animated", _encoded(frames[0], "png", save_all=True, append_images=frames[1:], default_image=True)


def _flat_png(width: int, height: int, colour: int, depth: int, pixel_bytes: int) -> bytes:
    """A PNG of zeros whose rows use the filter that costs most."""
    packer = zlib.compressobj(6)
    row = b"\x04" + bytes(width * pixel_bytes)
    packed = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, body) for kind, body in chunks)


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _gif_files() -> Iterator[tuple[str, bytes]]:
    plain = _encoded(_flat(640, 480).quantize(16), "gif")
    at = plain.index(b",", 13)
    yield "gif-comments", plain[:at] + b"!\xfe\x01c\x00" * (5 * _FLOOD) + plain[at:]
    yield "gif-long-comment", plain[:at] + b"!\xfe" + b"\x01c" * (5 * _FLOOD) + b"\x00" + plain[at:]
    yield "gif-extensions", plain[:at] + b"!\xf9\x04\x00\x00\x00\x00\x00" * _FLOOD + plain[at:]
    large = bytearray(plain)
    large[6:10] = struct.pack("<HH", *_LARGEST)
    yield "gif-small-frame", bytes(large)


def _iso_files() -> Iterator[tuple[str, bytes]]:
    plain = _encoded(_flat(640, 480), "avif", speed=10)
    (length,) = struct.unpack_from(">I", plain)
    yield "avif-boxes", plain[:length] + b"\x00\x00\x00\x08free" * _FLOOD + plain[length:]
    yield "avif-boxes-behind", plain + b"\x00\x00\x00\x08free" * _FLOOD
    inner = b"\x00\x00\x00\x08free" * _FLOOD
    meta = plain.index(b"meta")
    (size,) = struct.unpack_from(">I", plain, meta - 4)
    end = meta - 4 + size
    grown = struct.pack(">I", size + len(inner))
    yield "avif-boxes-inside", plain[: meta - 4] + grown + plain[meta:end] + inner + plain[end:]
    many = struct.pack(">I4s4x", 12 + 8 * 9_990, b"meta") + b"\x00\x00\x00\x08free" * 9_990
    yield "avif-boxes-inside-many", plain + many * 240
    yield "heic-boxes", plain.replace(b"ftypavif", b"ftypheic", 1).replace(b"avif", b"heic")[:end] + inner


def _jpeg_files() -> Iterator[tuple[str, bytes]]:
    large = _encoded(_flat(*_LARGE), "jpeg", progressive=True, subsampling="4:4:4")
    last = large.rindex(b"\xff\xda")
    for scans in (2, 80):
        yield f"jpeg-{scans}-more-scans", large[:last] + large[last:-2] * scans + large[-2:]
    small = _encoded(_flat(640, 480), "jpeg", progressive=True)
    last = small.rindex(b"\xff\xda")
    yield "jpeg-thousands-of-scans", small[:last] + small[last:-2] * 5_000 + small[-2:]
    yield "jpeg-comments-between-scans", small[:last] + b"\xff\xfe\x00\x02" * _FLOOD + small[last:]
    yield "jpeg-comments", small[:2] + b"\xff\xfe\x00\x02" * _FLOOD + small[2:]
    plain = _encoded(_flat(640, 480), "jpeg")
    yield "jpeg-restarts", plain[:-2] + b"\xff\xd0" * _FLOOD + plain[-2:]
    yield "jpeg-long", _encoded(_noisy(111_000 // 2, 440), "jpeg", quality=25, subsampling="4:4:4")
    turned = {"quality": 40, "subsampling": "4:4:4", "icc_profile": table_profile(), "exif": exif_block(6)}
    yield "jpeg-long-progressive-turned-icc", _encoded(_noisy(430, 37_000), "jpeg", progressive=True, **turned)
    yield "jpeg-cmyk", _encoded(_flat(*_LARGEST).convert("CMYK"), "jpeg")
    arithmetic = bytearray(plain)
    arithmetic[plain.index(b"\xff\xc0") + 1] = 0xC9
    yield "jpeg-arithmetic", bytes(arithmetic)


@functools.cache
def _flat(width: int, height: int, colour: int = 120) -> Image.Image:
    return Image.new("RGB", (width, height), (colour, colour // 2, 30))


def _noisy(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def _encoded(image: Image.Image, name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name.upper(), **options)
    return buffer.getvalue()
