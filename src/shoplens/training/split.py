"""Split samples into training, validation and test parts that share no picture and no near-duplicates.

Samples are grouped first: equal content, and perceptual hashes that differ in at most 4 of 64 bits (`images/near.py`).

Given validation and test parts are never changed; samples that also occur there are dropped from training.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import train_test_split

from shoplens.images.near import NEAR_BITS, close_pairs
from shoplens.training.samples import Dataset, Sample

DropReason = Literal["contradicted", "repeated", "in_validation", "in_test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two samples, by name and label, with the same content (`same`) or a similar look."""

    name: str
    label: str
    other: str
    other_label: str
    same: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """No two parts share content or near-duplicates. `validation_given`: the validation part was not split off.

    `dropped` are the samples that are in no part, each with the sample that is the reason: the same content has two
    labels, is repeated, or belongs to another part. `lookalikes` look the same under two labels and are kept.
    """

    classes: tuple[str, ...]
    train: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    validation_given: bool
    dropped: tuple[tuple[DropReason, Pair], ...]
    lookalikes: tuple[Pair, ...]


class _Grouped(NamedTuple):
    """A sample with the number of its group."""

    sample: Sample
    group: int


def split_dataset(
    source: Dataset, *, validation: Dataset | None = None, test: Sequence[Sample] = (), fraction: float, seed: int
) -> Split:
    """Split `source`. Without a given `validation`, about `fraction` of it is held out, by group and class."""
    classes = source.classes
    unique, dropped = _drop_repeated(source.samples, classes)
    parts: list[Sequence[Sample]] = [unique, validation.samples if validation else (), test]
    groups = iter(group_samples([sample for part in parts for sample in part]))
    train, held, tested = ([_Grouped(sample, next(groups)) for sample in part] for part in parts)
    first = _first_of_group([*train, *held, *tested])
    lookalikes = [
        _pair(classes, sample, first[group])
        for sample, group in [*train, *held, *tested]
        if sample.label != first[group].label
    ]

    def drop(part: list[_Grouped], taken: Mapping[int, Sample], reason: DropReason) -> list[_Grouped]:
        dropped.extend((reason, _pair(classes, each.sample, taken[each.group])) for each in part if each.group in taken)
        return [each for each in part if each.group not in taken]

    in_test = _first_of_group(tested)
    train, held = drop(train, in_test, "in_test"), drop(held, in_test, "in_test")
    train = drop(train, _first_of_group(held), "in_validation")
    if validation is None:
        mask = held_out(
            [each.sample.label for each in train], [each.group for each in train], fraction=fraction, seed=seed
        )
        held = list(itertools.compress(train, mask))
        train = list(itertools.compress(train, ~mask))
    return Split(
        classes=classes,
        train=tuple(each.sample for each in train),
        validation=tuple(each.sample for each in held),
        test=tuple(test),
        validation_given=validation is not None,
        dropped=tuple(dropped),
        lookalikes=tuple(lookalikes),
    )


def _drop_repeated(
    samples: Sequence[Sample], classes: tuple[str, ...]
) -> tuple[list[Sample], list[tuple[DropReason, Pair]]]:
    """Each content once; none of a content that has two labels, because it is unknown which one is right."""
    first: dict[str, Sample] = {}
    contradicting: dict[str, Sample] = {}
    for sample in samples:
        if first.setdefault(sample.sha256, sample).label != sample.label:
            contradicting.setdefault(sample.sha256, sample)
    kept: list[Sample] = []
    dropped: list[tuple[DropReason, Pair]] = []
    for sample in samples:
        original = first[sample.sha256]
        if sample.sha256 in contradicting:
            other = original if original.label != sample.label else contradicting[sample.sha256]
            dropped.append(("contradicted", _pair(classes, sample, other)))
        elif sample is not original:
            dropped.append(("repeated", _pair(classes, sample, original)))
        else:
            kept.append(sample)
    return kept, dropped


def _first_of_group(part: Iterable[_Grouped]) -> dict[int, Sample]:
    first: dict[int, Sample] = {}
    for sample, group in part:
        first.setdefault(group, sample)
    return first


def _pair(classes: tuple[str, ...], sample: Sample, other: Sample) -> Pair:
    return Pair(
        name=sample.name,
        label=classes[sample.label],
        other=other.name,
        other_label=classes[other.label],
        same=sample.sha256 == other.sha256,
    )


def held_out(labels: Sequence[int], groups: Sequence[int], *, fraction: float, seed: int) -> NDArray[np.bool_]:
    """A mask of the held-out samples: `fraction` of the groups of every class, rounded up. Groups stay whole.

    `groups` has the same number for samples that belong together; a group counts for the class of its first sample.
    A class with a single group stays in training. (StratifiedGroupKFold guarantees neither for small classes.)
    """
    label_of: dict[int, int] = {}
    for label, group in zip(labels, groups, strict=True):
        label_of.setdefault(group, label)
    held: set[int] = set()
    for label in sorted(set(label_of.values())):
        members = [group for group, its_label in label_of.items() if its_label == label]
        if len(members) > 1:
            held.update(train_test_split(members, test_size=fraction, random_state=seed)[1])
    return np.array([group in held for group in groups], np.bool_)


def group_samples(samples: Sequence[Sample], *, distance: int = NEAR_BITS) -> list[int]:
    """For each sample the index of the first sample of its group.

    Two samples belong together if their content is equal or their perceptual hashes differ in at most `distance` bits;
    groups are the connected components of these pairs. Samples without a perceptual hash are compared by content only.
    """
    count = len(samples)
    first: dict[str, int] = {}
    pairs = [(first.setdefault(sample.sha256, index), index) for index, sample in enumerate(samples)]
    hashed = [index for index, sample in enumerate(samples) if sample.phash]
    hashes = np.array([int(samples[index].phash, 16) for index in hashed], np.uint64)
    pairs += [(hashed[one], hashed[other]) for one, other in close_pairs(hashes, distance=distance)]
    if not pairs:
        return []
    rows, columns = np.array(pairs).T
    edges = coo_array((np.ones(len(pairs), np.bool_), (rows, columns)), shape=(count, count))
    _, component = connected_components(edges, directed=False)
    _, leaders, which = np.unique(component, return_index=True, return_inverse=True)
    return [int(leader) for leader in leaders[which]]
