"""The network of the recipe `fusion` in torch, and how it is trained.

Rows of the table have sparse gradients, so that a step costs by the tokens of its batch, not by all that are known.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from shoplens.bundles.manifest import SampleKind
from shoplens.texts.spec import TextSpec
from shoplens.training.errors import TrainingDiverged
from shoplens.training.progress import TrainProgress
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.fusion import Floats, FusionData, FusionModel, Labels, Layer, Vocabulary

KINDS: Final[tuple[SampleKind, ...]] = ("photo", "text", "both")
_WARM_UP: Final = 0.1
_FIRST_STEPS: Final = 0.05
"""The spread of the table's values before training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionOptions:
    """How the network is made and trained; the values were chosen on held-out products (`bench/products.py`).

    `dropped_tokens` is the share of a text's tokens that a step does not see, `dropout` that of the photo's values.
    """

    epochs: int = 15
    batch: int = 128
    text_size: int = 128
    photo_size: int = 512
    table_rate: float = 0.05
    rate: float = 2e-3
    decay: float = 0.01
    dropped_tokens: float = 0.2
    dropout: float = 0.3
    smoothing: float = 0.02


class FusionNet(nn.Module):
    """Weighted rows of texts and standardised embeddings in, the logits of each head out."""

    def __init__(self, rows: int, features: int, classes: int, options: FusionOptions) -> None:
        super().__init__()
        texts, photos = options.text_size, options.photo_size
        self.table = nn.EmbeddingBag(rows, texts, mode="sum", sparse=True)
        nn.init.normal_(self.table.weight, std=_FIRST_STEPS)
        self.heads = nn.ModuleDict({"text": nn.Linear(texts, classes)})
        if features:
            self.heads["hidden"] = nn.Linear(features, photos)
            self.heads["photo"] = nn.Linear(photos, classes)
            self.heads["both"] = nn.Linear(texts + photos, classes)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, rows: Tensor, weights: Tensor, offsets: Tensor, embeddings: Tensor) -> dict[str, Tensor]:
        """(n, classes) per kind."""
        texts = self.table(rows, offsets, per_sample_weights=weights)
        logits = {"text": self.heads["text"](texts)}
        if "hidden" in self.heads:
            photos = self.dropout(functional.relu(self.heads["hidden"](embeddings)))
            logits["photo"] = self.heads["photo"](photos)
            logits["both"] = self.heads["both"](torch.cat([texts, photos], dim=1))
        return logits


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Batches:
    """The training data as the network takes it."""

    matrix: csr_array
    photos: Floats
    labels: Labels
    has: dict[SampleKind, NDArray[np.bool_]]
    dropped: float

    def loss(self, net: FusionNet, chosen: NDArray[np.int64], random: np.random.Generator, smoothing: float) -> Tensor:
        """The sum of the losses of the heads, each over the samples that have its input."""
        part = self.matrix[chosen]
        kept = random.random(len(part.data)) >= self.dropped
        logits = net(
            torch.from_numpy(part.indices.astype(np.int64)),
            torch.from_numpy((part.data * kept).astype(np.float32)),
            torch.from_numpy(part.indptr[:-1].astype(np.int64)),
            torch.from_numpy(self.photos[chosen]),
        )
        labels = torch.from_numpy(self.labels[chosen])
        losses = [torch.zeros(())]
        for kind in KINDS:
            known = torch.from_numpy(self.has[kind][chosen])
            if kind in logits and known.any():
                losses.append(functional.cross_entropy(logits[kind][known], labels[known], label_smoothing=smoothing))
        return torch.stack(losses).sum()


def learn(
    data: FusionData,
    labels: Labels,
    classes: int,
    *,
    spec: TextSpec,
    options: RecipeOptions,
    fusion: FusionOptions | None = None,
    on_progress: Callable[[TrainProgress], None] = lambda _progress: None,
) -> FusionModel:
    """See `fit_fusion`."""
    fusion = fusion or FusionOptions()
    torch.manual_seed(options.seed)
    vocabulary = Vocabulary.of(data, spec.buckets)
    photos, mean, spread = _standardised(data)
    batches = _Batches(
        matrix=vocabulary.matrix(data),
        photos=photos,
        labels=labels,
        has={kind: data.having(kind) for kind in KINDS},
        dropped=fusion.dropped_tokens,
    )
    net = FusionNet(len(vocabulary.idf), photos.shape[1], classes, fusion)
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.SparseAdam(list(net.table.parameters()), lr=fusion.table_rate, betas=(0.9, 0.99)),
        torch.optim.AdamW(net.heads.parameters(), lr=fusion.rate, betas=(0.9, 0.99), weight_decay=fusion.decay),
    ]
    epochs = options.epochs or fusion.epochs
    steps = math.ceil(len(data) / fusion.batch)

    def rate_at(step: int) -> float:
        done = step / (epochs * steps)
        return max(min((done + 1 / (epochs * steps)) / _WARM_UP, (1 - done) / (1 - _WARM_UP)), 0.0)

    rates = [LambdaLR(optimiser, rate_at) for optimiser in optimisers]
    began, random = time.monotonic(), np.random.default_rng(options.seed)
    for done, chosen in enumerate(_orders(len(data), epochs, fusion.batch, random), start=1):
        loss = batches.loss(net, chosen, random, fusion.smoothing)
        if not math.isfinite(loss.item()):
            raise TrainingDiverged("The loss is not finite. Check the texts, photos and labels.")
        net.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.step()
            rate.step()
        total = epochs * steps
        on_progress(
            TrainProgress(
                stage="training",
                epoch=(done - 1) // steps + 1,
                epochs=epochs,
                done=done / total,
                loss=loss.item(),
                seconds_left=(time.monotonic() - began) / done * (total - done),
            )
        )
    return _learned(net, vocabulary, spec, mean, spread)


def _orders(samples: int, epochs: int, batch: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """The samples of each step."""
    for _ in range(epochs):
        order = random.permutation(samples)
        yield from (order[at : at + batch] for at in range(0, samples, batch))


def _standardised(data: FusionData) -> tuple[Floats, Floats, np.float32]:
    """Centred embeddings with one scale for all, that centre and that scale; (n, 0) where no sample has a photo."""
    known = data.embeddings[data.has_photo]
    if not len(known):
        return np.zeros((len(data), 0), np.float32), np.zeros(0, np.float32), np.float32(1)
    mean = known.mean(axis=0)
    spread = np.float32(max(float((known - mean).std()), 1e-6))
    return np.asarray((data.embeddings - mean) / spread, np.float32), mean, spread


def _learned(net: FusionNet, vocabulary: Vocabulary, spec: TextSpec, mean: Floats, spread: np.float32) -> FusionModel:
    """The values as the graph stores them: the table in int8, a step per row, and the standardisation folded in."""
    table = net.table.weight.detach().numpy()
    steps = np.maximum(np.abs(table).max(axis=1), np.float32(1e-12)) / np.float32(127)
    layers = {
        name: Layer(weight=head.weight.detach().numpy().copy(), bias=head.bias.detach().numpy().copy())
        for name, head in net.heads.items()
        if isinstance(head, nn.Linear)
    }
    if "hidden" in layers:
        weight = layers["hidden"].weight / spread
        layers["hidden"] = Layer(weight=weight, bias=np.asarray(layers["hidden"].bias - weight @ mean, np.float32))
    return FusionModel(
        spec=spec,
        vocabulary=vocabulary,
        table=np.rint(table / steps[:, None]).astype(np.int8),
        steps=steps,
        text=layers["text"],
        hidden=layers.get("hidden"),
        photo=layers.get("photo"),
        both=layers.get("both"),
    )
