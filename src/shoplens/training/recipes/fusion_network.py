"""How the recipe `fusion` is trained: the texts by themselves, then the heads for photos and for both in torch.

The head for both adds what the photo says to what the text says, and learns it on logits of texts that were not learned
from ("stacking", Wolpert 1992). How much of it is kept is chosen on products that the head did not learn from either:
the text that answers knows more than those, so that the head trusts the photo too much, and rare classes lose by it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from shoplens.texts.spec import TextSpec
from shoplens.training.errors import TrainingDiverged
from shoplens.training.progress import TrainProgress
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.fusion import Floats, FusionData, FusionModel, Labels, Layer, Vocabulary
from shoplens.training.recipes.fusion_text import TextPart, learn_texts, orders, text_groups

_WARM_UP: Final = 0.1
_LEAST_STEPS: Final = 100
"""Few samples are learned in smaller batches, so that an epoch has about this many steps."""
SHARES: Final = (0.5, 0.75, 1.0)
"""How much of what the photo adds to the text may be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionOptions:
    """How the heads are made and trained; the values were chosen on training products of `bench/products.py`.

    `masked` is the share of an embedding's values that a step does not see, `dropout` that of the hidden values.
    `restraint` is the penalty on the squares of what the photo adds to the logits of the text, where the text is sure.
    """

    epochs: int = 12
    batch: int = 128
    photo_size: int = 512
    rate: float = 1e-3
    decay: float = 0.05
    masked: float = 0.1
    dropout: float = 0.4
    restraint: float = 0.05


