"""Which samples train, which validate, which test: datasets in, three parts out that share no picture. Pure.

What was given for validation or testing is never changed for the sake of training; training gives way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from shoplens.training.groups import group_samples
from shoplens.training.samples import Dataset, Sample
from shoplens.training.split import held_out

Why = Literal["contradicted", "repeated", "in_validation", "in_test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two samples, by name and label, that are the same (`same`) or look so."""

    name: str
    label: str
    other: str
    other_label: str
    same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """No two parts share content or near-duplicates. `validation_given` says that validation was not split off.

    `dropped` are the samples that are in no part, each with the one that is the reason: the same content has two
    labels, is there already, or is held for another part. `lookalikes` look the same under two labels and are kept.
    """

    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    validation_given: bool
    dropped: tuple[tuple[Why, Pair], ...]
    lookalikes: tuple[Pair, ...]


class _Placed(NamedTuple):
    """A sample with the number of its group."""

    sample: Sample
    group: int


def divide(
    source: Dataset, *, validation: Dataset | None = None, test: Sequence[Sample] = (), fraction: float, seed: int
) -> Parts:
    """The parts of `source`; without a given `validation`, about `fraction` of it is held out, by group and class."""
    leaving = _Leaving(source.classes)
    usable = leaving.once_each(source.samples)
    placed = _placed([usable, validation.samples if validation else (), test])
    train, held, tested = placed
    in_test = _first_of_group(tested)
    train = leaving.give_way(train, in_test, "in_test")
    held = leaving.give_way(held, in_test, "in_test")
    train = leaving.give_way(train, _first_of_group(held), "in_validation")
    if validation is None:
        train, held = _split(train, fraction=fraction, seed=seed)
    return Parts(
        classes=source.classes,
        train=_samples(train),
        validation=_samples(held),
        test=tuple(test),
        validation_given=validation is not None,
        dropped=tuple(leaving.told),
        lookalikes=tuple(_lookalikes(source.classes, [each for part in placed for each in part])),
    )


class _Leaving:
    """Takes samples out and keeps what there is to tell of it."""

    def __init__(self, classes: tuple[str, ...]) -> None:
        self._classes = classes
        self.told: list[tuple[Why, Pair]] = []

    def once_each(self, samples: Sequence[Sample]) -> list[Sample]:
        """Each content once; none of a content that has two labels, because nobody knows which is right."""
        first: dict[str, Sample] = {}
        contradicting: dict[str, Sample] = {}
        for sample in samples:
            if first.setdefault(sample.sha256, sample).label != sample.label:
                contradicting.setdefault(sample.sha256, sample)
        kept = []
        for sample in samples:
            leader = first[sample.sha256]
            if sample.sha256 in contradicting:
                other = leader if leader.label != sample.label else contradicting[sample.sha256]
                self._tell("contradicted", sample, other)
            elif sample is not leader:
                self._tell("repeated", sample, leader)
            else:
                kept.append(sample)
        return kept

    def give_way(self, part: Iterable[_Placed], taken: Mapping[int, Sample], why: Why) -> list[_Placed]:
        """Those whose group is not taken by another part."""
        kept = []
        for placed in part:
            if placed.group in taken:
                self._tell(why, placed.sample, taken[placed.group])
            else:
                kept.append(placed)
        return kept

    def _tell(self, why: Why, sample: Sample, other: Sample) -> None:
        self.told.append((why, _pair(self._classes, sample, other)))


def _placed(parts: Sequence[Sequence[Sample]]) -> list[list[_Placed]]:
    """The parts with the numbers of their groups, which reach across parts."""
    groups = iter(group_samples([sample for part in parts for sample in part]))
    return [[_Placed(sample, next(groups)) for sample in part] for part in parts]


def _first_of_group(part: Iterable[_Placed]) -> dict[int, Sample]:
    first: dict[int, Sample] = {}
    for sample, group in part:
        first.setdefault(group, sample)
    return first


def _split(part: list[_Placed], *, fraction: float, seed: int) -> tuple[list[_Placed], list[_Placed]]:
    labels, groups = [placed.sample.label for placed in part], [placed.group for placed in part]
    mask = held_out(labels, groups, fraction=fraction, seed=seed).tolist()
    kept = [placed for placed, held in zip(part, mask, strict=True) if not held]
    return kept, [placed for placed, held in zip(part, mask, strict=True) if held]


def _lookalikes(classes: tuple[str, ...], everything: Sequence[_Placed]) -> Iterable[Pair]:
    """Samples whose label differs from that of the first of their group."""
    first = _first_of_group(everything)
    for sample, group in everything:
        if sample.label != first[group].label:
            yield _pair(classes, sample, first[group])


def _pair(classes: tuple[str, ...], sample: Sample, other: Sample) -> Pair:
    return Pair(
        name=sample.name,
        label=classes[sample.label],
        other=other.name,
        other_label=classes[other.label],
        same=sample.sha256 == other.sha256,
    )


def _samples(part: Iterable[_Placed]) -> tuple[Sample, ...]:
    return tuple(placed.sample for placed in part)
