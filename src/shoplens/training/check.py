"""What there is to say of data before it is learned from: sources and parts in, a report out, or a refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from shoplens.bundles.evaluation import ClassCount
from shoplens.errors import DatasetInvalid
from shoplens.training.parts import Pair, Parts, Why
from shoplens.training.samples import Dataset, Fault, Sample

FEW: Final = 20
_IMBALANCE: Final = 10
_LEAST: Final = 2
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Of the pictures, in pixels: the shortest side, the median of the shorter sides, the longest side."""

    least: int
    median_short_side: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """All that was found. `found` counts the readable samples of the training source before anything was dropped."""

    sha256: str
    found: int
    unreadable: tuple[Fault, ...]
    classes: tuple[ClassCount, ...]
    sizes: Sizes
    dropped: tuple[tuple[Why, Pair], ...]
    lookalikes: tuple[Pair, ...]

    @property
    def few(self) -> tuple[str, ...]:
        """The classes with so few training samples that they will hardly be learned."""
        return tuple(each.label for each in self.classes if each.train < FEW)

    @property
    def imbalance(self) -> float:
        """How many times as many training samples the greatest class has as the smallest."""
        counts = [each.train for each in self.classes]
        return max(counts) / max(1, min(counts))

    def dropped_because(self, why: Why) -> list[Pair]:
        """The pairs of one reason."""
        return [pair for reason, pair in self.dropped if reason == why]


def report_on(source: Dataset, others: Sequence[Dataset], parts: Parts) -> DataReport:
    """The report of the training source, and of what cannot be read in the `others`."""
    counts = [Counter(sample.label for sample in part) for part in (parts.train, parts.validation, parts.test)]
    return DataReport(
        sha256=source.sha256,
        found=len(source.samples),
        unreadable=tuple(fault for dataset in (source, *others) for fault in dataset.unreadable),
        classes=tuple(
            ClassCount(label=label, train=counts[0][index], validation=counts[1][index], test=counts[2][index])
            for index, label in enumerate(parts.classes)
        ),
        sizes=_sizes(source.samples),
        dropped=parts.dropped,
        lookalikes=parts.lookalikes,
    )


def refuse_unlearnable(report: DataReport) -> None:
    """Raises DatasetInvalid for fewer than two classes, a class that is too small, or nothing to validate with."""
    if len(report.classes) < _LEAST:
        only = report.classes[0].label if report.classes else "none"
        raise DatasetInvalid(f"There must be at least two classes to tell apart; there is {only!r}.")
    totals = {each.label: each.train + each.validation for each in report.classes}
    poor = [label for label, total in totals.items() if total < _LEAST]
    lost = [each.label for each in report.classes if each.train == 0 and each.label not in poor]
    if poor:
        raise DatasetInvalid(
            f"These classes have fewer than {_LEAST} usable photos: {_listed(poor)}. Add photos, or leave them out."
        )
    if lost:
        raise DatasetInvalid(
            f"No photo is left to train these classes with: {_listed(lost)}. They are held for others."
        )
    if not any(each.validation for each in report.classes):
        raise DatasetInvalid("Nothing could be held out to measure with; give more photos, or --validation.")


def sentences(report: DataReport) -> Iterator[str]:
    """The report for people, a finding per line, the counts first."""
    train, validation, test = (sum(getattr(each, part) for each in report.classes) for part in _PARTS)
    yield (
        f"{report.found:,} photos in {len(report.classes)} classes: {train:,} to train, {validation:,} to validate, "
        f"{test:,} to test."
    )
    size = report.sizes
    yield f"Their sides have {size.least:,} to {size.most:,} pixels (median short side {size.median_short_side:,})."
    yield from _faults(report.unreadable)
    for why, what in _REASONS.items():
        yield from _pairs(report.dropped_because(why), what)
    yield from _pairs(list(report.lookalikes), "look the same as another photo with another label; both are kept")
    if report.few:
        yield f"Fewer than {FEW} photos to train with: {_listed(report.few)}. More would help most there."
    if report.imbalance >= _IMBALANCE:
        yield f"The largest class has {report.imbalance:.0f} times as many photos as the smallest."
    unmeasured = [each.label for each in report.classes if not each.validation + each.test]
    if unmeasured:
        yield f"Nothing is held out to measure with: {_listed(unmeasured)}."


_PARTS: Final = ("train", "validation", "test")
_REASONS: Final[dict[Why, str]] = {
    "contradicted": "have the same content under two labels and were left out",
    "repeated": "repeat the content of another one and were left out",
    "in_validation": "are in the validation part too, or look so, and were taken out of training",
    "in_test": "are in the test part too, or look so, and were taken out of the others",
}


def _faults(faults: Sequence[Fault]) -> Iterator[str]:
    if faults:
        yield f"{len(faults):,} cannot be read and were left out:"
        yield from (f"  {fault.name} ({fault.code}): {fault.reason}" for fault in faults[:_SHOWN])
        yield from _rest(len(faults))


def _pairs(pairs: Sequence[Pair], what: str) -> Iterator[str]:
    if pairs:
        yield f"{len(pairs):,} {what}:"
        for pair in pairs[:_SHOWN]:
            labels = "" if pair.label == pair.other_label else f" ({pair.label} and {pair.other_label})"
            yield f"  {pair.name} {'=' if pair.same else '≈'} {pair.other}{labels}"
        yield from _rest(len(pairs))


def _rest(count: int) -> Iterator[str]:
    if count > _SHOWN:
        yield f"  and {count - _SHOWN:,} more"


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(map(repr, labels[:_SHOWN]))
    return shown if len(labels) <= _SHOWN else f"{shown} and {len(labels) - _SHOWN} more"


def _sizes(samples: Sequence[Sample]) -> Sizes:
    short = [min(sample.width, sample.height) for sample in samples]
    return Sizes(
        least=min(short),
        median_short_side=round(median(short)),
        most=max(max(sample.width, sample.height) for sample in samples),
    )
