"""The recipe `scratch`: a compact residual network of nine layers for small pictures, trained from random weights.

Source of the shape: David Page, "How to train your ResNet" (2018); here narrower. Its prediction is the mean of those
for the picture and its mirror image, which gains a quarter of a percent. Augmentation: cutout (DeVries and Taylor,
2017), mirroring, shifts, and a smaller size in the first epochs (progressive resizing, Howard 2018), which halves their
cost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from shoplens.images.picture import ImageSpec
from shoplens.images.preprocess import preprocess
from shoplens.training.fit import Schedule, fit
from shoplens.training.progress import TrainProgress
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.compact import (
    BRIGHTNESS,
    HALVED,
    RESIDUAL,
    CompactWeights,
    Rounded,
    compact_model,
)

if TYPE_CHECKING:
    from shoplens.training.samples import Sample

Floats = NDArray[np.float32]

SIDE: Final = 28
WIDTH: Final = 24
EPOCHS: Final = 22
BATCH: Final = 128
PEAK_RATE: Final = 0.1
_SMALL_SHARE: Final = 0.3
_INFERENCE_BATCH: Final = 256
_MIN_BATCH: Final = 8
_MIN_STEPS: Final = 16

IMAGE: Final = ImageSpec(resize=SIDE, crop=SIDE, fit="squash", dtype="uint8")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ScratchModel:
    """The trained network, with its weights rounded to those of the graph, so that both compute the same."""

    weights: CompactWeights
    parameters: int
    image: ImageSpec = IMAGE

    def logits(self, samples: Sequence[Sample]) -> Floats:
        """See TrainedModel."""
        found = []
        for start in range(0, len(samples), _INFERENCE_BATCH):
            grey = grey_pictures(samples[start : start + _INFERENCE_BATCH])
            pictures = torch.from_numpy(_normalised(grey, self.weights.mean, self.weights.spread))
            with torch.inference_mode():
                found.append(compute(self.weights, pictures).numpy())
        return np.concatenate(found)

    def export(self, *, temperature: float) -> bytes:
        """See TrainedModel."""
        return compact_model(self.weights, side=SIDE, temperature=temperature)


def fit_scratch(
    samples: Sequence[Sample], classes: int, *, options: RecipeOptions, on_progress: Callable[[TrainProgress], None]
) -> ScratchModel:
    """Train from random weights. Raises TrainingDiverged."""
    on_progress(TrainProgress(stage="reading the pictures", done=0.0))
    pictures = grey_pictures(samples)
    mean, spread = float(round(pictures.mean())), float(max(1, round(pictures.std())))
    epochs = options.epochs or EPOCHS
    # A smaller batch for few samples, so that an epoch still has some steps. The rate shrinks with it.
    batch = min(BATCH, max(_MIN_BATCH, len(samples) // _MIN_STEPS), len(samples))
    torch.manual_seed(options.seed)
    loader = SmallPictureLoader(
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
    trained = fit(network, loader, schedule, checkpoint=checkpoint, on_progress=on_progress)
    assert isinstance(trained, CompactNetwork)
    parameters = sum(parameter.numel() for parameter in trained.parameters())
    return ScratchModel(weights=fold(trained, mean=mean, spread=spread), parameters=parameters)


def grey_pictures(samples: Sequence[Sample]) -> NDArray[np.uint8]:
    """(n, side, side): the brightness of each picture, preprocessed as in serving."""
    pictures = np.empty((len(samples), SIDE, SIDE), np.uint8)
    for place, sample in enumerate(samples):
        pixels = preprocess(sample.picture(SIDE), IMAGE)
        pictures[place] = np.rint(pixels.astype(np.float32) @ BRIGHTNESS)
    return pictures


def _normalised(pictures: NDArray[np.uint8], mean: float, spread: float) -> Floats:
    return np.asarray((pictures.astype(np.float32) - np.float32(mean)) / np.float32(spread), np.float32)[:, None]


class ConvUnit(nn.Sequential):
    """Convolution 3 x 3, batch normalisation and ReLU; with `halve` also a max pooling that halves the sides."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool = False) -> None:
        convolution, norm = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        super().__init__(convolution, norm, nn.ReLU(), *([nn.MaxPool2d(2)] if halve else []))

    def folded(self) -> Rounded:
        """The convolution with the normalisation folded into it, in rounded numbers."""
        convolution, norm = self[0], self[1]
        assert isinstance(convolution, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_var is not None
        assert norm.running_mean is not None
        factor = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        weight = convolution.weight.detach() * factor[:, None, None, None]
        bias = norm.bias.detach() - norm.running_mean * factor
        return Rounded.of(np.ascontiguousarray(weight.numpy()), bias.numpy())


class Residual(nn.Module):
    """Two units whose result is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.units = nn.Sequential(ConvUnit(channels, channels), ConvUnit(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape as `x`, (batch, channels, height, width)."""
        changed: Tensor = self.units(x)
        return x + changed


class CompactNetwork(nn.Module):
    """(batch, channels, side, side) float32 in, (batch, classes) logits out; any side of 16 pixels or more."""

    def __init__(self, *, channels: int, classes: int, width: int = WIDTH) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvUnit(channels, width),
            ConvUnit(width, 2 * width, halve=True),
            Residual(2 * width),
            ConvUnit(2 * width, 4 * width, halve=True),
            ConvUnit(4 * width, 8 * width, halve=True),
            Residual(8 * width),
        )
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        features: Tensor = self.body(x)
        logits: Tensor = self.head(features.amax(dim=(2, 3)))
        return logits


