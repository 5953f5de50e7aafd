"""Measure a model as it will be served: a bundle and samples in, scores and every figure of them out.

The scores come from the exported model through the serving code, from encoded photos on. Nothing of training is used.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.evaluation import ClassResult, PartResult, Speed, Threshold
from shoplens.errors import ShoplensError, TrainingDiverged
from shoplens.images.picture import Limits
from shoplens.serving.classifier import Classifier
from shoplens.serving.photo_classifier import PhotoClassifier
from shoplens.training.calibrate import calibration_error, softmax
from shoplens.training.samples import Sample

Scores = NDArray[np.float64]
Labels = NDArray[np.int64]

THRESHOLDS: Final = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
_MOST_CLASSES_SHOWN: Final = 256
_LEAST_SCORE: Final = 1e-12
_Z95: Final = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """`scores` (n, classes) in the order of samples and labels, and how long all of it took on how many threads."""

    scores: Scores
    seconds: float
    threads: int

    def speed(self) -> Speed:
        """Images per second, to three digits."""
        pace = len(self.scores) / max(self.seconds, 1e-9)
        return Speed(
            images_per_s=float(f"{pace:.3g}"),
            threads=self.threads,
            photos=len(self.scores),
            machine=platform.machine() or "unknown",
        )


def ask(
    bundle: Bundle,
    samples: Sequence[Sample],
    *,
    threads: int,
    limits: Limits,
    clock: Callable[[], float],
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Answers:
    """What `bundle` answers to the encoded photos of `samples`. Raises TrainingDiverged where it cannot answer."""
    classifier = Classifier(bundle)
    classifier.warm()
    index = {label.name: number for number, label in enumerate(bundle.labels)}
    scores = np.zeros((len(samples), len(index)))
    began = clock()
    photos = (sample.data() for sample in samples)
    outcomes = PhotoClassifier(classifier, limits=limits).classify_many(photos, threads=threads, top_k=len(index))
    for row, outcome in enumerate(outcomes):
        if isinstance(outcome, ShoplensError):
            raise TrainingDiverged(f"The exported model cannot answer {samples[row].name}: {outcome}") from outcome
        for each in outcome.labels:
            scores[row, index[each.label]] = each.score
        on_progress(row + 1, len(samples))
    return Answers(scores=scores, seconds=clock() - began, threads=threads)


def measure(
    name: Literal["test", "validation"], scores: Scores, samples: Sequence[Sample], *, logits: NDArray[np.float32],
    classes: Sequence[str],
) -> PartResult:  # fmt: skip
    """Every figure of one part: of the calibrated `scores` as served, and of the `logits` before calibration."""
    labels = np.array([sample.label for sample in samples], np.int64)
    plain = softmax(logits)
    counts = confusion(scores, labels, len(classes))
    right = int(counts.trace())
    low, high = wilson(right, len(labels))
    per_class = _per_class(counts, classes)
    return PartResult(
        name=name,
        samples=len(labels),
        accuracy=_digits(right / len(labels)),
        accuracy_low=_digits(low),
        accuracy_high=_digits(high),
        macro_f1=_digits(macro_f1(counts)),
        nll=_digits(_likelihood(scores, labels)),
        nll_uncalibrated=_digits(_likelihood(plain, labels)),
        ece=_digits(calibration_error(scores, labels)),
        ece_uncalibrated=_digits(calibration_error(plain, labels)),
        classes=per_class,
        confusion=tuple(map(tuple, counts.tolist())) if len(classes) <= _MOST_CLASSES_SHOWN else (),
        thresholds=tuple(_thresholds(scores, labels)),
    )


def confusion(scores: Scores, labels: Labels, classes: int) -> NDArray[np.int64]:
    """(classes, classes): a row per label, a column per answer."""
    cells = np.bincount(labels * classes + scores.argmax(axis=1), minlength=classes * classes)
    return np.asarray(cells.reshape(classes, classes), np.int64)


def macro_f1(counts: NDArray[np.int64]) -> float:
    """The mean F1 of the classes that occur as a label or as an answer."""
    _, _, f1 = _rates(counts)
    occurs = counts.sum(axis=0) + counts.sum(axis=1) > 0
    return float(f1[occurs].mean()) if occurs.any() else 0.0


def wilson(right: int, total: int) -> tuple[float, float]:
    """Bounds that hold the true share with 95 % confidence (Wilson, 1927)."""
    share, spread = right / total, _Z95**2 / total
    centre = share + spread / 2
    reach = _Z95 * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return max(0.0, (centre - reach) / (1 + spread)), min(1.0, (centre + reach) / (1 + spread))


def _rates(counts: NDArray[np.int64]) -> tuple[Scores, Scores, Scores]:
    """Precision, recall and F1 of each class; 0 where there is nothing to divide by."""
    right = counts.diagonal().astype(np.float64)
    answered, labelled = counts.sum(axis=0), counts.sum(axis=1)
    f1 = 2 * right / np.maximum(answered + labelled, 1)
    return right / np.maximum(answered, 1), right / np.maximum(labelled, 1), f1


def _per_class(counts: NDArray[np.int64], classes: Sequence[str]) -> tuple[ClassResult, ...]:
    precision, recall, f1 = (rates.tolist() for rates in _rates(counts))
    return tuple(
        ClassResult(
            label=label,
            samples=int(counts[index].sum()),
            precision=_digits(precision[index]),
            recall=_digits(recall[index]),
            f1=_digits(f1[index]),
        )
        for index, label in enumerate(classes)
    )


def _thresholds(scores: Scores, labels: Labels) -> list[Threshold]:
    best, right = scores.max(axis=1), scores.argmax(axis=1) == labels
    found = []
    for at in THRESHOLDS:
        sure = best >= at
        accuracy = _digits(float(right[sure].mean())) if sure.any() else None
        found.append(Threshold(at=at, share=_digits(float(sure.mean())), accuracy=accuracy))
    return found


def _likelihood(scores: Scores, labels: Labels) -> float:
    truth = scores[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(truth, _LEAST_SCORE)).mean())


def _digits(value: float) -> float:
    return round(float(value), 6)
