"""The recipe `fusion`: products by photo, text or both. A frozen network embeds photos; this learns everything else.

The text is a sum of learned rows, one per token, with the weights of TF-IDF (Salton and Buckley 1988) and the length
of one text divided out: a linear model of low rank, as fastText (Joulin et al., "Bag of Tricks for Efficient Text
Classification", 2017). There is a head for photos, one for texts and one for both, trained together ("late fusion"), so
that a missing input is no zero that misleads but a question to another head.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from shoplens.bundles.manifest import SampleKind
from shoplens.texts.spec import TextSpec
from shoplens.training.errors import DatasetInvalid
from shoplens.training.progress import TrainProgress
from shoplens.training.recipes import RecipeOptions

if TYPE_CHECKING:
    from shoplens.texts.features import TextFeatures

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

TEXT: Final = TextSpec()
"""What the recipe reads of a text."""
MAX_ROWS: Final = 100_000
"""At most this many tokens have a row of their own; the most frequent ones."""
_KEEP_SINGLE_BELOW: Final = 2_000
"""With so many texts or more, a token that occurs in one text only has no row of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FusionData:
    """The inputs of n samples. Sample i has the tokens `offsets[i]` to `offsets[i + 1]`; none where it has no text.

    `embeddings` is (n, d): the mean of the embeddings of its photos, each of length 1; zeros where it has no photo, and
    d is 0 where no sample has one.
    """

    tokens: NDArray[np.int64]
    weights: Floats
    offsets: NDArray[np.int64]
    embeddings: Floats

    @classmethod
    def of(cls, texts: Iterable[TextFeatures], embeddings: Floats | None = None) -> FusionData:
        """The features of each text, and the embeddings in the same order."""
        found = list(texts)
        return cls(
            tokens=np.concatenate([np.empty(0, np.int64), *(each.tokens for each in found)]),
            weights=np.concatenate([np.empty(0, np.float32), *(each.weights for each in found)]),
            offsets=np.cumsum([0, *(len(each.tokens) for each in found)], dtype=np.int64),
            embeddings=np.zeros((len(found), 0), np.float32) if embeddings is None else embeddings,
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def has_text(self) -> NDArray[np.bool_]:
        """Which samples have a text with at least one word."""
        return np.diff(self.offsets) > 0

    @cached_property
    def has_photo(self) -> NDArray[np.bool_]:
        """Which samples have a photo."""
        return np.asarray(self.embeddings.any(axis=1))

    def having(self, kind: SampleKind) -> NDArray[np.bool_]:
        """Which samples have what `kind` names."""
        return {"photo": self.has_photo, "text": self.has_text, "both": self.has_photo & self.has_text}[kind]


def mean_embedding(embeddings: Floats) -> Floats:
    """(d,) the mean of the embeddings of one product's photos (photos, d), each brought to length 1."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray((embeddings / np.maximum(lengths, np.float32(1e-12))).mean(axis=0), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Vocabulary:
    """`rows` is (buckets,) int32: the row of each token, 0 for tokens without one. `idf` is (rows,): how much a token
    tells by how rare it is (smoothed as in scikit-learn).
    """

    rows: NDArray[np.int32]
    idf: Floats

    @classmethod
    def of(cls, data: FusionData, buckets: int) -> Vocabulary:
        """The tokens of the texts of `data`."""
        counts = np.bincount(data.tokens, minlength=buckets)
        texts = int(data.has_text.sum())
        least = 1 if texts < _KEEP_SINGLE_BELOW else 2
        kept = np.flatnonzero(counts >= least)
        if len(kept) > MAX_ROWS:
            kept = np.sort(kept[np.argsort(-counts[kept], kind="stable")[:MAX_ROWS]])
        rows = np.zeros(buckets, np.int32)
        rows[kept] = np.arange(1, len(kept) + 1)
        idf = np.log((1 + texts) / (1 + counts[kept])) + 1
        return cls(rows=rows, idf=np.concatenate([[1.0], idf]).astype(np.float32))

    def matrix(self, data: FusionData) -> csr_array:
        """(n, rows) float32: each text as the weights of its rows, of length (nearly) 1."""
        rows = self.rows[data.tokens]
        values = data.weights * self.idf[rows]
        squares = np.concatenate([[0.0], np.cumsum(values.astype(np.float64) ** 2)])
        lengths = np.sqrt(1.0 + np.diff(squares[data.offsets]))
        values = (values / np.repeat(lengths, np.diff(data.offsets))).astype(np.float32)
        return csr_array((values, rows, data.offsets), shape=(len(data), len(self.idf)))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Layer:
    """`weight` is (outputs, inputs), `bias` (outputs,)."""

    weight: Floats
    bias: Floats

    def __call__(self, values: Any) -> Floats:
        """(n, outputs)."""
        return np.asarray(values @ self.weight.T + self.bias, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FusionModel:
    """What was learned. `table` is (rows, t) int8, in steps of `steps` (rows,). Without photos `photo`, `hidden` and
    `both` are None.
    """

    spec: TextSpec
    vocabulary: Vocabulary
    table: NDArray[np.int8]
    steps: Floats
    text: Layer
    hidden: Layer | None
    photo: Layer | None
    both: Layer | None

    @property
    def kinds(self) -> tuple[SampleKind, ...]:
        """The kinds of samples that the model takes."""
        return ("text",) if self.hidden is None else ("photo", "text", "both")

    @property
    def parameters(self) -> int:
        """The number of weights and offsets."""
        layers = [layer for layer in (self.text, self.hidden, self.photo, self.both) if layer is not None]
        return self.table.size + sum(layer.weight.size + layer.bias.size for layer in layers)

    def logits(self, data: FusionData, kind: SampleKind) -> Floats:
        """(n, classes) of the head for `kind`, at temperature 1."""
        if kind == "photo":
            assert self.photo is not None
            return self.photo(self._photos(data))
        texts = np.asarray(self.vocabulary.matrix(data) @ (self.table * self.steps[:, None]), np.float32)
        if kind == "text":
            return self.text(texts)
        assert self.both is not None
        return self.both(np.concatenate([texts, self._photos(data)], axis=1))

    def _photos(self, data: FusionData) -> Floats:
        assert self.hidden is not None
        return np.maximum(self.hidden(data.embeddings), np.float32(0))

    def export(self, temperatures: Mapping[SampleKind, float]) -> bytes:
        """The graph `model.onnx` of the bundle."""
        from shoplens.training.recipes.fusion_graph import classifier_graph

        return classifier_graph(self, temperatures)


def fit_fusion(
    data: FusionData,
    labels: Labels,
    classes: int,
    *,
    options: RecipeOptions,
    spec: TextSpec = TEXT,
    on_progress: Callable[[TrainProgress], None] = lambda _progress: None,
) -> FusionModel:
    """Learn `labels` (n,), numbers below `classes`, from `data`, whose texts were read by `spec`.

    Samples without text, or without photos, train the heads that can use them. Raises DatasetInvalid if no sample has
    a text, TrainingDiverged.
    """
    if not data.has_text.any():
        raise DatasetInvalid(
            "No sample has a text. Train with the recipe `transfer` or `head`, which need photos only."
        )
    from shoplens.training.recipes.fusion_network import learn

    return learn(data, labels, classes, spec=spec, options=options, on_progress=on_progress)
