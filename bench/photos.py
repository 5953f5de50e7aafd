"""Photos for the benches: JPEGs of a given size in pixels and about a given size in bytes, the same at each run."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

COUNT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoSize:
    """`byte_count` is what phones and shops typically make of so many pixels."""

    name: str
    width: int
    height: int
    byte_count: int


SIZES = (
    PhotoSize(name="224 px", width=256, height=224, byte_count=17_000),
    PhotoSize(name="1 MP", width=1156, height=868, byte_count=220_000),
    PhotoSize(name="4 MP", width=2312, height=1734, byte_count=900_000),
    PhotoSize(name="12 MP", width=4000, height=3000, byte_count=2_600_000),
)


def photos(size: PhotoSize, *, count: int = COUNT) -> list[bytes]:
    """`count` different JPEGs, made from sample photos where there are some, else from smooth random pictures."""
    return [_jpeg(picture, size, seed) for seed, picture in enumerate(_sources(count))]


def _sources(count: int) -> list[Image.Image]:
    root = Path(os.environ.get("SHOPLENS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    files = sorted((root / "imagenet-samples").glob("*.JPEG"))[:: 250 // count or 1][:count]
    if len(files) == count:
        return [Image.open(file).convert("RGB") for file in files]
    random = np.random.default_rng(0)
    coarse = [random.integers(0, 256, (24, 32, 3), dtype=np.uint8) for _ in range(count)]
    return [Image.fromarray(each).resize((500, 375), Image.Resampling.BICUBIC) for each in coarse]


def _jpeg(picture: Image.Image, size: PhotoSize, seed: int) -> bytes:
    """Enlarged photos are too smooth, so noise like a sensor's is added until the JPEG has its size in bytes."""
    large = np.asarray(picture.resize((size.width, size.height), Image.Resampling.LANCZOS), np.float32)
    noise = np.random.default_rng(seed).standard_normal((*large.shape[:2], 1), np.float32)
    low, high = 0.0, 40.0
    data = _encoded(large)
    for _ in range(5):
        middle = (low + high) / 2
        data = _encoded(large + middle * noise)
        low, high = (low, middle) if len(data) > size.byte_count else (middle, high)
    return data


def _encoded(pixels: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def write_photos(into: Path, pictures: list[bytes]) -> Path:
    """Write the photos to the new folder `into`."""
    into.mkdir()
    for number, photo in enumerate(pictures):
        (into / f"{number:03}.jpg").write_bytes(photo)
    return into
