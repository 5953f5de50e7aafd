"""How the recipe `fusion` learns from texts: a linear model over hashed n-grams with the weights of TF-IDF.

Each class is separated from all others by a linear support vector machine with squared hinge loss (Fan et al.,
"LIBLINEAR", 2008). Where classes times tokens are too many for that, all classes share learned rows of low rank, as in
fastText (Joulin et al., "Bag of Tricks for Efficient Text Classification", 2017).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, csr_matrix
from sklearn.svm import LinearSVC
from sklearn.utils.extmath import randomized_svd
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from shoplens.training.calibrate import fit_temperature
from shoplens.training.errors import TrainingDiverged
from shoplens.training.recipes.fusion import Floats, FusionData, Labels, Layer

FOLDS: Final = 4
MOST_WEIGHTS: Final = 50_000_000
"""Classes times tokens of the linear machines; 400 MB while they are fitted."""
TEXT_SIZE: Final = 256
"""A row of the table has at most this many values; the machines of more classes are brought to this rank."""
PENALTY: Final = 2.0
"""What a text on the wrong side costs, beside the squares of the weights: with 1, the usual value, rare classes are
found less often (`bench/results.md`)."""
_ABSENT: Final = -2.0
"""The score of a class that no text has: below that of a text that is clearly of another class."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TextPart:
    """`table` is (rows, t) float32; `layer` makes the logits of the sum of a text's rows."""

    table: Floats
    layer: Layer

    def logits(self, matrix: csr_array) -> Floats:
        """(n, classes) of texts as weights of rows (n, rows)."""
        return self.layer(matrix @ self.table)

    def cooled(self, temperature: float) -> TextPart:
        """The same with logits divided by `temperature`."""
        return TextPart(
            table=self.table,
            layer=Layer(
                weight=np.asarray(self.layer.weight / temperature, np.float32),
                bias=np.asarray(self.layer.bias / temperature, np.float32),
            ),
        )


def learn_texts(
    matrix: csr_array,
    labels: Labels,
    groups: NDArray[np.int64],
    classes: int,
    *,
    seed: int,
    size: int = TEXT_SIZE,
    on_fit: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[TextPart, Floats]:
    """The part for texts, and for each text the logits (n, classes) of a part that did not learn from it.

    The second is what a head may learn from that weighs the text against the photo: on the texts that it knows, a part
    is nearly always right, so that head would learn to ignore photos. `groups` (n,) has a number below `FOLDS` for each
    text, equal ones for equal texts. A row has at most `size` values. Both have the temperature that suits texts that
    were not learned from.
    """
    fit: Callable[[csr_array, Labels, int, int], TextPart] = _shared_rows
    if classes * matrix.shape[1] <= MOST_WEIGHTS:
        fit = partial(_machines, size=size)
    unseen = np.zeros((matrix.shape[0], classes), np.float32)
    for fold in range(FOLDS):
        held, others = np.flatnonzero(groups == fold), np.flatnonzero(groups != fold)
        if len(held) and len(others):
            unseen[held] = fit(matrix[others], labels[others], classes, seed).logits(matrix[held])
        on_fit(fold + 1, FOLDS + 1)
    temperature = fit_temperature(unseen, labels)
    part = fit(matrix, labels, classes, seed).cooled(temperature)
    on_fit(FOLDS + 1, FOLDS + 1)
    return part, np.asarray(unseen / np.float32(temperature), np.float32)


def text_groups(data: FusionData) -> NDArray[np.int64]:
    """(n,) numbers below `FOLDS`, equal for texts with the same tokens."""
    tokens = [data.tokens[start:end] for start, end in zip(data.offsets[:-1], data.offsets[1:], strict=True)]
    return np.array([zlib.crc32(each.tobytes()) % FOLDS for each in tokens], np.int64)


def _machines(matrix: csr_array, labels: Labels, classes: int, seed: int, *, size: int) -> TextPart:
    """A support vector machine per class that occurs."""
    rows = csr_matrix(
        (matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)), shape=matrix.shape
    )
    rows.sum_duplicates()
    present = np.unique(labels)
    weight = np.zeros((classes, matrix.shape[1]), np.float32)
    bias = np.full(classes, _ABSENT, np.float32)
    if len(present) < 2:
        bias[present] = 1.0
    else:
        machines = LinearSVC(C=PENALTY, random_state=seed).fit(rows, labels)
        found, offsets = machines.coef_, machines.intercept_
        if len(present) == 2:  # scikit-learn fits one machine for both
            found, offsets = np.concatenate([-found, found]), np.concatenate([-offsets, offsets])
        weight[present], bias[present] = found, offsets
    if classes <= size:
        return TextPart(table=weight.T, layer=Layer(weight=np.eye(classes, dtype=np.float32), bias=bias))
    left, sizes, right = randomized_svd(weight.T, size, random_state=seed)
    return TextPart(
        table=np.asarray(left * sizes, np.float32), layer=Layer(weight=np.asarray(right.T, np.float32), bias=bias)
    )


_EPOCHS: Final = 15
_BATCH: Final = 128
_RATE: Final = 0.05
_HEAD_RATE: Final = 2e-3
_FIRST_STEPS: Final = 0.05
"""The spread of the table's values before training."""
_DROPPED: Final = 0.2
"""The share of a text's tokens that a step does not see."""
_SIZE: Final = 128


def _shared_rows(matrix: csr_array, labels: Labels, classes: int, seed: int) -> TextPart:
    """Rows with sparse gradients, so that a step costs by the tokens of its batch, not by all that are known."""
    torch.manual_seed(seed)
    table = nn.EmbeddingBag(matrix.shape[1], _SIZE, mode="sum", sparse=True)
    nn.init.normal_(table.weight, std=_FIRST_STEPS)
    head = nn.Linear(_SIZE, classes)
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.SparseAdam(list(table.parameters()), lr=_RATE, betas=(0.9, 0.99)),
        torch.optim.AdamW(head.parameters(), lr=_HEAD_RATE, betas=(0.9, 0.99)),
    ]
    random, total = np.random.default_rng(seed), _EPOCHS * math.ceil(len(labels) / _BATCH)
    rates = [LambdaLR(optimiser, lambda step: 1 - step / total) for optimiser in optimisers]
    for chosen in orders(len(labels), _EPOCHS, _BATCH, random):
        part = matrix[chosen]
        kept = random.random(len(part.data)) >= _DROPPED
        sums = table(
            torch.from_numpy(part.indices.astype(np.int64)),
            torch.from_numpy(part.indptr[:-1].astype(np.int64)),
            per_sample_weights=torch.from_numpy((part.data * kept).astype(np.float32)),
        )
        loss = functional.cross_entropy(head(sums), torch.from_numpy(labels[chosen]), label_smoothing=0.02)
        if not math.isfinite(loss.item()):
            raise TrainingDiverged("The loss is not finite. Check the texts and labels.")
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for optimiser, rate in zip(optimisers, rates, strict=True):
            optimiser.step()
            rate.step()
    layer = Layer(weight=head.weight.detach().numpy().copy(), bias=head.bias.detach().numpy().copy())
    return TextPart(table=table.weight.detach().numpy().copy(), layer=layer)


def orders(samples: int, epochs: int, batch: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """The samples of each step."""
    for _ in range(epochs):
        order = random.permutation(samples)
        yield from (order[at : at + batch] for at in range(0, samples, batch))
