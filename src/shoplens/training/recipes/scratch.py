"""The recipe `scratch`: a compact network for small pictures, learned from nothing.

Its answer is the mean of those to the picture and to its mirror image, which is worth a quarter of a percent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from shoplens.images.picture import ImageSpec
from shoplens.images.preprocess import preprocess
from shoplens.training.fit import Schedule, fit
from shoplens.training.networks import CompactNetwork, ConvUnit, parameter_count
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.compact import (
    BRIGHTNESS,
    HALVED,
    RESIDUAL,
    CompactWeights,
    Rounded,
    compact_model,
)
from shoplens.training.small_pictures import Augmentation, SmallPictureFeed
from shoplens.training.ticks import Tick

if TYPE_CHECKING:
    from shoplens.training.samples import Sample

Floats = NDArray[np.float32]

SIDE: Final = 28
EPOCHS: Final = 22
BATCH: Final = 128
PEAK_RATE: Final = 0.1
_SMALL_SHARE: Final = 0.3
_AT_ONCE: Final = 256
_LEAST_BATCH: Final = 8
_LEAST_STEPS: Final = 16

IMAGE: Final = ImageSpec(resize=SIDE, crop=SIDE, fit="squash", dtype="uint8")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedScratch:
    """The learned network with its weights rounded to what the graph holds, so that both compute the same."""

    weights: CompactWeights
    parameters: int

    @property
    def image(self) -> ImageSpec:
        """See Fitted."""
        return IMAGE

    def logits(self, samples: Sequence[Sample]) -> Floats:
        """See Fitted."""
        found = []
        for start in range(0, len(samples), _AT_ONCE):
            grey = grey_pictures(samples[start : start + _AT_ONCE])
            pictures = torch.from_numpy(_normalised(grey, self.weights.mean, self.weights.spread))
            with torch.inference_mode():
                found.append(compute(self.weights, pictures).numpy())
        return np.concatenate(found)

    def export(self, *, temperature: float) -> bytes:
        """See Fitted."""
        return compact_model(self.weights, side=SIDE, temperature=temperature)


def grey_pictures(samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """(n, side, side): the brightness of each picture as serving would see it."""
    pictures = np.empty((len(samples), SIDE, SIDE), np.uint8)
    for place, sample in enumerate(samples):
        pixels = preprocess(sample.picture(SIDE), IMAGE)
        pictures[place] = np.rint(pixels.astype(np.float32) @ BRIGHTNESS)
    return pictures


def fit_scratch(
    samples: Sequence[Sample], classes: int, *, options: RecipeOptions, on_tick: Callable[[Tick], None]
) -> FittedScratch:
    """Learn from nothing. Raises TrainingDiverged."""
    on_tick(Tick(stage="reading the pictures", epoch=1, epochs=1, done=0.0, loss=0.0, seconds_left=0.0))
    pictures = grey_pictures(samples)
    mean, spread = float(round(pictures.mean())), float(max(1, round(pictures.std())))
    epochs = options.epochs or EPOCHS
    torch.manual_seed(options.seed)
    batch = _batch(len(samples))
    feed = SmallPictureFeed(
        _normalised(pictures, mean, spread),
        np.asarray([sample.label for sample in samples], np.int64),
        batch=batch,
        seed=options.seed,
        augmentation=Augmentation(small_epochs=int(_SMALL_SHARE * epochs)),
    )
    network = CompactNetwork(channels=1, classes=classes)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint = options.work_dir / "scratch.checkpoint" if options.work_dir else None
    schedule = Schedule(epochs=epochs, peak_rate=PEAK_RATE * batch / BATCH)
    learned = fit(network, feed, schedule, checkpoint=checkpoint, watch=on_tick)
    assert isinstance(learned, CompactNetwork)
    return FittedScratch(weights=fold(learned, mean=mean, spread=spread), parameters=parameter_count(learned))


def _batch(samples: int) -> int:
    """Fewer at once where there are few, so that an epoch still has some steps; the rate shrinks with it."""
    return min(BATCH, max(_LEAST_BATCH, samples // _LEAST_STEPS), samples)


def fold(network: CompactNetwork, *, mean: float, spread: float) -> CompactWeights:
    """The network with batch normalisation folded into the convolutions, in rounded numbers."""
    units = [module for module in network.modules() if isinstance(module, ConvUnit)]
    head = Rounded.of(network.head.weight.detach().numpy(), network.head.bias.detach().numpy())
    return CompactWeights(convolutions=tuple(map(_folded, units)), head=head, mean=mean, spread=spread)


def compute(weights: CompactWeights, pictures: Tensor) -> Tensor:
    """(n, classes) logits of (n, 1, side, side) normalised pictures: the mean of both views."""
    embedding = (_described(weights, pictures) + _described(weights, pictures.flip(3))) / 2
    return functional.linear(embedding, torch.from_numpy(weights.head.weight), torch.from_numpy(weights.head.bias))


def _described(weights: CompactWeights, value: Tensor) -> Tensor:
    residual, shortcut = dict(RESIDUAL), dict[int, Tensor]()
    for index, each in enumerate(weights.convolutions):
        if index in residual:
            shortcut[residual[index]] = value
        kernel, bias = torch.from_numpy(each.weight), torch.from_numpy(each.bias)
        value = functional.conv2d(value, kernel, bias, padding=1).relu()
        if index in HALVED:
            value = functional.max_pool2d(value, 2)
        if index in shortcut:
            value = value + shortcut[index]
    return value.amax(dim=(2, 3))


def _folded(unit: ConvUnit) -> Rounded:
    convolution, norm = unit.convolution, unit.norm
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    weight = convolution.weight.detach() * factor[:, None, None, None]
    bias = norm.bias.detach() - norm.running_mean * factor
    return Rounded.of(np.ascontiguousarray(weight.numpy()), bias.numpy())


def _normalised(pictures: NDArray[np.uint8], mean: float, spread: float) -> Floats:
    return np.asarray((pictures.astype(np.float32) - np.float32(mean)) / np.float32(spread), np.float32)[:, None]
