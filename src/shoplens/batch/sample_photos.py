"""Draw simple pictures of clothes, different for each seed: photos for trying things out that come with the product."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from random import Random
from typing import Final

from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]
Colour = tuple[int, int, int]

_SIDE: Final = 480
_FINE: Final = 2 * _SIDE
"""Drawn twice as large and reduced, so that edges are smooth."""

# Outlines in a square from (0, 0) to (1, 1), the left half of what is symmetric: it is mirrored.
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


def garments() -> Iterator[str]:
    """The names of what can be drawn."""
    return iter(sorted(_OUTLINES))


def draw(garment: str, chance: Random) -> bytes:
    """A JPEG of 480 x 480 pixels: one piece of clothing, somewhat turned, on a floor or a wall."""
    picture = _background(chance)
    shape = _placed(_OUTLINES[garment], chance)
    picture.paste((20, 20, 25), mask=_shadow(shape))
    picture.paste(_cloth(chance), mask=_mask(shape))
    ImageDraw.Draw(picture).line([*shape, shape[0]], fill=(40, 40, 45), width=4, joint="curve")
    buffer = io.BytesIO()
    picture.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _background(chance: Random) -> Image.Image:
    """From one pale colour to another, sometimes with boards."""
    top, bottom = _colour(chance, 150, 250), _colour(chance, 130, 235)
    picture = Image.composite(
        Image.new("RGB", (_FINE, _FINE), bottom),
        Image.new("RGB", (_FINE, _FINE), top),
        Image.linear_gradient("L").resize((_FINE, _FINE)),
    )
    if chance.random() < 0.4:
        pen, step = ImageDraw.Draw(picture), chance.randrange(90, 200)
        for y in range(step, _FINE, step):
            pen.line([(0, y), (_FINE, y)], fill=_darker(bottom), width=3)
    return picture


def _cloth(chance: Random) -> Image.Image:
    """Plain, or with stripes."""
    colour = _colour(chance, 20, 230)
    cloth = Image.new("RGB", (_FINE, _FINE), colour)
    if chance.random() < 0.35:
        pen, step = ImageDraw.Draw(cloth), chance.randrange(40, 110)
        for at in range(0, 2 * _FINE, step):
            pen.line([(at, 0), (at - _FINE // 4, _FINE)], fill=_darker(colour), width=step // 3)
    return cloth


def _placed(outline: tuple[Point, ...], chance: Random) -> list[Point]:
    """Turned about the middle, larger or smaller, and not quite in the middle; in pixels."""
    angle, scale = chance.uniform(-0.4, 0.4), chance.uniform(0.62, 0.92) * _FINE
    left, top = (chance.uniform(0.46, 0.54) * _FINE for _ in range(2))
    cos, sin = math.cos(angle) * scale, math.sin(angle) * scale
    return [(left + (x - 0.5) * cos - (y - 0.5) * sin, top + (x - 0.5) * sin + (y - 0.5) * cos) for x, y in outline]


def _shadow(shape: list[Point]) -> Image.Image:
    """Drawn small, since it is soft."""
    small = Image.new("L", (_FINE // 8, _FINE // 8))
    ImageDraw.Draw(small).polygon([((x + 14) / 8, (y + 18) / 8) for x, y in shape], fill=110)
    return small.filter(ImageFilter.GaussianBlur(1.5)).resize((_FINE, _FINE), Image.Resampling.BICUBIC)


def _mask(shape: list[Point]) -> Image.Image:
    mask = Image.new("L", (_FINE, _FINE))
    ImageDraw.Draw(mask).polygon(shape, fill=255)
    return mask


def _colour(chance: Random, darkest: int, brightest: int) -> Colour:
    return chance.randint(darkest, brightest), chance.randint(darkest, brightest), chance.randint(darkest, brightest)


def _darker(colour: Colour) -> Colour:
    return colour[0] * 3 // 4, colour[1] * 3 // 4, colour[2] * 3 // 4
