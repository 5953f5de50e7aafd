"""Which samples show the same: content and perceptual hashes in, a group number per sample out.

Measured on 171 photos of clothes: encoding a photo again, halving it or brightening it moves at most 4 of the 64 bits
of its perceptual hash in 99 % of the cases; the pairs looked at from 6 bits on are different garments on one floor.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from shoplens.training.samples import Sample

NEAR_BITS: Final = 4
_BITS: Final = 64

Hashes = NDArray[np.uint64]


def group_samples(samples: Sequence[Sample], *, distance: int = NEAR_BITS) -> list[int]:
    """For each sample the index of the first sample of its group.

    Two samples belong together if their content is the same, or their perceptual hashes differ in at most `distance`
    bits; and so do those that a chain of such pairs joins. Samples without a perceptual hash are joined by content.
    """
    parents = list(range(len(samples)))
    first: dict[str, int] = {}
    for index, sample in enumerate(samples):
        _join(parents, first.setdefault(sample.sha256, index), index)
    hashed = [index for index, sample in enumerate(samples) if sample.phash]
    hashes = np.array([int(samples[index].phash, 16) for index in hashed], np.uint64)
    for one, other in close_pairs(hashes, distance=distance):
        _join(parents, hashed[one], hashed[other])
    return [_root(parents, index) for index in range(len(samples))]


def close_pairs(hashes: Hashes, *, distance: int) -> Iterator[tuple[int, int]]:
    """Pairs of indices that join all hashes within `distance` bits of each other, directly or through equal hashes.

    Two numbers that differ in `distance` bits agree in at least one of `distance` + 1 bands of bits, so only those
    with an equal band are compared. A pair may come more than once.
    """
    values, places, which = np.unique(hashes, return_index=True, return_inverse=True)
    yield from ((int(places[value]), index) for index, value in enumerate(which) if places[value] != index)
    edges = np.linspace(0, _BITS, distance + 2).astype(int)
    for low, high in itertools.pairwise(edges.tolist()):
        for bucket in _buckets(values, low, high):
            for one, other in _within(values[bucket], distance):
                yield int(places[bucket[one]]), int(places[bucket[other]])


def _buckets(values: Hashes, low: int, high: int) -> Iterator[NDArray[np.intp]]:
    """Indices of the values with the same bits from `low` to below `high`, two or more at a time."""
    band = (values >> np.uint64(low)) & np.uint64((1 << (high - low)) - 1)
    order = np.argsort(band, kind="stable")
    for bucket in np.split(order, np.flatnonzero(np.diff(band[order])) + 1):
        if len(bucket) > 1:
            yield bucket


def _within(values: Hashes, distance: int) -> Iterator[tuple[int, int]]:
    """All pairs that differ in at most `distance` bits."""
    for one in range(len(values) - 1):
        near = np.bitwise_count(values[one] ^ values[one + 1 :]) <= distance
        for step in np.flatnonzero(near).tolist():
            yield one, one + 1 + step


def _join(parents: list[int], one: int, other: int) -> None:
    """The earlier root becomes the root of both."""
    low, high = sorted((_root(parents, one), _root(parents, other)))
    parents[high] = low


def _root(parents: list[int], index: int) -> int:
    while parents[index] != index:
        parents[index] = parents[parents[index]]
        index = parents[index]
    return index