def fold(network: CompactNetwork, *, mean: float, spread: float) -> CompactWeights:
    """The network with batch normalisation folded into the convolutions, in rounded numbers."""
    convolutions = tuple(module.folded() for module in network.modules() if isinstance(module, ConvUnit))
    head = Rounded.of(network.head.weight.detach().numpy(), network.head.bias.detach().numpy())
    return CompactWeights(convolutions=convolutions, head=head, mean=mean, spread=spread)


def compute(weights: CompactWeights, pictures: Tensor) -> Tensor:
    """(n, classes) logits of (n, 1, side, side) normalised pictures: the mean of a picture and its mirror image."""
    residual = dict(RESIDUAL)

    def embed(value: Tensor) -> Tensor:
        shortcut: dict[int, Tensor] = {}
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

    embedding = (embed(pictures) + embed(pictures.flip(3))) / 2
    return functional.linear(embedding, torch.from_numpy(weights.head.weight), torch.from_numpy(weights.head.bias))


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """`shift` and `hidden` (the side of the cutout) in pixels; in the first `small_epochs` the side is `small_side`."""

    shift: int = 2
    hidden: int = 8
    mirror: bool = True
    small_epochs: int = 0
    small_side: int = 20


class SmallPictureLoader:
    """Augmented batches of `pictures` (n, channels, side, side) float32, normalised, and `labels` (n,).

    A batch is augmented as one tensor; torch's DataLoader would load and collate single pictures.
    """

    def __init__(
        self,
        pictures: Floats,
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
        self._augmentation = augmentation

    def __len__(self) -> int:
        return max(1, len(self._labels) // self._batch)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Every picture at most once. Order and augmentation are seeded by the seed and the epoch."""
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._labels))
        for start in range(len(self)):
            chosen = torch.from_numpy(order[start * self._batch : (start + 1) * self._batch])
            pictures = augment(self._pictures[chosen], self._augmentation, random)
            if epoch < self._augmentation.small_epochs:
                pictures = functional.interpolate(pictures, self._augmentation.small_side, mode="area")
            yield pictures.contiguous(memory_format=torch.channels_last), self._labels[chosen]


def augment(pictures: Tensor, augmentation: Augmentation, random: np.random.Generator) -> Tensor:
    """Mirror, shift and partly hide each of `pictures` (n, channels, side, side)."""
    count, channels, side, _ = pictures.shape
    if augmentation.mirror:
        mirrored = torch.from_numpy(random.random(count) < 0.5)
        pictures = torch.where(mirrored[:, None, None, None], pictures.flip(3), pictures)
    if shift := augmentation.shift:
        padded = functional.pad(pictures, (shift, shift, shift, shift), mode="replicate")
        down, across = (torch.from_numpy(random.integers(0, 2 * shift + 1, count)) for _ in range(2))
        rows = (down[:, None] + torch.arange(side))[:, None, :, None].expand(count, channels, side, side + 2 * shift)
        columns = (across[:, None] + torch.arange(side))[:, None, None, :].expand(count, channels, side, side)
        pictures = padded.gather(2, rows).gather(3, columns)
    if hidden := augmentation.hidden:
        top, left = (torch.from_numpy(random.integers(0, side, count)) for _ in range(2))
        in_rows, in_columns = (
            (-(hidden // 2) <= distance) & (distance < hidden - hidden // 2)
            for distance in (torch.arange(side)[None, :] - centre[:, None] for centre in (top, left))
        )
        pictures = pictures.masked_fill((in_rows[:, :, None] & in_columns[:, None, :])[:, None], 0.0)
    return pictures
