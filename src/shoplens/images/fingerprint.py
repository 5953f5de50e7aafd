"""The fingerprint of a photo: its coarse shape and colour in 384 bytes, to find copies of it that differ a little.

It holds the lowest frequencies of the two-dimensional discrete cosine transform: 16 x 16 of the brightness, 8 x 8 of
each colour difference. From these alone follow the fingerprints of the mirrored photo and of its crops, so a cropped
copy is found without the photo. Perceptual hashes (64 signs, see `thumbnails.perceptual_hash`) of all crops say which
fingerprints are worth a comparison; the angle between two fingerprints says how alike two photos are.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from itertools import product
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from shoplens.images.pixels import Pixels
from shoplens.images.thumbnails import halved

LENGTH: Final = 384
"""Bytes of a fingerprint."""
BITS: Final = 64
"""Of a hash; also the distance of two photos that are each other's negative."""

Floats: TypeAlias = NDArray[np.float32]
Box: TypeAlias = tuple[float, float, float, float]
"""Top, bottom, left and right of a crop, as shares of the height and the width."""

_SIDE: Final = 32
_HALVED_SIDE: Final = 128
_LUMA: Final = 16
_CHROMA: Final = 8
_SCALE: Final = 1.7
"""Roots of coefficients are stored: they reach 72, and a byte 127."""

# What is compared: frequencies above these move too much in a crop, and colour counts more than its energy.
_COMPARED_LUMA: Final = 10
_COMPARED_CHROMA: Final = 6
_COLOUR_WEIGHT: Final = 1.5

WHOLE: Final[Box] = (0.0, 1.0, 0.0, 1.0)
_PLACES: Final = (0.0, 0.5, 1.0)
CROPS: Final[tuple[Box, ...]] = (
    WHOLE,
    *(
        ((1 - size) * down, (1 - size) * down + size, (1 - size) * right, (1 - size) * right + size)
        for size, down, right in product((0.95, 0.9), _PLACES, _PLACES)
    ),
    (0.1, 1.0, 0.0, 1.0),
    (0.0, 0.9, 0.0, 1.0),
    (0.0, 1.0, 0.1, 1.0),
    (0.0, 1.0, 0.0, 0.9),
)
"""The crops whose hashes are remembered: 5 and 10 % less at all corners, edges and in the middle, or at one side."""

_WORTH_FITTING: Final = math.cos(16 * math.pi / BITS)
"""The cosine from which a better fit may make two photos copies of each other."""
_STEPS: Final = (0.025, 0.0125)
"""By how much the edges of a crop are moved to find the best fit."""


