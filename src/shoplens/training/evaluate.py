"""Measure a model as it will be served: predict encoded photos with the exported bundle, and compute every figure.

The scores come from the exported model through the serving code. Nothing of the training code is used.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol, SupportsFloat

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import ClassResult, PartResult, Speed, Threshold
from shoplens.errors import ShoplensError
from shoplens.images.picture import Limits
from shoplens.serving.classifier import Classifier
from shoplens.serving.photos import PhotoClassifier, best_labels
from shoplens.training.calibrate import calibration_error, softmax
from shoplens.training.errors import TrainingDiverged
from shoplens.training.samples import Sample

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]

THRESHOLDS: Final = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_MAX_CONFUSION_CLASSES: Final = 256
_MIN_SCORE: Final = 1e-12


class Labelled(Protocol):
    """A sample of which the class is known."""

    @property
    def label(self) -> int:
        """The number of the class."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """`scores` (n, classes) in the order of samples and labels, and the time for all of them."""

    scores: Scores
    seconds: float
    threads: int

    def speed(self) -> Speed:
        """Images per second, rounded to three digits."""
        rate = len(self.scores) / max(self.seconds, 1e-9)
        return Speed(
            images_per_s=float(f"{rate:.3g}"),
            threads=self.threads,
            photos=len(self.scores),
            machine=platform.machine() or "unknown",
        )


def predict(
    bundle: Bundle,
    samples: Sequence[Sample],
    *,
    threads: int,
    limits: Limits,
    clock: Callable[[], float],
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Predictions:
    """The scores of `bundle` for the encoded photos of `samples`. Raises TrainingDiverged if a prediction fails."""
    classifier = Classifier(bundle)
    classifier.warm()
    column = {label.name: number for number, label in enumerate(bundle.labels)}
    scores = np.zeros((len(samples), len(column)))
    began = clock()
    photos = (sample.data() for sample in samples)
    with PhotoClassifier(classifier, finish=best_labels, limits=limits, threads=threads) as classify:
        for row, outcome in enumerate(classify.classify_many(photos, top_k=None)):
            if isinstance(outcome, ShoplensError):
                raise TrainingDiverged(
                    f"The exported model cannot classify {samples[row].name}: {outcome}"
                ) from outcome
            for each in outcome.labels:
                scores[row, column[each.label]] = each.score
            on_progress(row + 1, len(samples))
    return Predictions(scores=scores, seconds=clock() - began, threads=threads)


def measure(
    name: Literal["test", "validation"], scores: Scores, samples: Sequence[Labelled], *, logits: NDArray[np.float32],
    classes: Sequence[str],
) -> PartResult:  # fmt: skip
    """Every figure of one part, from the calibrated `scores` as served and the `logits` before calibration.

    The bounds of the accuracy are a 95 % confidence interval (Wilson 1927). Macro-F1 is the mean over the classes that
    occur as a label or a prediction; precision, recall and F1 are 0 where they are not defined.
    """
    labels, numbers = np.array([sample.label for sample in samples], np.int64), np.arange(len(classes))
    predicted = scores.argmax(axis=1)
    correct, best = predicted == labels, scores.max(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=numbers, zero_division=0.0
    )
    occurring = np.union1d(labels, predicted)
    bounds = binomtest(int(correct.sum()), len(labels)).proportion_ci(0.95, method="wilson")
    uncalibrated = softmax(logits)
    confusion = confusion_matrix(labels, predicted, labels=numbers) if len(classes) <= _MAX_CONFUSION_CLASSES else None
    return PartResult(
        name=name,
        samples=len(labels),
        accuracy=_rounded(correct.mean()),
        accuracy_low=_rounded(bounds.low),
        accuracy_high=_rounded(bounds.high),
        macro_f1=_rounded(f1[occurring].mean()),
        nll=_rounded(_log_loss(scores, labels)),
        nll_uncalibrated=_rounded(_log_loss(uncalibrated, labels)),
        ece=_rounded(calibration_error(scores, labels)),
        ece_uncalibrated=_rounded(calibration_error(uncalibrated, labels)),
        classes=tuple(
            ClassResult(
                label=label,
                samples=int(support[index]),
                precision=_rounded(precision[index]),
                recall=_rounded(recall[index]),
                f1=_rounded(f1[index]),
            )
            for index, label in enumerate(classes)
        ),
        confusion=tuple(map(tuple, confusion.tolist())) if confusion is not None else (),
        thresholds=tuple(
            Threshold(
                at=at,
                share=_rounded((best >= at).mean()),
                accuracy=_rounded(correct[best >= at].mean()) if (best >= at).any() else None,
            )
            for at in THRESHOLDS
        ),
    )


def _log_loss(scores: Scores, labels: Labels) -> float:
    """The mean negative log likelihood of the labels, in nats."""
    return float(-np.log(np.maximum(scores[np.arange(len(labels)), labels], _MIN_SCORE)).mean())


def _rounded(value: SupportsFloat) -> float:
    return round(float(value), 6)
