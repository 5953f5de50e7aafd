"""Photos that people send: of several sizes in realistic shares, and no two with the same bytes."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from PIL import Image

from bench.photos import SIZES, PhotoSize, photos

SHARES: Final[Mapping[str, float]] = {"224 px": 0.3, "1 MP": 0.5, "4 MP": 0.2}
"""Small pictures of the shop itself, photos that a messenger has made smaller, photos as a phone took them."""
_ENDINGS: Final = {".jpg", ".jpeg"}
_UNIQUE_BYTES: Final = 16
_BOUNDARY: Final = "load-5d1f0c6a9b7d4e9f"


@dataclass(frozen=True, slots=True, kw_only=True)
class Album:
    """JPEGs by the name of their size."""

    by_size: Mapping[str, tuple[bytes, ...]]

    @classmethod
    def made(cls, *, count: int) -> Self:
        """`count` photos of each size, the same in each run."""
        return cls(by_size={size.name: tuple(photos(size, count=count)) for size in _sizes()})

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Every JPEG below a folder, each as the size that it comes nearest to. Raises ValueError without any."""
        found: dict[str, list[bytes]] = {}
        for path in sorted(each for each in folder.rglob("*") if each.suffix.lower() in _ENDINGS):
            data = path.read_bytes()
            found.setdefault(_nearest(data), []).append(data)
        if not found:
            raise ValueError(f"There is no JPEG below {folder}.")
        return cls(by_size={name: tuple(each) for name, each in found.items()})

    def write(self, folder: Path) -> None:
        """What `read` reads."""
        for name, each in self.by_size.items():
            into = folder / name.replace(" ", "-")
            into.mkdir(parents=True, exist_ok=True)
            for number, data in enumerate(each):
                (into / f"{number}.jpg").write_bytes(data)

    def pick(self, chance: random.Random) -> tuple[str, bytes]:
        """The name of a size, and a photo of it that nobody has sent before."""
        names = list(self.by_size)
        [name] = chance.choices(names, weights=[SHARES[each] for each in names])
        return name, unlike_others(chance.choice(self.by_size[name]))


def unlike_others(jpeg: bytes) -> bytes:
    """The same picture with a comment of its own in the file, since what is kept is kept once per content."""
    comment = os.urandom(_UNIQUE_BYTES)
    return jpeg[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2) + comment + jpeg[2:]


def form(jpeg: bytes, file_name: str) -> tuple[bytes, dict[str, str]]:
    """The body and the header of a form with this file in it, as a browser sends it."""
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{file_name}"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    body = head.encode() + jpeg + f"\r\n--{_BOUNDARY}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}


def _sizes() -> list[PhotoSize]:
    return [size for size in SIZES if size.name in SHARES]


def _nearest(jpeg: bytes) -> str:
    with Image.open(io.BytesIO(jpeg)) as picture:
        pixels = picture.width * picture.height
    return min(_sizes(), key=lambda size: abs(size.width * size.height - pixels)).name