class FusionHeads(nn.Module):
    """Standardised embeddings and the logits of texts in, the logits for photos and for both out."""

    def __init__(self, features: int, classes: int, options: FusionOptions) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, options.photo_size)
        self.photo = nn.Linear(options.photo_size, classes)
        self.both = nn.Linear(options.photo_size, classes)
        self.trust = nn.Parameter(torch.ones(()))
        nn.init.zeros_(self.both.weight)
        nn.init.zeros_(self.both.bias)
        self.masked = nn.Dropout(options.masked)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, embeddings: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(n, classes): the logits for photos and for both, and what the photo adds to the latter."""
        photos = self.dropout(functional.relu(self.hidden(self.masked(embeddings))))
        added = self.both(photos)
        return self.photo(photos), self.trust * texts + added, added


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
    vocabulary = Vocabulary.of(data, spec.buckets)
    known, groups = np.flatnonzero(data.has_text), text_groups(data)
    part, unseen = learn_texts(
        vocabulary.matrix(data)[known],
        labels[known],
        groups[known],
        classes,
        seed=options.seed,
        on_fit=lambda done, total: on_progress(TrainProgress(stage="learning from the texts", done=done / total)),
    )
    if not data.has_photo.any():
        return _learned(part, vocabulary, spec, None)
    texts = np.zeros((len(data), classes), np.float32)
    texts[known] = unseen
    fit = partial(
        _fit_heads, data, texts, labels, options=options, fusion=fusion or FusionOptions(), on_progress=on_progress
    )
    held = np.flatnonzero(data.having("both") & (groups == 0))
    others = np.setdiff1d(np.flatnonzero(data.has_photo), held)
    share = 1.0
    if len(held) and len(others):
        trial = fit(others, stage="weighing photos against texts")
        share = chosen_share(trial.trust * texts[held], trial.added(data.embeddings[held]), labels[held])
    heads = fit(np.flatnonzero(data.has_photo), stage="training")
    return _learned(part, vocabulary, spec, heads, share)


def chosen_share(texts: Floats, added: Floats, labels: Labels) -> float:
    """The one of `SHARES` that is most often right, of equals the greatest.

    `texts` and `added` are (n, classes): the logits of texts, and what photos add to them.
    """
    return max(SHARES, key=lambda share: (int(((texts + share * added).argmax(axis=1) == labels).sum()), share))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Heads:
    hidden: Layer
    photo: Layer
    both: Layer
    trust: np.float32

    def added(self, embeddings: Floats) -> Floats:
        """(n, classes): what photos add to the logits of texts."""
        return self.both(np.maximum(self.hidden(embeddings), np.float32(0)))


def _fit_heads(
    data: FusionData,
    texts: Floats,
    labels: Labels,
    samples: NDArray[np.int64],
    *,
    stage: str,
    options: RecipeOptions,
    fusion: FusionOptions,
    on_progress: Callable[[TrainProgress], None],
) -> _Heads:
    """Learn from `samples`, which all have a photo. `texts` has the logits of texts. Raises TrainingDiverged."""
    torch.manual_seed(options.seed)
    embeddings, labels = data.embeddings[samples], labels[samples]
    mean = embeddings.mean(axis=0)
    spread = np.float32(max(float((embeddings - mean).std()), 1e-6))
    inputs = torch.from_numpy(np.asarray((embeddings - mean) / spread, np.float32))
    said, truth, both = (
        torch.from_numpy(texts[samples]),
        torch.from_numpy(labels),
        torch.from_numpy(data.has_text[samples]),
    )
    net = FusionHeads(embeddings.shape[1], texts.shape[1], fusion)
    optimiser = torch.optim.AdamW(net.parameters(), lr=fusion.rate, betas=(0.9, 0.99), weight_decay=fusion.decay)
    epochs = options.epochs or fusion.epochs
    batch = min(max(len(labels) // _LEAST_STEPS, 8), fusion.batch)
    steps = math.ceil(len(labels) / batch)
    total = epochs * steps

    def rate_at(step: int) -> float:
        return max(min((step + 1) / total / _WARM_UP, (1 - step / total) / (1 - _WARM_UP)), 0.0)

    rate = LambdaLR(optimiser, rate_at)
    began, random = time.monotonic(), np.random.default_rng(options.seed)
    for done, order in enumerate(orders(len(labels), epochs, batch, random), start=1):
        chosen = torch.from_numpy(order)
        by_photo, by_both, added = net(inputs[chosen], said[chosen])
        loss = functional.cross_entropy(by_photo, truth[chosen])
        if (mask := both[chosen]).any():
            loss = loss + functional.cross_entropy(by_both[mask], truth[chosen][mask])
            sure = functional.softmax(said[chosen][mask], dim=1).amax(dim=1) ** 4
            loss = loss + fusion.restraint * (sure * added[mask].square().mean(dim=1)).mean()
        if not math.isfinite(loss.item()):
            raise TrainingDiverged("The loss is not finite. Check the photos and labels.")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        rate.step()
        on_progress(
            TrainProgress(
                stage=stage,
                epoch=(done - 1) // steps + 1,
                epochs=epochs,
                done=done / total,
                loss=loss.item(),
                seconds_left=(time.monotonic() - began) / done * (total - done),
            )
        )
    hidden = _layer(net.hidden)
    weight = hidden.weight / spread
    return _Heads(
        hidden=Layer(weight=weight, bias=np.asarray(hidden.bias - weight @ mean, np.float32)),
        photo=_layer(net.photo),
        both=_layer(net.both),
        trust=np.float32(net.trust.item()),
    )


def _layer(linear: nn.Linear) -> Layer:
    return Layer(weight=linear.weight.detach().numpy().copy(), bias=linear.bias.detach().numpy().copy())


def _learned(
    part: TextPart, vocabulary: Vocabulary, spec: TextSpec, heads: _Heads | None, share: float = 1.0
) -> FusionModel:
    """The values as the graph stores them: the table in int8 with a step per row; the head for both reads the sum of
    the text's rows and the photo's hidden values, of which it keeps `share`.
    """
    steps = np.maximum(np.abs(part.table).max(axis=1), np.float32(1e-12)) / np.float32(127)
    both, kept = None, np.float32(share)
    if heads is not None:
        both = Layer(
            weight=np.concatenate([heads.trust * part.layer.weight, kept * heads.both.weight], axis=1),
            bias=np.asarray(heads.trust * part.layer.bias + kept * heads.both.bias, np.float32),
        )
    return FusionModel(
        spec=spec,
        vocabulary=vocabulary,
        table=np.rint(part.table / steps[:, None]).astype(np.int8),
        steps=steps,
        text=part.layer,
        hidden=heads.hidden if heads else None,
        photo=heads.photo if heads else None,
        both=both,
    )
