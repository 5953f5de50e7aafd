"""Fill a drop folder with one day of simulated returns: photos, sidecar files and, if wanted, broken files.

    python examples/simulate_returns.py                     # draws 60 pictures of clothes
    python examples/simulate_returns.py PHOTOS --messy      # takes the photos of a folder, adds broken files

The same seed creates the same files, so that a run can be repeated.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import secrets
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from random import Random
from typing import Final

from PIL import Image, ImageDraw, ImageFilter

from shoplens.settings import default_data_dir

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"})
REASONS: Final = ("too small", "too large", "damaged", "not as pictured", "wrong item", "changed my mind")
DELIVERIES: Final = (time(8), time(20))
"""When photos are delivered, in local time; each delivery lasts a quarter of an hour."""
DEFAULT_COUNT: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A photo to copy. `item` is the item number in the new file name, `suffix` the file extension with its dot."""

    item: str
    suffix: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """How many files were created in `folder`."""

    folder: Path
    photos: int
    sidecars: int
    broken: int
    seed: int

    def __str__(self) -> str:
        files = f"{self.photos:,} photos, {self.sidecars:,} sidecar files, {self.broken:,} broken files"
        return f"{self.folder}: created {files} (seed {self.seed})."


def photos_in(folder: Path) -> list[Original]:
    """The photos in a folder and its sub-folders, by name. Raises FileNotFoundError if there are none."""
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
    if not found:
        raise FileNotFoundError(f"There are no photos in {folder}.")
    return [
        Original(item=f"T{number:04}", suffix=path.suffix, read=path.read_bytes) for number, path in enumerate(found)
    ]


def drawn_photos(count: int, seed: int) -> list[Original]:
    """Pictures of clothes, different for each seed. They are drawn when they are read."""

    def drawn(number: int) -> Original:
        garment = GARMENTS[number % len(GARMENTS)]
        return Original(
            item=f"{garment}{number:03}", suffix=".jpg", read=lambda: draw(garment, Random(f"{seed}-{number}"))
        )

    return [drawn(number) for number in range(count)]


def simulate(
    originals: Sequence[Original], folder: Path, *, count: int, seed: int, messy: bool, now: datetime
) -> Simulated:
    """Create `count` photos, some with sidecars, and with `messy` six broken files.

    If there are fewer originals, they are used again as different files with the same pixels. The files are dated in
    the last two deliveries before `now`, which is in local time. Raises OSError if a file cannot be read or written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    day = _Day(folder, Random(str(seed)), now)
    for lap in range(-(-count // len(originals))):
        for original in day.random.sample(originals, min(len(originals), count - lap * len(originals))):
            # Decoders ignore what follows the end of a picture.
            day.add_photo(original, padding=b"\0" + str(lap).encode() if lap else b"")
    if messy:
        day.add_broken_files()
    return Simulated(folder=folder, photos=day.photos, sidecars=day.sidecars, broken=day.broken, seed=seed)


@dataclass(slots=True)
class _Order:
    """A returned parcel; `expected` of its photos are still to come."""

    number: int
    expected: int
    reason: str | None
    at: datetime
    photos: int = 0


@dataclass(slots=True)
class _Day:
    folder: Path
    random: Random
    now: datetime
    photos: int = 0
    sidecars: int = 0
    broken: int = 0
    _order: _Order | None = None
    _last: tuple[str, bytes] = field(default=("", b""))

    def add_photo(self, original: Original, *, padding: bytes = b"") -> None:
        """The next photo of the current order, or the first of a new one, with a sidecar if a reason is known."""
        order = self._order = self._order if self._order and self._order.expected else self._new_order()
        order.expected -= 1
        order.photos += 1
        name = f"{order.number}_{original.item}_{order.photos}{original.suffix}"
        data = original.read() + padding
        if order.reason:
            sidecar = {"order": str(order.number), "item": original.item, "reason": order.reason}
            self._write(f"{name}.json", json.dumps(sidecar).encode(), order.at)
            self.sidecars += 1
        self._write(name, data, order.at)
        self.photos += 1
        self._last = name, data

    def add_broken_files(self) -> None:
        """A copy, a truncated photo, an empty file, a text, a rotated photo, and one with an unusual name."""
        order = self._new_order()
        name, data = self._last
        for each, content in (
            (f"copy of {name}", data),
            (f"{order.number}_short_1.jpg", data[: len(data) // 2]),
            (f"{order.number}_empty_2.jpg", b""),
            (f"{order.number}_text_3.jpg", b"Please refund this order. The photo is in the attachment.\n"),
            (f"{order.number}_sideways_4.jpg", _rotated(data)),
            (f"{order.number}_'odd' \"name\" \N{DRESS}_5.jpg", data + b"\0"),
        ):
            self._write(each, content, order.at)
            self.broken += 1

    def _new_order(self) -> _Order:
        number = self.random.randrange(100_000, 1_000_000)
        expected = self.random.choice((1, 1, 1, 2, 2, 3, 4))
        reason = self.random.choice(REASONS) if self.random.random() < 0.25 else None
        at = datetime.combine(self.now.date(), self.random.choice(DELIVERIES), self.now.tzinfo)
        if at > self.now - timedelta(hours=1):
            at -= timedelta(days=1)
        return _Order(number, expected, reason, at + timedelta(seconds=self.random.randrange(900)))

    def _write(self, name: str, data: bytes, at: datetime) -> None:
        """Write under a hidden name first, so that an import never sees half a file."""
        staged = self.folder / f".{self.random.getrandbits(64):016x}.part"
        staged.write_bytes(data)
        os.utime(staged, (at.timestamp(), at.timestamp()))
        staged.replace(self.folder / name)


def _rotated(data: bytes) -> bytes:
    """The photo as phones store it: rotated pixels and an EXIF tag that says so."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", exif=exif.tobytes())
    return buffer.getvalue()


