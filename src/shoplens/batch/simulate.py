"""Make a day's arrivals in a drop folder, for trying things out: photos in, files with a shop's names out."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from pathlib import Path
from random import Random
from typing import Final

import orjson
from PIL import Image

from shoplens.batch.names import is_ignored, may_have_sidecar
from shoplens.batch.sample_photos import draw, garments
from shoplens.errors import SourceUnavailable

WAVES: Final = (time(8), time(20))
"""When a shop's colleagues put photos into the drop folder."""
_WAVE_LASTS_S: Final = 900
_SETTLED: Final = timedelta(hours=1)
_REASONS: Final = ("too small", "too large", "damaged", "not as pictured", "wrong item", "changed my mind")
_SIDEWAYS: Final = 6
_ORIENTATION: Final = 0x0112


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """A photo to bring in. `item` is how its article shall be called, `suffix` its ending with the dot."""

    item: str
    suffix: str
    read: Callable[[], bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What was put where. `messy` counts the files that make trouble."""

    into: Path
    photos: int
    sidecars: int
    messy: int
    seed: int


def photos_below(folder: Path) -> list[Original]:
    """The pictures in a folder and its sub-folders. Raises SourceUnavailable where there are none."""
    found = sorted(
        Path(place) / name
        for place, _, names in os.walk(folder)
        for name in names
        if may_have_sidecar(name) and not is_ignored(name)
    )
    if not found:
        raise SourceUnavailable(f"There are no photos in {folder}. Name a folder of photos, or say --samples.")
    return [
        Original(item=f"T{number:04}", suffix=path.suffix, read=path.read_bytes) for number, path in enumerate(found)
    ]


def drawn_samples(count: int, seed: int) -> list[Original]:
    """Pictures of clothes, drawn when they are read."""
    kinds = list(garments())

    def sample(number: int) -> Original:
        kind = kinds[number % len(kinds)]
        return Original(item=f"{kind}{number:03}", suffix=".jpg", read=lambda: draw(kind, _chance(f"{seed}-{number}")))

    return [sample(number) for number in range(count)]


def simulate(
    originals: Sequence[Original], into: Path, *, count: int, seed: int, messy: bool, now: datetime
) -> Simulated:
    """Write `count` photos and their sidecars, each file whole at once; the same seed makes the same files.

    Photos beyond those that there are come again with other bytes and the same pixels. `now` is in local time.
    Raises SourceUnavailable when a photo cannot be read or the folder cannot be written.
    """
    day = _Day(into, _chance(str(seed)), now)
    try:
        into.mkdir(parents=True, exist_ok=True)
        for each in _chosen(originals, count, day.chance):
            day.bring(each)
        if messy:
            day.make_a_mess()
    except OSError as error:
        raise SourceUnavailable(f"The arrivals could not be made: {error}.") from error
    return Simulated(into=into, photos=day.photos, sidecars=day.sidecars, messy=day.messy, seed=seed)


@dataclass(slots=True)
class _Order:
    """A parcel that came back; `left` are the photos of it that are still to come."""

    number: int
    left: int
    reason: str | None
    at: datetime
    taken: int = 0


@dataclass(slots=True)
class _Day:
    """One day of arrivals as it is being made."""

    into: Path
    chance: Random
    now: datetime
    photos: int = 0
    sidecars: int = 0
    messy: int = 0
    _order: _Order | None = None
    _last: tuple[str, bytes] = field(default=("", b""))

    def bring(self, original: Original) -> None:
        """One photo, and what was told about it where something was."""
        order = self._order = self._order if self._order and self._order.left else self._new_order()
        order.left -= 1
        order.taken += 1
        name = f"{order.number}_{original.item}_{order.taken}{original.suffix}"
        data = original.read()
        if order.reason:
            told = {"order": str(order.number), "item": original.item, "reason": order.reason}
            self._put(f"{name}.json", orjson.dumps(told), order.at)
            self.sidecars += 1
        self._put(name, data, order.at)
        self.photos += 1
        self._last = name, data

    def make_a_mess(self) -> None:
        """What also arrives on a day: the same again, cut short, empty, no photo, sideways, and with an odd name."""
        order = self._new_order()
        name, data = self._last
        for each, content in (
            (f"copy of {name}", data),
            (f"{order.number}_short_1.jpg", data[: len(data) // 2]),
            (f"{order.number}_empty_2.jpg", b""),
            (f"{order.number}_text_3.jpg", b"Please refund this order. The photo is in the attachment.\n"),
            (f"{order.number}_sideways_4.jpg", _sideways(data)),
            (f"{order.number}_'odd' \"name\" \N{DRESS}_5.jpg", data + b"\0"),
        ):
            self._put(each, content, order.at)
            self.messy += 1

    def _new_order(self) -> _Order:
        return _Order(
            number=self.chance.randrange(100_000, 1_000_000),
            left=self.chance.choice((1, 1, 1, 2, 2, 3, 4)),
            reason=self.chance.choice(_REASONS) if self.chance.random() < 0.25 else None,
            at=_moment(self.chance, self.now),
        )

    def _put(self, name: str, data: bytes, at: datetime) -> None:
        """Under a hidden name first, which nobody takes."""
        staged = self.into / f".{self.chance.getrandbits(64):016x}.part"
        staged.write_bytes(data)
        os.utime(staged, (at.timestamp(), at.timestamp()))
        staged.replace(self.into / name)


def _chosen(originals: Sequence[Original], count: int, chance: Random) -> Iterator[Original]:
    """In a random order, each as often as the others."""
    for lap in range(-(-count // len(originals))):
        for original in chance.sample(originals, min(len(originals), count - lap * len(originals))):
            yield original if lap == 0 else _again(original, lap)


def _again(original: Original, lap: int) -> Original:
    """The same pixels in another file: what follows the end of a picture is not looked at."""
    return Original(
        item=original.item, suffix=original.suffix, read=lambda: original.read() + b"\0" + str(lap).encode()
    )


def _chance(seed: str) -> Random:
    return Random(seed)  # noqa: S311 - it decides about toys


def _moment(chance: Random, now: datetime) -> datetime:
    """In one of the waves: today's, or yesterday's where today's is still to come."""
    at = datetime.combine(now.date(), chance.choice(WAVES), now.tzinfo)
    if at > now - _SETTLED:
        at -= timedelta(days=1)
    return at + timedelta(seconds=chance.randrange(_WAVE_LASTS_S))


def _sideways(data: bytes) -> bytes:
    """As phones write it: the pixels lie on their side, and a tag says so."""
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(data)) as picture:
        exif = Image.Exif()
        exif[_ORIENTATION] = _SIDEWAYS
        picture.convert("RGB").transpose(Image.Transpose.ROTATE_90).save(buffer, "JPEG", exif=exif.tobytes())
    return buffer.getvalue()
