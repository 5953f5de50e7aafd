"""What tests of the catalogue over HTTP and in the browser share: a tiny model of three colours, and its photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.conftest import jpeg_of
from tests.support.fusion import write_fusion_bundle

PAINT = {
    "channels__catalogue__model": "paint",
    "channels__catalogue__title": "Catalogue",
    "channels__catalogue__accept_at": "0.6",
    "channels__catalogue__catalogue__answer_at": "0.55",
}
"""Settings of a server whose channel `catalogue` is answered by the tiny model."""
_COLOURS = {"red": (230, 20, 20), "green": (20, 230, 20), "blue": (20, 20, 230)}


def models_with_paint(root: Path, models_dir: Path) -> Path:
    """A models directory with the built-in models and the tiny one."""
    root.mkdir(parents=True)
    for built in models_dir.iterdir():
        (root / built.name).symlink_to(built, target_is_directory=True)
    write_fusion_bundle(root)
    return root


def colour_photo(colour: str, number: int = 0) -> bytes:
    """A JPEG of this colour; another one for each number."""
    pixels = np.empty((64, 48, 3), np.uint8)
    pixels[:] = _COLOURS[colour]
    pixels[: 1 + number % 60, :2] = 128
    return jpeg_of(pixels)
