"""Write down what is known of a trained model: facts and figures in, the evaluation and the model card out. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shoplens.bundles.evaluation import (
    DataFacts,
    Evaluation,
    PartResult,
    TrainingFacts,
)
from shoplens.bundles.manifest import Card, Metric
from shoplens.training.check import DataReport
from shoplens.training.parts import Parts

_MEASURED: Final = "measured by Shoplens on the exported model, through the code that serves it"
_WORST: Final = 3
_LONGEST_LIST: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What only the person who trains knows. `date` is YYYY-MM-DD; `source` says where the data is from."""

    title: str
    licence: str
    data_name: str
    date: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """SHA-256 of the sources, None where a part came from the training source."""

    train: str
    validation: str | None
    test: str | None


def data_facts(report: DataReport, parts: Parts, hashes: Hashes, *, name: str, fraction: float, seed: int) -> DataFacts:
    """What it was trained and measured on."""
    reasons = Counter(why for why, _ in report.dropped)
    return DataFacts(
        name=name,
        sha256=hashes.train,
        validation_sha256=hashes.validation,
        test_sha256=hashes.test,
        split=_split(parts, fraction),
        seed=seed,
        fraction=None if parts.validation_given else fraction,
        counts=report.classes,
        unreadable=len(report.unreadable),
        dropped={str(why): count for why, count in sorted(reasons.items())},
    )


def card_of(evaluation: Evaluation, wording: Wording) -> Card:
    """The card that people read first."""
    labels = [each.label for each in evaluation.data.counts]
    return Card(
        title=wording.title,
        description=(
            f"Tells {len(labels)} classes apart: {_shortened(labels)}. Its scores are calibrated, so that they can be "
            "read as probabilities for photos like those it was measured on."
        ),
        task=f"What a photo shows: one of {len(labels)} classes.",
        data=f"{wording.data_name} {_counts(evaluation.data)} Content SHA-256 {evaluation.data.sha256}.",
        licence=wording.licence,
        source=_source(evaluation.training),
        date=wording.date,
        limits=tuple(_limits(evaluation)),
        metrics=tuple(_metrics(evaluation)),
    )


def _split(parts: Parts, fraction: float) -> str:
    test = "the test part was given" if parts.test else "there is no test part"
    if parts.validation_given:
        return f"The validation part was given; {test}. What looks like a photo of those was taken out of training."
    return (
        f"About {fraction:.0%} of every class were held out for validation at random, groups of near-duplicates as a "
        f"whole; {test}."
    )


def _counts(data: DataFacts) -> str:
    train, validation, test = (sum(getattr(each, part) for each in data.counts) for part in _PARTS)
    tested = f", {test:,} for testing" if test else ""
    return f"{train:,} pictures for training, {validation:,} for validation{tested}. {data.split}"


_PARTS: Final = ("train", "validation", "test")


def _source(training: TrainingFacts) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in sorted(training.versions.items()))
    epochs = f", {training.epochs} epochs" if training.epochs is not None else ""
    return f"Trained by Shoplens with the recipe `{training.recipe}`, seed {training.seed}{epochs} ({versions})."


def _metrics(evaluation: Evaluation) -> Iterator[Metric]:
    for part in evaluation.parts:
        yield from _part_metrics(part, _described(part, evaluation))
    calibration = evaluation.calibration
    fitted = f"the {calibration.samples:,} pictures of the {calibration.fitted_on} part"
    yield _metric("temperature", calibration.temperature, fitted, f"fitted by Shoplens ({calibration.method})")
    yield _metric(
        "calibration error, cross-fitted, percent",
        100 * calibration.ece_cross_fitted,
        f"{fitted}, each half with the temperature of the other half",
        "measured by Shoplens on the trained model",
    )
    yield _metric("parameters, millions", evaluation.training.parameters / 1e6, "the trained model", "counted")
    yield _metric("size, megabytes", evaluation.model_bytes / 1e6, "model.onnx", "measured by Shoplens")
    speed = evaluation.speed
    yield _metric(
        "images per second",
        speed.images_per_s,
        f"{speed.photos:,} encoded pictures, decoding included, {speed.threads} threads on {speed.machine}",
        "measured by Shoplens on the machine that trained it, beside whatever else it did",
    )


def _part_metrics(part: PartResult, data: str) -> Iterator[Metric]:
    low, high = 100 * part.accuracy_low, 100 * part.accuracy_high
    yield _metric(
        "accuracy, percent", 100 * part.accuracy, f"{data}; 95 % confidence {low:.1f} to {high:.1f}", _MEASURED
    )
    yield _metric("macro-F1, percent", 100 * part.macro_f1, data, _MEASURED)
    yield _metric("calibration error before calibration, percent", 100 * part.ece_uncalibrated, data, _MEASURED)
    yield _metric("calibration error, percent", 100 * part.ece, data, _MEASURED)


def _described(part: PartResult, evaluation: Evaluation) -> str:
    """Which pictures, and what they were used for besides."""
    said = f"{part.samples:,} pictures of the {part.name} part, none of which trained the model"
    if part.name == evaluation.calibration.fitted_on:
        return f"{said}; the temperature was fitted on them"
    return f"{said} or set its temperature"


def _metric(name: str, value: float, data: str, source: str) -> Metric:
    return Metric(name=name, value=float(f"{value:.4g}"), data=data, source=source)


def _limits(evaluation: Evaluation) -> Iterator[str]:
    part = evaluation.headline
    seen = [each for each in part.classes if each.samples]
    yield (
        f"It knows its {len(part.classes)} classes and no other thing: every photo gets one of them, "
        "also one that shows none."
    )
    worst = sorted(seen, key=lambda each: each.f1)[:_WORST]
    told = ", ".join(f"{each.label} ({each.f1:.0%})" for each in worst)
    yield f"It is weakest at {told} (F1 on {part.samples:,} pictures of the {part.name} part)."
    unseen = [each.label for each in part.classes if not each.samples]
    if unseen:
        yield f"Nothing was held out to measure these classes with: {_shortened(unseen)}."
    yield (
        "Its figures are true for pictures like those it was measured on. Other cameras, backgrounds, goods or seasons "
        "are another question; measure it on your own photos."
    )
    if part.name == evaluation.calibration.fitted_on:
        yield (
            "There was no separate test part. Training may have chosen by the validation part, and the temperature was "
            "fitted on it, so its figures are somewhat kind."
        )


def _shortened(labels: list[str]) -> str:
    text = ", ".join(labels)
    return text if len(text) <= _LONGEST_LIST else f"{text[:_LONGEST_LIST].rsplit(', ', 1)[0]} and more"