# Drawing

Point = tuple[float, float]
Colour = tuple[int, int, int]

_SIDE: Final = 480
_FINE: Final = 2 * _SIDE
"""Pictures are drawn at twice their size and reduced, which smooths the edges."""

# Outlines in the unit square. Of symmetric garments only the left half, which is mirrored.
_HALVES: Final[dict[str, tuple[Point, ...]]] = {
    "shirt": ((0.5, 0.2), (0.4, 0.15), (0.25, 0.2), (0.08, 0.4), (0.2, 0.5), (0.28, 0.42), (0.28, 0.88), (0.5, 0.88)),
    "dress": ((0.5, 0.2), (0.42, 0.08), (0.36, 0.08), (0.36, 0.3), (0.4, 0.42), (0.2, 0.92), (0.5, 0.94)),
    "trousers": ((0.5, 0.08), (0.32, 0.08), (0.26, 0.94), (0.42, 0.94), (0.5, 0.4)),
    "skirt": ((0.5, 0.2), (0.36, 0.2), (0.18, 0.82), (0.5, 0.86)),
    "coat": ((0.5, 0.3), (0.4, 0.08), (0.24, 0.14), (0.1, 0.62), (0.22, 0.66), (0.28, 0.4), (0.24, 0.95), (0.49, 0.95)),
    "bag": ((0.5, 0.36), (0.42, 0.36), (0.42, 0.14), (0.36, 0.14), (0.36, 0.36), (0.2, 0.36), (0.14, 0.8), (0.5, 0.8)),
}  # fmt: skip
_OUTLINES: Final[dict[str, tuple[Point, ...]]] = {
    "shoe": ((0.1, 0.45), (0.32, 0.42), (0.5, 0.58), (0.8, 0.64), (0.93, 0.74), (0.92, 0.8), (0.1, 0.8)),
    "hat": ((0.05, 0.66), (0.28, 0.62), (0.34, 0.34), (0.5, 0.28), (0.66, 0.34), (0.72, 0.62), (0.95, 0.66),
            (0.9, 0.74), (0.5, 0.78), (0.1, 0.74)),
    "sock": ((0.35, 0.1), (0.58, 0.1), (0.58, 0.55), (0.88, 0.72), (0.88, 0.84), (0.78, 0.9), (0.5, 0.88), (0.35, 0.7)),
    **{name: half + tuple((1 - x, y) for x, y in half[::-1]) for name, half in _HALVES.items()},
}  # fmt: skip
GARMENTS: Final = tuple(sorted(_OUTLINES))


