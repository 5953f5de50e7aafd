"""The report on labelled data before training, and the refusal of data that cannot be learned from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from shoplens.bundles.manifest import ClassCount
from shoplens.training.errors import DatasetInvalid
from shoplens.training.samples import Dataset, UnreadableFile
from shoplens.training.split import DropReason, Pair, Split

FEW: Final = 20
_MIN_PER_CLASS: Final = 2
_IMBALANCE: Final = 10
_SHOWN: Final = 5
_DROPPED: Final[dict[DropReason, str]] = {
    "contradicted": "have the same content under two labels and were left out",
    "repeated": "repeat the content of another photo and were left out",
    "in_validation": "are also in the validation part, or look the same, and were removed from training",
    "in_test": "are also in the test part, or look the same, and were removed from the other parts",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of the pictures, in pixels: the shortest side, the median of the shorter sides, the longest side."""

    least: int
    median_short_side: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """What was found in the data. `found` counts the readable samples of the training source before any was dropped.

    `sizes` is None where the samples are no single pictures; `what` names them.
    """

    sha256: str
    found: int
    unreadable: tuple[UnreadableFile, ...]
    classes: tuple[ClassCount, ...]
    sizes: Sizes | None
    dropped: tuple[tuple[DropReason, Pair], ...]
    lookalikes: tuple[Pair, ...]
    what: str = "photos"

    def lines(self) -> Iterator[str]:
        """The report as text, one finding per line, the counts first."""
        train, validation, test = (sum(getattr(each, part) for each in self.classes) for part in _PARTS)
        yield (
            f"{self.found:,} {self.what} in {len(self.classes)} classes: {train:,} to train, "
            f"{validation:,} to validate, {test:,} to test."
        )
        if self.sizes is not None:
            yield (
                f"Their sides are {self.sizes.least:,} to {self.sizes.most:,} pixels long "
                f"(median short side: {self.sizes.median_short_side:,})."
            )
        unreadable = [f"{file.name} ({file.code}): {file.reason}" for file in self.unreadable]
        yield from _finding("cannot be read and were left out", unreadable)
        for reason, text in _DROPPED.items():
            yield from _finding(text, [_describe(pair) for why, pair in self.dropped if why == reason])
        yield from _finding(
            "look the same as another photo with another label; both are kept", list(map(_describe, self.lookalikes))
        )
        few = [each.label for each in self.classes if each.train < FEW]
        if few:
            yield f"Classes with fewer than {FEW} training {self.what}: {_listed(few)}. Add {self.what} there first."
        counts = [each.train for each in self.classes]
        imbalance = max(counts) / max(1, min(counts))
        if imbalance >= _IMBALANCE:
            yield f"The largest class has {imbalance:.0f} times as many {self.what} as the smallest."
        unmeasured = [each.label for each in self.classes if not each.validation + each.test]
        if unmeasured:
            yield f"Classes without {self.what} for validation or test: {_listed(unmeasured)}."


_PARTS: Final = ("train", "validation", "test")


def report_on(source: Dataset, others: Sequence[Dataset], split: Split) -> DataReport:
    """The report on the training source, with the unreadable files of the `others`."""
    counts = {part: Counter(sample.label for sample in getattr(split, part)) for part in _PARTS}
    short_sides = [min(sample.width, sample.height) for sample in source.samples]
    return DataReport(
        sha256=source.sha256,
        found=len(source.samples),
        unreadable=tuple(file for dataset in (source, *others) for file in dataset.unreadable),
        classes=tuple(
            ClassCount(label=label, **{part: counts[part][index] for part in _PARTS})
            for index, label in enumerate(split.classes)
        ),
        sizes=Sizes(
            least=min(short_sides),
            median_short_side=round(median(short_sides)),
            most=max(max(sample.width, sample.height) for sample in source.samples),
        ),
        dropped=split.dropped,
        lookalikes=split.lookalikes,
    )


def refuse_unlearnable(report: DataReport) -> None:
    """Raises DatasetInvalid for fewer than two classes, a class that is too small, or nothing to validate with."""
    if len(report.classes) < 2:
        only = report.classes[0].label if report.classes else "none"
        raise DatasetInvalid(f"At least two classes are needed; there is only {only!r}.")
    small = [each.label for each in report.classes if each.train + each.validation < _MIN_PER_CLASS]
    if small:
        raise DatasetInvalid(
            f"These classes have fewer than {_MIN_PER_CLASS} usable photos: {_listed(small)}. "
            "Add photos, or remove the classes."
        )
    untrained = [each.label for each in report.classes if each.train == 0]
    if untrained:
        raise DatasetInvalid(
            f"These classes have no training photos left: {_listed(untrained)}. "
            "All of their photos are in the validation or test part."
        )
    if not any(each.validation for each in report.classes):
        raise DatasetInvalid("No photo could be held out for validation. Add photos, or use --validation.")


def _finding(text: str, examples: Sequence[str]) -> Iterator[str]:
    """How many there are, and the first of them; nothing where there is none."""
    if examples:
        yield f"{len(examples):,} {text}:"
        yield from (f"  {example}" for example in examples[:_SHOWN])
    if len(examples) > _SHOWN:
        yield f"  and {len(examples) - _SHOWN:,} more"


def _describe(pair: Pair) -> str:
    labels = "" if pair.label == pair.other_label else f" ({pair.label} and {pair.other_label})"
    return f"{pair.name} {'=' if pair.same else '≈'} {pair.other}{labels}"


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(map(repr, labels[:_SHOWN]))
    return shown if len(labels) <= _SHOWN else f"{shown} and {len(labels) - _SHOWN} more"