def fingerprint(pixels: Pixels) -> bytes:
    """The fingerprint of a photo: `LENGTH` bytes. `pixels` is (height, width, 3) uint8 RGB; a thumbnail has enough."""
    small = halved(halved(pixels), _HALVED_SIDE)
    planes = cv2.split(cv2.cvtColor(small, cv2.COLOR_RGB2YCrCb))
    parts = []
    for plane, kept in zip(planes, (_LUMA, _CHROMA, _CHROMA), strict=True):
        scaled = np.asarray(cv2.resize(plane, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.float32) - 128
        parts.append(np.asarray(cv2.dct(scaled), np.float32)[:kept, :kept].ravel())
    every = np.concatenate(parts)
    return np.clip(np.round(_rooted(every) * _SCALE), -127, 127).astype(np.int8).tobytes()


def mirrored(print_: bytes) -> bytes:
    """The fingerprint of the photo that is mirrored left to right."""
    values = np.frombuffer(print_, np.int8).astype(np.float32)
    for plane in _planes(values):
        plane[:, 1::2] *= -1
    return values.astype(np.int8).tobytes()


def hash_of(print_: bytes) -> int:
    """The perceptual hash of the photo: 64 bits, one for each low frequency above their median."""
    return int(_hash(_planes(_coefficients(print_))[0]))


def crop_hashes(print_: bytes) -> NDArray[np.uint64]:
    """The hashes of all `CROPS` of the photo, itself first."""
    luma = _planes(_coefficients(print_))[0]
    return np.array([_hash(_cropped(luma, box)) for box in CROPS], np.uint64)


def distance(known: bytes, seen: bytes, crop: int = 0) -> float:
    """How far a photo is from a known one, or from the crop of it with this index that fits best nearby.

    It is the angle between both, as the number of `BITS` that would differ if its sign were taken along as many random
    directions: 0 for a copy, 32 for two photos that have nothing in common. (Charikar, "Similarity estimation
    techniques from rounding algorithms", 2002.)
    """
    coefficients = _coefficients(known)
    wanted = _direction(_coefficients(seen))
    box = CROPS[crop]
    best = _cosine(coefficients, box, wanted)
    for step in _STEPS if best > _WORTH_FITTING else ():
        for edge, sign in product(range(4), (1, -1)):
            moved = list(box)
            moved[edge] += sign * step
            if not 0 <= moved[edge] <= 1:
                continue
            cosine = _cosine(coefficients, (moved[0], moved[1], moved[2], moved[3]), wanted)
            if cosine > best:
                best, box = cosine, (moved[0], moved[1], moved[2], moved[3])
    return BITS * math.acos(min(1.0, best)) / math.pi


def _rooted(values: Floats) -> Floats:
    """Roots with the sign of the value: else the few lowest frequencies would decide alone."""
    return np.asarray(np.sign(values) * np.sqrt(np.abs(values)), np.float32)


def _coefficients(print_: bytes) -> Floats:
    rooted = np.frombuffer(print_, np.int8).astype(np.float32) / _SCALE
    return np.asarray(np.sign(rooted) * rooted * rooted, np.float32)


def _planes(values: Floats) -> tuple[Floats, ...]:
    """Views of the brightness and both colour differences as squares."""
    sides = (_LUMA, _CHROMA, _CHROMA)
    ends = np.cumsum([side * side for side in sides])
    return tuple(values[end - side * side : end].reshape(side, side) for side, end in zip(sides, ends, strict=True))


def _hash(luma: Floats) -> np.uint64:
    low = np.round(luma[1:9, 1:9], 2).ravel()
    middle = np.sort(low)[low.size // 2 - 1 : low.size // 2 + 1].mean()
    return np.packbits(low > middle).view(">u8")[0].astype(np.uint64)  # type: ignore[no-any-return]


def _cosine(coefficients: Floats, box: Box, wanted: Floats) -> float:
    planes = [plane if box == WHOLE else _cropped(plane, box) for plane in _planes(coefficients)]
    return float(_direction(np.concatenate([plane.ravel() for plane in planes])) @ wanted)


def _direction(coefficients: Floats) -> Floats:
    luma, *colours = _planes(coefficients)
    shape = luma[:_COMPARED_LUMA, :_COMPARED_LUMA].ravel()[1:]  # the first is the mean brightness
    tints = [colour[:_COMPARED_CHROMA, :_COMPARED_CHROMA].ravel() for colour in colours]
    vector = np.concatenate([_rooted(shape), *(_COLOUR_WEIGHT * _rooted(tint) for tint in tints)])
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-6), np.float32)


def _cropped(plane: Floats, box: Box) -> Floats:
    """The coefficients of a crop: the cosines are evaluated at its rows and columns, and transformed again."""
    side = plane.shape[0]
    down, across = _resampling(side, box[0], box[1]), _resampling(side, box[2], box[3])
    return np.asarray(down @ plane @ across.T, np.float32)


@cache
def _cosines(side: int) -> Floats:
    return _basis(side, (np.arange(_SIDE) + 0.5) / _SIDE)


def _basis(side: int, at: NDArray[np.float64]) -> Floats:
    """(positions, frequencies) of the orthonormal transform of `_SIDE` values."""
    basis = np.cos(np.pi * np.arange(side)[None] * at[:, None]) * math.sqrt(2 / _SIDE)
    basis[:, 0] = math.sqrt(1 / _SIDE)
    return basis.astype(np.float32)


@lru_cache(maxsize=4096)
def _resampling(side: int, start: float, end: float) -> Floats:
    at = start + (np.arange(_SIDE) + 0.5) / _SIDE * (end - start)
    return _cosines(side).T @ _basis(side, at)
