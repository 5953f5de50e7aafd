"""Feed small pictures to training: uint8 arrays in, shifted, mirrored and partly hidden batches out.

Methods: cutout (DeVries and Taylor, 2017), mirroring and shifts as usual for small pictures, and a smaller size in the
first epochs (progressive resizing, Howard 2018), which costs half as much and loses nothing that later epochs miss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """`shift` and `hidden` in pixels; in the first `small_epochs` pictures have `small_side` pixels."""

    shift: int = 2
    hidden: int = 8
    mirror: bool = True
    small_epochs: int = 0
    small_side: int = 20


class SmallPictureFeed:
    """`pictures` is (n, channels, side, side) float32, normalised; `labels` is (n,)."""

    def __init__(
        self,
        pictures: NDArray[np.float32],
        labels: NDArray[np.int64],
        *,
        batch: int,
        seed: int,
        augmentation: Augmentation,
    ) -> None:
        self._pictures = torch.from_numpy(pictures)
        self._labels = torch.from_numpy(labels)
        self._batch = batch
        self._seed = seed
        self._how = augmentation

    @property
    def steps(self) -> int:
        """Batches per epoch; what does not fill one is left for another epoch."""
        return max(1, len(self._labels) // self._batch)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every picture at most once, in an order and with changes that hang on the seed and the epoch."""
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._labels))
        for start in range(self.steps):
            chosen = torch.from_numpy(order[start * self._batch : (start + 1) * self._batch])
            changed = _changed(self._pictures[chosen], self._how, random)
            yield self._sized(changed, epoch).contiguous(memory_format=torch.channels_last), self._labels[chosen]

    def _sized(self, pictures: Tensor, epoch: int) -> Tensor:
        if epoch >= self._how.small_epochs:
            return pictures
        return functional.interpolate(pictures, self._how.small_side, mode="area")


def _changed(pictures: Tensor, how: Augmentation, random: np.random.Generator) -> Tensor:
    count, side = len(pictures), pictures.shape[-1]
    if how.mirror:
        mirrored = torch.from_numpy(random.random(count) < 0.5)
        pictures = torch.where(mirrored[:, None, None, None], pictures.flip(3), pictures)
    if how.shift:
        pictures = _shifted(pictures, how.shift, random)
    if how.hidden:
        top, left = (torch.from_numpy(random.integers(0, side, count)) for _ in range(2))
        hidden = _near(top, side, how.hidden)[:, :, None] & _near(left, side, how.hidden)[:, None, :]
        pictures = pictures.masked_fill(hidden[:, None], 0.0)
    return pictures


def _shifted(pictures: Tensor, most: int, random: np.random.Generator) -> Tensor:
    """Each picture moved by up to `most` pixels; what comes in from outside repeats the border."""
    count, channels, side, _ = pictures.shape
    padded = functional.pad(pictures, (most, most, most, most), mode="replicate")
    down, across = (torch.from_numpy(random.integers(0, 2 * most + 1, count)) for _ in range(2))
    rows = (down[:, None] + torch.arange(side))[:, None, :, None].expand(count, channels, side, side + 2 * most)
    columns = (across[:, None] + torch.arange(side))[:, None, None, :].expand(count, channels, side, side)
    return padded.gather(2, rows).gather(3, columns)


def _near(centre: Tensor, side: int, length: int) -> Tensor:
    """Which of `side` places lie within a stretch of `length` around each centre."""
    distance = torch.arange(side)[None, :] - centre[:, None]
    return (distance >= -(length // 2)) & (distance < length - length // 2)
