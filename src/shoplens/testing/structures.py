"""Photos taken apart into what their format is made of, changed there, and put together again.

A changed byte seldom passes a checksum or a length. These changes keep the structure: parts are repeated, dropped,
exchanged, moved to another photo, and the numbers in them set to extremes, with lengths and checksums put right.
"""

from __future__ import annotations

import functools
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from PIL import ImageCms

from shoplens.testing.hostile import encoded, exif_block, photo

_PNG_START: Final = 8
_RIFF_START: Final = 12
_MOST_BYTES: Final = 8_000_000

Kind = Literal["repeat", "drop", "exchange", "borrow", "number", "grow"]
KINDS: Final[tuple[Kind, ...]] = ("repeat", "drop", "exchange", "borrow", "number", "grow")
EXTREMES: Final = (0, 1, 2, 7, 255, 256, 4_095, 16_383, 32_767, 65_535, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """One change. `where` and `other` are places from 0 to 1; `amount` is how often or how much, from 0 to 1."""

    kind: Kind
    where: float
    other: float
    amount: float
    number: int


def mutants(count: int, seed: int = 0) -> Iterator[bytes]:
    """Yield `count` photos with a few changes each, the same for the same arguments."""
    chance = random.Random(seed)
    names = sorted(structured_photos())
    for _ in range(count):
        edits = [
            Edit(
                kind=chance.choice(KINDS),
                where=chance.random(),
                other=chance.random(),
                amount=chance.random() ** 4,
                number=chance.choice(EXTREMES),
            )
            for _ in range(chance.randint(1, 4))
        ]
        yield changed(chance.choice(names), edits)


@functools.cache
def structured_photos() -> dict[str, bytes]:
    """Return photos as cameras, shops and programs write them, by format and variant."""
    image = photo(640, 480)
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    rich = {"exif": exif_block(6), "icc_profile": profile}
    frames = [photo(200, 150, seed) for seed in range(3)]
    return {
        "jpeg": encoded(image, "jpeg", quality=85, restart_marker_rows=2, comment=b"a comment", **rich),
        "jpeg-progressive": encoded(image, "jpeg", progressive=True, **rich),
        "png": encoded(image, "png", dpi=(300, 300), **rich),
        "png-palette": encoded(image.quantize(64), "png", transparency=3),
        "webp": encoded(image, "webp", **rich),
        "webp-lossless": encoded(image.resize((160, 120)), "webp", lossless=True),
        "webp-animated": encoded(frames[0], "webp", save_all=True, append_images=frames[1:]),
        "gif": encoded(frames[0], "gif", save_all=True, append_images=frames[1:], comment=b"a comment"),
        "bmp": encoded(photo(160, 120), "bmp"),
        "tiff": encoded(photo(160, 120), "tiff", compression="tiff_adobe_deflate", icc_profile=profile),
        "tiff-lzw": encoded(photo(160, 120), "tiff", compression="tiff_lzw"),
        "avif": encoded(image, "avif", speed=10),
    }


def changed(name: str, edits: Sequence[Edit]) -> bytes:
    """Return the photo `name` of `structured_photos` after these changes, at most some megabytes long."""
    take_apart, put_together = _FORMATS[name.split("-", maxsplit=1)[0]]
    head, parts = take_apart(structured_photos()[name])
    for edit in edits:
        _change(name, parts, edit)
        if sum(map(len, parts)) > _MOST_BYTES:
            break
    return put_together(head, parts)[:_MOST_BYTES]


def _change(name: str, parts: list[bytes], edit: Edit) -> None:
    if not parts:
        return
    at, other = int(edit.where * len(parts)), int(edit.other * len(parts))
    match edit.kind:
        case "repeat":
            most = max(1, _MOST_BYTES // (len(parts[at]) + 1))
            parts[at:at] = [parts[at]] * min(most, 1 + int(edit.amount * 300_000))
        case "drop":
            del parts[at]
        case "exchange":
            parts[at], parts[other] = parts[other], parts[at]
        case "borrow":
            family = name.split("-", maxsplit=1)[0]
            others = [each for each in structured_photos() if each.split("-")[0] == family]
            _, foreign = _FORMATS[family][0](structured_photos()[others[int(edit.other * len(others))]])
            parts.insert(at, foreign[int(edit.amount * len(foreign))])
        case "number":
            part = bytearray(parts[at])
            size = (1, 2, 4)[int(edit.amount * 3)]
            place = int(edit.other * min(len(part), 64))
            order: Literal["big", "little"] = "little" if name.startswith(("gif", "bmp", "tiff", "webp")) else "big"
            part[place : place + size] = (edit.number % 256**size).to_bytes(size, order)
            parts[at] = bytes(part)
        case "grow":
            parts[at] += bytes(int(edit.amount * 2_000_000))


_Apart = tuple[bytes, list[bytes]]


def _jpeg_apart(data: bytes) -> _Apart:
    """Segments with their markers; the coded data belong to the header of their scan."""
    starts = [2]
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        scan = data[at + 1] == 0xDA
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        while scan and at + 1 < len(data) and (data[at] != 0xFF or data[at + 1] == 0 or 0xD0 <= data[at + 1] <= 0xD7):
            at += 1
        starts.append(at)
    parts = [data[first:last] for first, last in zip(starts, [*starts[1:], len(data)], strict=True)]
    return data[:2], [part for part in parts if part]


def _png_apart(data: bytes) -> _Apart:
    """The kind and the content of each chunk."""
    parts, at = [], _PNG_START
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        parts.append(data[at + 4 : at + 8 + length])
        at += 12 + length
    return data[:_PNG_START], parts


def _png_together(head: bytes, parts: Sequence[bytes]) -> bytes:
    return head + b"".join(
        struct.pack(">I", max(0, len(part) - 4)) + part + struct.pack(">I", zlib.crc32(part)) for part in parts
    )


def _webp_apart(data: bytes) -> _Apart:
    """The kind and the content of each chunk."""
    parts, at = [], _RIFF_START
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        parts.append(data[at : at + 4] + data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    return data[:_RIFF_START], parts


def _webp_together(head: bytes, parts: Sequence[bytes]) -> bytes:
    chunks = b"".join(
        part[:4] + struct.pack("<I", max(0, len(part) - 4)) + part[4:] + bytes(len(part) % 2) for part in parts
    )
    return head[:4] + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


def _boxes_apart(data: bytes) -> _Apart:
    """Boxes, and those inside `meta` and `iprp` as parts of their own behind its start."""
    parts, at = [], 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        length = length if 8 <= length <= len(data) - at else len(data) - at
        inside = {b"meta": 12, b"iprp": 8, b"ipco": 8}.get(kind)
        parts.append(data[at : at + (inside or length)])
        at += inside or length
    return b"", parts


def _blocks_apart(data: bytes) -> _Apart:
    """Pieces of a dozen bytes, which is the size of a TIFF tag; GIF and BMP have headers of about that size."""
    fine = min(len(data), 12 * 1_400)
    # A TIFF's directory stands at its end.
    late = max(fine, len(data) - 12 * 40)
    pieces = [data[at : min(at + 12, fine)] for at in range(0, fine, 12)]
    return b"", [*pieces, data[fine:late], *(data[at : at + 12] for at in range(late, len(data), 12))]


def _joined(head: bytes, parts: Sequence[bytes]) -> bytes:
    return head + b"".join(parts)


_FORMATS: Final[dict[str, tuple[Callable[[bytes], _Apart], Callable[[bytes, Sequence[bytes]], bytes]]]] = {
    "jpeg": (_jpeg_apart, _joined),
    "png": (_png_apart, _png_together),
    "webp": (_webp_apart, _webp_together),
    "gif": (_blocks_apart, _joined),
    "bmp": (_blocks_apart, _joined),
    "tiff": (_blocks_apart, _joined),
    "avif": (_boxes_apart, _joined),
}
