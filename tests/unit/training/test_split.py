"""Training, validation and test parts share no picture and no near-duplicate."""

from __future__ import annotations

import io
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from shoplens.images.near import NEAR_BITS, close_pairs
from shoplens.training.samples import Dataset, Sample, read_dataset
from shoplens.training.split import Pair, Split, group_samples, held_out, split_dataset
from tests.conftest import colourful, jpeg_of
from tests.unit.training.colours import made_sample

CLASSES = ("hat", "shoe")

unhurried = settings(deadline=None, max_examples=50)


def dataset(*samples: Sample) -> Dataset:
    """Two classes."""
    return Dataset(classes=CLASSES, samples=samples)


def plain(count: int, *, prefix: str = "p", label: int = 0) -> list[Sample]:
    """Unrelated samples."""
    return [made_sample(f"{prefix}{number}", label) for number in range(count)]


def names(samples: Sequence[Sample]) -> list[str]:
    """The names of the samples."""
    return [sample.name for sample in samples]


def split_of(source: Dataset, *, validation: Dataset | None = None, test: Sequence[Sample] = ()) -> Split:
    """Split with a fifth held out."""
    return split_dataset(source, validation=validation, test=test, fraction=0.2, seed=0)


def test_a_fifth_of_every_class_is_held_out() -> None:
    """No sample is lost."""
    split = split_of(dataset(*plain(20), *plain(10, prefix="q", label=1)))
    assert (24, 6, 0) == (len(split.train), len(split.validation), len(split.test))
    assert {0: 4, 1: 2} == Counter(sample.label for sample in split.validation)
    assert (False, ()) == (split.validation_given, split.dropped)


@unhurried
@given(
    rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 15)), max_size=30),
    sizes=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    spread=st.sampled_from([1, 0x9E3779B97F4A7C15]),
)
def test_no_group_is_in_two_parts(rows: list[tuple[int, int]], sizes: tuple[int, int], spread: int) -> None:
    """Each sample is in one part or reported as dropped. Only hashes with a spread of 1 are similar."""
    made = [
        made_sample(str(index), label, content=str(content), phash=f"{content * spread % 2**64:016x}")
        for index, (label, content) in enumerate(rows)
    ]
    held, test, source = made[: sizes[0]], made[sizes[0] : sum(sizes)], made[sum(sizes) :]
    split = split_of(dataset(*source), validation=dataset(*held) if held else None, test=test)
    kept = [*split.train, *split.validation, *split.test]
    groups = dict(zip(names(kept), group_samples(kept), strict=True))
    train, validation, tested = (
        {groups[name] for name in names(part)} for part in (split.train, split.validation, split.test)
    )
    assert (set(), set(), set()) == (train & validation, train & tested, validation & tested)
    assert sorted(names(made)) == sorted([*names(kept), *(pair.name for _, pair in split.dropped)])


def test_content_with_two_labels_is_dropped() -> None:
    """All of its samples, each reported with one that contradicts it."""
    source = dataset(
        made_sample("a", 0, content="x"), made_sample("b", 1, content="x"), made_sample("c", 0, content="x"), *plain(9)
    )
    split = split_of(source)
    assert [("a", "b"), ("b", "a"), ("c", "b")] == [(pair.name, pair.other) for _, pair in split.dropped]
    assert {"contradicted"} == {why for why, _ in split.dropped}
    assert 9 == len(split.train) + len(split.validation)


def test_repeated_content_counts_once() -> None:
    """The first one stays."""
    split = split_of(dataset(made_sample("a", 0, content="x"), made_sample("b", 0, content="x"), *plain(9)))
    expected = Pair(name="b", label="hat", other="a", other_label="hat", same=True)
    assert (("repeated", expected),) == split.dropped


def test_samples_of_a_given_validation_part_leave_training() -> None:
    """Near-duplicates too. The given part stays as it is, repetitions included."""
    held = [made_sample("v1", 0, content="x"), made_sample("v2", 0, content="x"), made_sample("v3", 1, phash="0" * 16)]
    source = dataset(made_sample("same", 1, content="x"), made_sample("near", 1, phash="0" * 15 + "3"), *plain(5))
    split = split_of(source, validation=dataset(*held))
    assert (names(held), True) == (names(split.validation), split.validation_given)
    assert ["p0", "p1", "p2", "p3", "p4"] == names(split.train)
    assert [
        ("in_validation", "same", "v1", True),
        ("in_validation", "near", "v3", False),
    ] == [(why, pair.name, pair.other, pair.same) for why, pair in split.dropped]


def test_samples_of_the_test_part_leave_training_and_validation() -> None:
    """Nothing of the test part is used before the end."""
    test = [made_sample("t", 0, content="x")]
    split = split_of(
        dataset(made_sample("a", 0, content="x"), *plain(5)),
        validation=dataset(made_sample("v", 0, content="x"), made_sample("w", 0)),
        test=test,
    )
    assert (["w"], ["t"]) == (names(split.validation), names(split.test))
    assert [("in_test", "a"), ("in_test", "v")] == [(why, pair.name) for why, pair in split.dropped]


def test_lookalikes_with_different_labels_are_reported_and_kept() -> None:
    """One label may be wrong, or both garments have the same cut."""
    source = dataset(made_sample("a", 0, phash="0" * 16), made_sample("b", 1, phash="0" * 15 + "1"), *plain(5))
    split = split_of(source)
    assert (Pair(name="b", label="shoe", other="a", other_label="hat", same=False),) == split.lookalikes
    assert () == split.dropped


SAMPLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=80)
FRACTIONS = st.sampled_from([0.1, 0.25, 0.5])


