"""A photo in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """A photo in numbers. `width` and `height` are in pixels, as seen upright; hashes are lower-case hex."""

    format: str
    width: int
    height: int
    byte_count: int
    sha256: str
    phash: str
