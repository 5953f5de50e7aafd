"""Classify with one bundle: samples in, one outcome per sample, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.bundle import Bundle
from shoplens.errors import BundleInvalid, ShoplensError
from shoplens.images.picture import Picture
from shoplens.images.preprocess import preprocess
from shoplens.serving.prediction import RANKED_LABELS, LabelScore, Prediction
from shoplens.serving.session import Provider, Session, open_session

Tensor = NDArray[Any]


class Classifier:
    """An open bundle. All methods may be called from many threads at once."""

    def __init__(self, bundle: Bundle, *, provider: Provider = "cpu") -> None:
        self.bundle = bundle
        self.session: Session = open_session(bundle.model_path, provider=provider)
        self._labels = tuple(label.name for label in bundle.labels)

    @property
    def short_side(self) -> int:
        """The pixels that a picture needs on its shorter side; more are only thrown away."""
        return self.bundle.manifest.image.resize

    def preprocess(self, picture: Picture) -> Tensor:
        """The tensor of one sample, without a batch dimension."""
        return preprocess(picture, self.bundle.manifest.image)

    def classify(self, tensors: Sequence[Tensor], *, top_k: int = RANKED_LABELS) -> list[Prediction | ShoplensError]:
        """One outcome per tensor, in order, each with at least `top_k` labels where the model has them."""
        scores = self._scores(tensors)
        return [self._outcome(row, top_k) for row in scores]

    def warm(self) -> None:
        """Make the first real call as quick as the next. Raises BundleInvalid if the model cannot answer."""
        spec = self.bundle.manifest.image
        grey = Picture(
            pixels=np.full((spec.resize, spec.resize, 3), 127, np.uint8),
            format="png",
            width=spec.resize,
            height=spec.resize,
        )
        (outcome,) = self.classify([self.preprocess(grey)])
        if isinstance(outcome, ShoplensError):
            raise BundleInvalid(f"{self.bundle.ref} cannot classify a grey picture: {outcome}") from outcome

    def _scores(self, tensors: Sequence[Tensor]) -> NDArray[np.float32]:
        """(n, labels) float32, in as many model calls as the model's largest batch asks for."""
        manifest = self.bundle.manifest
        size = manifest.max_batch
        outputs = [
            self.session.run(np.stack(tensors[at : at + size]), input_name=manifest.input, output_name=manifest.output)
            for at in range(0, len(tensors), size)
        ]
        raw = (outputs[0] if len(outputs) == 1 else np.concatenate(outputs)).reshape(len(tensors), -1)
        return _ACTIVATIONS[manifest.activation](raw)

    def _outcome(self, scores: NDArray[np.float32], top_k: int) -> Prediction | ShoplensError:
        if not np.isfinite(scores).all():
            return ShoplensError(f"{self.bundle.ref} gave scores that are not numbers for this photo.")
        best = _best(scores, max(top_k, RANKED_LABELS))
        values = scores[best].tolist()
        labels = self._labels
        ranked = tuple(LabelScore(labels[i], value) for i, value in zip(best.tolist(), values, strict=True))
        return Prediction(model=self.bundle.ref, labels=ranked)


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Indices of the `count` highest scores, best first; equal scores in label order."""
    if count >= scores.size:
        return np.argsort(-scores, kind="stable")
    candidates = np.sort(np.argpartition(scores, -count)[-count:])
    return candidates[np.argsort(-scores[candidates], kind="stable")]


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return result


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # exp(-|x|) cannot overflow, whichever sign x has
    decay = np.exp(-np.abs(logits))
    result: NDArray[np.float32] = np.where(logits >= 0, 1 / (1 + decay), decay / (1 + decay))
    return result


def _identity(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    return scores


_ACTIVATIONS = {"softmax": _softmax, "sigmoid": _sigmoid, "none": _identity}
