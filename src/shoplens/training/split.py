"""Hold part of the samples out, by group: what looks the same is never on both sides. Pure and repeatable."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def held_out(labels: Sequence[int], groups: Sequence[int], *, fraction: float, seed: int) -> NDArray[np.bool_]:
    """A mask of the samples that are held out: about `fraction` of every class, groups kept whole.

    `groups` gives samples that belong together the same number; a group counts for the class of its first sample.
    A class of one group stays in training. The same arguments always give the same mask.
    """
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    by_class: dict[int, list[list[int]]] = {}
    for indices in members.values():
        by_class.setdefault(labels[indices[0]], []).append(indices)
    mask = np.zeros(len(labels), np.bool_)
    random = np.random.default_rng(seed)
    for label in sorted(by_class):
        mask[_taken(by_class[label], fraction, random)] = True
    return mask


def _taken(groups: list[list[int]], fraction: float, random: np.random.Generator) -> list[int]:
    """Groups in a random order until the share is reached, always leaving one behind."""
    wanted = fraction * sum(map(len, groups))
    taken: list[int] = []
    for place in random.permutation(len(groups))[:-1]:
        if len(taken) >= wanted:
            break
        taken += groups[place]
    return taken