def draw(garment: str, random: Random) -> bytes:
    """A JPEG of 480 x 480 pixels: one of GARMENTS, slightly rotated, with its shadow on a plain or lined background."""
    picture = _background(random)
    shape = list(_placed(_OUTLINES[garment], random))
    shadow, mask = Image.new("L", (_FINE // 8, _FINE // 8)), Image.new("L", (_FINE, _FINE))
    ImageDraw.Draw(shadow).polygon([((x + 14) / 8, (y + 18) / 8) for x, y in shape], fill=110)
    ImageDraw.Draw(mask).polygon(shape, fill=255)
    shadow = shadow.filter(ImageFilter.GaussianBlur(1.5)).resize((_FINE, _FINE), Image.Resampling.BICUBIC)
    picture.paste((20, 20, 25), mask=shadow)
    picture.paste(_cloth(random), mask=mask)
    ImageDraw.Draw(picture).line([*shape, shape[0]], fill=(40, 40, 45), width=4, joint="curve")
    buffer = io.BytesIO()
    picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _background(random: Random) -> Image.Image:
    """A gradient between two pale colours, sometimes with horizontal lines."""
    top, bottom = _colour(random, 150, 250), _colour(random, 130, 235)
    picture = Image.composite(
        Image.new("RGB", (_FINE, _FINE), bottom),
        Image.new("RGB", (_FINE, _FINE), top),
        Image.linear_gradient("L").resize((_FINE, _FINE)),
    )
    if random.random() < 0.4:
        pen, step = ImageDraw.Draw(picture), random.randrange(90, 200)
        for y in range(step, _FINE, step):
            pen.line([(0, y), (_FINE, y)], fill=_darker(bottom), width=3)
    return picture


def _cloth(random: Random) -> Image.Image:
    """Plain, or with stripes."""
    colour = _colour(random, 20, 230)
    cloth = Image.new("RGB", (_FINE, _FINE), colour)
    if random.random() < 0.35:
        pen, step = ImageDraw.Draw(cloth), random.randrange(40, 110)
        for at in range(0, 2 * _FINE, step):
            pen.line([(at, 0), (at - _FINE // 4, _FINE)], fill=_darker(colour), width=step // 3)
    return cloth


def _placed(outline: tuple[Point, ...], random: Random) -> Iterator[Point]:
    """The outline in pixels, with a random angle, size and position."""
    angle, scale = random.uniform(-0.4, 0.4), random.uniform(0.62, 0.92) * _FINE
    left, top = (random.uniform(0.46, 0.54) * _FINE for _ in range(2))
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    for x, y in outline:
        yield left + (x - 0.5) * cos - (y - 0.5) * sin, top + (x - 0.5) * sin + (y - 0.5) * cos


def _colour(random: Random, darkest: int, brightest: int) -> Colour:
    red, green, blue = (random.randint(darkest, brightest) for _ in range(3))
    return red, green, blue


def _darker(colour: Colour) -> Colour:
    return colour[0] * 3 // 4, colour[1] * 3 // 4, colour[2] * 3 // 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    default_folder = Path(os.environ.get("SHOPLENS_DATA_DIR") or default_data_dir()) / "drop" / "returns"
    parser = argparse.ArgumentParser(description="Create one day of simulated returns in a drop folder.")
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of photos; default: draw pictures of clothes")
    parser.add_argument("--into", type=Path, default=default_folder, help=f"folder to fill; default: {default_folder}")
    parser.add_argument("--count", type=int, help=f"number of photos; default: all, or {DEFAULT_COUNT} drawn ones")
    parser.add_argument("--seed", type=int, help="the same seed creates the same files; default: random")
    parser.add_argument("--messy", action="store_true", help="add broken files: a copy, an empty file, and so on")
    options = parser.parse_args(arguments)
    if options.count is not None and options.count < 1:
        parser.error("--count must be at least 1")
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    try:
        photos = photos_in(options.photos) if options.photos else drawn_photos(options.count or DEFAULT_COUNT, seed)
        made = simulate(
            photos,
            options.into,
            count=options.count or len(photos),
            seed=seed,
            messy=options.messy,
            now=datetime.now(UTC).astimezone(),
        )
    except OSError as error:
        print(f"Simulation failed: {error}", file=sys.stderr)
        return 1
    print(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
