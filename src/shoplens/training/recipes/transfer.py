"""The recipe `transfer`: the last stages of the built-in network learn on, from a head that was fitted first.

Methods: a fitted head before fine-tuning (Kumar et al., "Fine-Tuning can Distort Pretrained Features", 2022), random
views, and mixing of pairs (Zhang et al., "mixup", 2018) at the values where the tail begins (Verma et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import onnx.utils
import torch
from numpy.typing import NDArray
from torch import Tensor

from shoplens.bundles.builtin.efficientnet import SIDE, Layer, Network
from shoplens.bundles.builtin.onnx_graph import INPUT, float_model
from shoplens.bundles.probe import open_session
from shoplens.images.picture import ImageSpec
from shoplens.images.preprocess import preprocess
from shoplens.training.fit import Schedule, fit
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.backbone import CUT, Tail, cut_at
from shoplens.training.recipes.head import fit_head
from shoplens.training.recipes.pretrained import IMAGE, exported, in_parallel, number_count
from shoplens.training.recipes.views import random_view
from shoplens.training.ticks import Tick

if TYPE_CHECKING:
    from shoplens.training.samples import Sample

Floats = NDArray[np.float32]

EPOCHS: Final = 10
BATCH: Final = 32
PEAK_RATE: Final = 2e-4
DECAY: Final = 0.02
MIXING: Final = 0.2
DROPOUT: Final = 0.2


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedTransfer:
    """The network with its frozen trunk and its fine-tuned tail."""

    network: Network

    @property
    def image(self) -> ImageSpec:
        """See Fitted."""
        return IMAGE

    @property
    def parameters(self) -> int:
        """See Fitted."""
        return number_count(self.network)

    def logits(self, samples: Sequence[Sample]) -> Floats:
        """See Fitted."""
        layers, tail = self._parts()
        trunk = Trunk(layers)
        rows = in_parallel(lambda sample: trunk(preprocess(sample.picture(IMAGE.resize), IMAGE)), samples)
        with torch.inference_mode():
            return np.stack([tail(torch.from_numpy(row[None]))[0].numpy() for row in rows])

    def export(self, *, temperature: float) -> bytes:
        """See Fitted."""
        return exported(self.network, temperature=temperature)

    def _parts(self) -> tuple[tuple[Layer, ...], Tail]:
        trunk, layers = cut_at(self.network, CUT)
        return trunk, Tail(layers, weight=self.network.weight, bias=self.network.bias).eval()


def trunk_model(layers: tuple[Layer, ...]) -> bytes:
    """An ONNX graph of the first layers of a network; its only output is the value of the last one."""
    channels, last = len(layers[-1].bias), layers[-1]
    head = {"weight": np.zeros((1, channels), np.float32), "bias": np.zeros(1, np.float32)}
    whole = onnx.load_from_string(float_model(Network(layers=layers, **head)))
    value = f"{last.name}.sum" if last.adds else last.name
    return bytes(onnx.utils.Extractor(whole).extract_model([INPUT], [value]).SerializeToString())


class Trunk:
    """The layers that stay as they are, in ONNX Runtime: pixels of one picture in, its values at the cut out."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        self._session: Any = open_session(trunk_model(layers), optimise=True)

    def __call__(self, pixels: NDArray[np.uint8]) -> Floats:
        """(side, side, 3) in, (channels, height, width) out."""
        return np.asarray(self._session.run(None, {INPUT: pixels[None]})[0][0], np.float32)


class ViewFeed:
    """Fresh random views of every sample in every epoch, mixed in pairs, as values of the trunk."""

    def __init__(self, samples: Sequence[Sample], classes: int, *, trunk: Trunk, seed: int) -> None:
        self._samples = samples
        self._classes = classes
        self._trunk = trunk
        self._seed = seed

    @property
    def steps(self) -> int:
        """See Feed."""
        return max(1, len(self._samples) // BATCH)

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """See Feed."""
        random = np.random.default_rng((self._seed, epoch))
        order = random.permutation(len(self._samples))[: self.steps * BATCH]
        seeds = dict(zip(order.tolist(), random.integers(0, 2**63, len(order)).tolist(), strict=True))
        rows = in_parallel(lambda index: self._view(index, seeds[index]), order.tolist())
        batch: list[tuple[Floats, int]] = []
        for row, index in zip(rows, order.tolist(), strict=True):
            batch.append((row, self._samples[index].label))
            if len(batch) == min(BATCH, len(order)):
                yield self._mixed(batch, random)
                batch = []

    def _view(self, index: int, seed: int) -> Floats:
        pixels = self._samples[index].picture(SIDE).pixels
        return self._trunk(random_view(pixels, SIDE, np.random.default_rng(seed)))

    def _mixed(self, batch: list[tuple[Floats, int]], random: np.random.Generator) -> tuple[Tensor, Tensor]:
        values = torch.from_numpy(np.stack([row for row, _ in batch]))
        shares = torch.eye(self._classes)[[label for _, label in batch]]
        kept = float(random.beta(MIXING, MIXING))
        other = torch.from_numpy(random.permutation(len(batch)))
        mixed = kept * values + (1 - kept) * values[other]
        return mixed.contiguous(memory_format=torch.channels_last), kept * shares + (1 - kept) * shares[other]


def fit_transfer(
    samples: Sequence[Sample], classes: int, *, options: RecipeOptions, on_tick: Callable[[Tick], None]
) -> FittedTransfer:
    """Fit a head, then let the tail learn on. Raises TrainingDiverged."""
    start = fit_head(samples, classes, options=options, on_tick=on_tick)
    trunk, layers = cut_at(start.base, CUT)
    torch.manual_seed(options.seed)
    learned = fit(
        Tail(layers, weight=start.head.weight, bias=start.head.bias, dropout=DROPOUT),
        ViewFeed(samples, classes, trunk=Trunk(trunk), seed=options.seed),
        Schedule(
            epochs=options.epochs or EPOCHS, peak_rate=PEAK_RATE, weight_decay=DECAY, averaging=0.99, adaptive=True
        ),
        checkpoint=options.work_dir / "transfer.checkpoint" if options.work_dir else None,
        watch=on_tick,
    )
    assert isinstance(learned, Tail)
    return FittedTransfer(network=learned.learned(start.base))