@unhurried
@given(samples=SAMPLES, fraction=FRACTIONS, seed=st.integers(0, 5))
def test_a_group_stays_whole(samples: list[tuple[int, int]], fraction: float, seed: int) -> None:
    """For any labels."""
    labels, groups = [label for label, _ in samples], [group for _, group in samples]
    mask = held_out(labels, groups, fraction=fraction, seed=seed)
    sides = defaultdict(set)
    for group, held in zip(groups, mask.tolist(), strict=True):
        sides[group].add(held)
    assert all(len(side) == 1 for side in sides.values())


@unhurried
@given(samples=SAMPLES, fraction=FRACTIONS, seed=st.integers(0, 5))
def test_every_class_keeps_a_group_for_training(samples: list[tuple[int, int]], fraction: float, seed: int) -> None:
    """A group counts for the class of its first sample."""
    labels, groups = [label for label, _ in samples], [group for _, group in samples]
    mask = held_out(labels, groups, fraction=fraction, seed=seed)
    leaders = {group: labels[groups.index(group)] for group in groups}
    kept = {leaders[group] for group, held in zip(groups, mask.tolist(), strict=True) if not held}
    assert set(leaders.values()) == kept


@unhurried
@given(samples=SAMPLES, fraction=FRACTIONS)
def test_the_same_seed_gives_the_same_mask(samples: list[tuple[int, int]], fraction: float) -> None:
    """The mask depends on nothing else."""
    labels, groups = [label for label, _ in samples], [group for _, group in samples]
    masks = [held_out(labels, groups, fraction=fraction, seed=3).tolist() for _ in range(2)]
    assert masks[0] == masks[1]


@unhurried
@given(sizes=st.lists(st.integers(2, 60), min_size=1, max_size=4), fraction=FRACTIONS)
def test_the_share_holds_in_every_class_where_groups_are_single(sizes: list[int], fraction: float) -> None:
    """Rounded up, with at least one held out and one kept."""
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    mask = held_out(labels, list(range(len(labels))), fraction=fraction, seed=0)
    held = np.bincount(np.array(labels)[mask], minlength=len(sizes)).tolist()
    assert [min(size - 1, int(np.ceil(fraction * size))) for size in sizes] == held


def test_another_seed_holds_out_other_samples() -> None:
    """The seed decides the choice."""
    masks = [held_out([0] * 100, range(100), fraction=0.2, seed=seed).tolist() for seed in range(2)]
    assert masks[0] != masks[1]


def flipped(number: int, bits: set[int]) -> int:
    """`number` with these bits inverted."""
    for bit in bits:
        number ^= 1 << bit
    return number


@st.composite
def neighbourly_hashes(draw: st.DrawFn) -> list[int]:
    """Hashes, many of which differ in a few of the 64 bits."""
    seeds = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    changes = st.tuples(st.sampled_from(seeds), st.sets(st.integers(0, 63), max_size=7))
    return [flipped(number, bits) for number, bits in draw(st.lists(changes, max_size=25))]


def components(count: int, pairs: set[tuple[int, int]]) -> list[int]:
    """The smallest index that each one is connected with, by plain repetition."""
    label = list(range(count))
    for _ in range(count):
        for one, other in pairs:
            label[one] = label[other] = min(label[one], label[other])
    return label


@unhurried
@given(hashes=neighbourly_hashes(), distance=st.integers(0, 6))
def test_banding_finds_the_same_groups_as_comparing_all_pairs(hashes: list[int], distance: int) -> None:
    """No pair is lost, none is added."""
    every = {
        (one, other)
        for one in range(len(hashes))
        for other in range(one + 1, len(hashes))
        if (hashes[one] ^ hashes[other]).bit_count() <= distance
    }
    found = set(close_pairs(np.array(hashes, np.uint64), distance=distance))
    assert {tuple(sorted(pair)) for pair in found} <= every
    assert components(len(hashes), every) == components(len(hashes), found)


@unhurried
@given(hashes=neighbourly_hashes())
def test_chains_of_similar_samples_form_one_group(hashes: list[int]) -> None:
    """A group is numbered by its first sample."""
    samples = [made_sample(str(index), 0, phash=f"{number:016x}") for index, number in enumerate(hashes)]
    pairs = {
        (one, other)
        for one in range(len(hashes))
        for other in range(one + 1, len(hashes))
        if (hashes[one] ^ hashes[other]).bit_count() <= NEAR_BITS
    }
    assert components(len(hashes), pairs) == group_samples(samples)


def test_the_same_content_is_one_group_without_a_perceptual_hash() -> None:
    """Small pictures from archives have none."""
    samples = [made_sample(name, 0, content=content) for name, content in (("a", "x"), ("b", "y"), ("c", "x"))]
    assert [0, 1, 0] == group_samples(samples)


def test_no_samples_have_no_groups() -> None:
    """Parts can be empty."""
    assert [] == group_samples([])


def test_reencoded_and_smaller_copies_of_a_photo_are_found(tmp_path: Path) -> None:
    """Five photos with two copies each that differ in every byte."""
    (tmp_path / "all" / "photos").mkdir(parents=True)
    for seed in range(5):
        photo = Image.fromarray(colourful(seed))
        versions = {
            "a": jpeg_of(np.asarray(photo), quality=95),
            "b": jpeg_of(np.asarray(photo), quality=50),
            "c": _png(photo.resize((160, 120), Image.Resampling.BICUBIC)),
        }
        for name, data in versions.items():
            (tmp_path / "all" / "photos" / f"{seed}{name}").write_bytes(data)
    groups = group_samples(read_dataset(tmp_path / "all").samples)
    assert [index - index % 3 for index in range(15)] == groups


def _png(photo: Image.Image) -> bytes:
    with io.BytesIO() as file:
        photo.save(file, "PNG")
        return file.getvalue()
