"""The data facts of an evaluation and the model card, both from what was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from shoplens.bundles.manifest import Card, DataFacts, Evaluation, Metric, PartResult
from shoplens.training.check import DataReport
from shoplens.training.split import Split

_MEASURED: Final = "measured by Shoplens on the exported model, through the code that serves it"
_WEAKEST_SHOWN: Final = 3
_MAX_LIST: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class CardTexts:
    """The texts of the card that Shoplens cannot know. `date` is YYYY-MM-DD; `data_name` says what the data is."""

    title: str
    licence: str
    data_name: str
    date: str

    def draft(self) -> Card:
        """A card with these texts, for a bundle that is not measured yet."""
        return Card(
            title=self.title,
            description="Not measured yet.",
            task="Not measured yet.",
            data=self.data_name,
            licence=self.licence,
            source="Not measured yet.",
            date=self.date,
            limits=(),
            metrics=(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hashes:
    """SHA-256 of the sources; None where a part is not a source of its own."""

    train: str
    validation: str | None
    test: str | None


def data_facts(report: DataReport, split: Split, hashes: Hashes, *, name: str, fraction: float, seed: int) -> DataFacts:
    """What the model was trained and measured on."""
    reasons = Counter(reason for reason, _ in report.dropped)
    test = "the test part was given" if split.test else "there is no test part"
    if split.validation_given:
        description = (
            f"The validation part was given; {test}. Photos that are also there, or look the same, were removed from "
            "training."
        )
    else:
        description = (
            f"About {fraction:.0%} of every class were held out for validation at random, with groups of "
            f"near-duplicates kept together; {test}."
        )
    return DataFacts(
        name=name,
        sha256=hashes.train,
        validation_sha256=hashes.validation,
        test_sha256=hashes.test,
        split=description,
        seed=seed,
        fraction=None if split.validation_given else fraction,
        counts=report.classes,
        unreadable=len(report.unreadable),
        dropped={str(reason): count for reason, count in sorted(reasons.items())},
    )


def card_of(evaluation: Evaluation, texts: CardTexts) -> Card:
    """The model card, with the figures that people read first."""
    data, training = evaluation.data, evaluation.training
    labels = [each.label for each in data.counts]
    train, validation, test = (sum(getattr(each, part) for each in data.counts) for part in _PARTS)
    tested = f", {test:,} for testing" if test else ""
    epochs = f", {training.epochs} epochs" if training.epochs is not None else ""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(training.versions.items()))
    what = "photo shows" if evaluation.headline.kind is None else "product is"
    return Card(
        title=texts.title,
        description=(
            f"Distinguishes {len(labels)} classes: {_shortened(labels)}. Its scores are calibrated: they can be read "
            "as probabilities for photos like those it was measured on."
        ),
        task=f"What a {what}: one of {len(labels)} classes.",
        data=(
            f"{texts.data_name} {train:,} pictures for training, {validation:,} for validation{tested}. {data.split} "
            f"Content SHA-256 {data.sha256}."
        ),
        licence=texts.licence,
        source=f"Trained by Shoplens with the recipe `{training.recipe}`, seed {training.seed}{epochs} ({versions}).",
        date=texts.date,
        limits=tuple(_limits(evaluation)),
        metrics=tuple(_metrics(evaluation)),
    )


_SHOWN: Final = {None: "pictures", "photo": "photo alone", "text": "text alone", "both": "text and photo"}
_PARTS: Final = ("train", "validation", "test")


def _metrics(evaluation: Evaluation) -> Iterator[Metric]:
    calibration, speed = evaluation.calibration, evaluation.speed

    def metric(name: str, value: float, data: str, source: str = _MEASURED) -> Metric:
        return Metric(name=name, value=float(f"{value:.4g}"), data=data, source=source)

    for part in evaluation.parts:
        what = "pictures" if part.kind is None else "products"
        data = f"{part.samples:,} {what} of the {part.name} part, none of which trained the model"
        fitted = part.name == calibration.fitted_on
        data += "; the temperature was fitted on them" if fitted else " or set its temperature"
        by = f" by {_SHOWN[part.kind]}" if part.kind else ""
        low, high = 100 * part.accuracy_low, 100 * part.accuracy_high
        yield metric(f"accuracy{by}, percent", 100 * part.accuracy, f"{data}; 95 % confidence {low:.1f} to {high:.1f}")
        yield metric(f"macro-F1{by}, percent", 100 * part.macro_f1, data)
        yield metric(f"calibration error before calibration{by}, percent", 100 * part.ece_uncalibrated, data)
        yield metric(f"calibration error{by}, percent", 100 * part.ece, data)
    pictures = f"the {calibration.samples:,} pictures of the {calibration.fitted_on} part"
    yield metric("temperature", calibration.temperature, pictures, f"fitted by Shoplens ({calibration.method})")
    yield metric(
        "calibration error, cross-fitted, percent",
        100 * calibration.ece_cross_fitted,
        f"{pictures}, each half with the temperature of the other half",
        "measured by Shoplens on the trained model",
    )
    yield metric("parameters, millions", evaluation.training.parameters / 1e6, "the trained model", "counted")
    yield metric("size, megabytes", evaluation.model_bytes / 1e6, "model.onnx", "measured by Shoplens")
    yield metric(
        "images per second",
        speed.images_per_s,
        f"{speed.photos:,} encoded pictures, decoding included, {speed.threads} threads on {speed.machine}",
        "measured by Shoplens on the machine that trained the model, alongside its other work",
    )


def _limits(evaluation: Evaluation) -> Iterator[str]:
    part: PartResult = evaluation.headline
    yield (
        f"It knows only its {len(part.classes)} classes: every photo gets one of them, "
        "even a photo that shows none of them."
    )
    weakest = sorted((each for each in part.classes if each.samples), key=lambda each: each.f1)[:_WEAKEST_SHOWN]
    named = ", ".join(f"{each.label} ({each.f1:.0%})" for each in weakest)
    yield f"It is weakest on {named} (F1 on {part.samples:,} pictures of the {part.name} part)."
    unmeasured = [each.label for each in part.classes if not each.samples]
    if unmeasured:
        yield f"The {part.name} part has no pictures of these classes: {_shortened(unmeasured)}."
    yield (
        "Its figures hold for pictures like those it was measured on, and not for other cameras, backgrounds, goods or "
        "seasons. Measure it on your own photos."
    )
    if part.name == evaluation.calibration.fitted_on:
        yield (
            "There was no separate test part. The temperature was fitted on the validation part, and training options "
            "may have been chosen by it, so its figures are somewhat optimistic."
        )


def _shortened(labels: list[str]) -> str:
    text = ", ".join(labels)
    return text if len(text) <= _MAX_LIST else f"{text[:_MAX_LIST].rsplit(', ', 1)[0]} and more"
