"""Training, validation and test share no picture; what gives way for that is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shoplens.training.groups import group_samples
from shoplens.training.parts import Pair, Parts, divide
from shoplens.training.samples import Dataset, Sample
from tests.unit.training.conftest import made_up

CLASSES = ("hat", "shoe")


def dataset(*samples: Sample) -> Dataset:
    """Two classes."""
    return Dataset(classes=CLASSES, samples=samples)


def plain(count: int, *, prefix: str = "p", label: int = 0) -> list[Sample]:
    """Samples that have nothing to do with each other."""
    return [made_up(f"{prefix}{number}", label) for number in range(count)]


def names(samples: Sequence[Sample]) -> list[str]:
    """Of each sample its name."""
    return [sample.name for sample in samples]


def divided(source: Dataset, *, validation: Dataset | None = None, test: Sequence[Sample] = ()) -> Parts:
    """With a fifth held out."""
    return divide(source, validation=validation, test=test, fraction=0.2, seed=0)


def test_a_fifth_of_every_class_is_held_out() -> None:
    """And nothing is lost."""
    parts = divided(dataset(*plain(20), *plain(10, prefix="q", label=1)))
    assert (24, 6, 0) == (len(parts.train), len(parts.validation), len(parts.test))
    assert {0: 4, 1: 2} == Counter(sample.label for sample in parts.validation)
    assert (False, ()) == (parts.validation_given, parts.dropped)


@given(
    rows=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 15)), max_size=30),
    sizes=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    spread=st.sampled_from([1, 0x9E3779B97F4A7C15]),
)
def test_no_group_is_in_two_parts(rows: list[tuple[int, int]], sizes: tuple[int, int], spread: int) -> None:
    """Whatever is given, and whoever looks like whom; and each sample is in a part or told as dropped.

    Hashes of a spread of 1 are near each other, the others are not.
    """
    made = [
        made_up(str(index), label, content=str(content), phash=f"{content * spread % 2**64:016x}")
        for index, (label, content) in enumerate(rows)
    ]
    held, test, source = made[: sizes[0]], made[sizes[0] : sum(sizes)], made[sum(sizes) :]
    parts = divided(dataset(*source), validation=dataset(*held) if held else None, test=test)
    kept = [*parts.train, *parts.validation, *parts.test]
    groups = dict(zip(names(kept), group_samples(kept), strict=True))
    train, validation, tested = (
        {groups[name] for name in names(part)} for part in (parts.train, parts.validation, parts.test)
    )
    assert (set(), set(), set()) == (train & validation, train & tested, validation & tested)
    assert sorted(names(made)) == sorted([*names(kept), *(pair.name for _, pair in parts.dropped)])


def test_content_under_two_labels_is_left_out_whole() -> None:
    """Nobody knows which label is right; each is told with one that contradicts it."""
    source = dataset(
        made_up("a", 0, content="x"), made_up("b", 1, content="x"), made_up("c", 0, content="x"), *plain(9)
    )
    parts = divided(source)
    assert [("a", "b"), ("b", "a"), ("c", "b")] == [(pair.name, pair.other) for _, pair in parts.dropped]
    assert {"contradicted"} == {why for why, _ in parts.dropped}
    assert 9 == len(parts.train) + len(parts.validation)


def test_repeated_content_counts_once() -> None:
    """The first one stays."""
    parts = divided(dataset(made_up("a", 0, content="x"), made_up("b", 0, content="x"), *plain(9)))
    expected = Pair(name="b", label="hat", other="a", other_label="hat", same=True)
    assert (("repeated", expected),) == parts.dropped


def test_training_gives_way_to_a_given_validation_part() -> None:
    """Also to one that only looks the same; what was given stays as it is, repetitions included."""
    held = [made_up("v1", 0, content="x"), made_up("v2", 0, content="x"), made_up("v3", 1, phash="0" * 16)]
    source = dataset(made_up("same", 1, content="x"), made_up("near", 1, phash="0" * 15 + "3"), *plain(5))
    parts = divided(source, validation=dataset(*held))
    assert (names(held), True) == (names(parts.validation), parts.validation_given)
    assert ["p0", "p1", "p2", "p3", "p4"] == names(parts.train)
    assert [
        ("in_validation", "same", "v1", True),
        ("in_validation", "near", "v3", False),
    ] == [(why, pair.name, pair.other, pair.same) for why, pair in parts.dropped]


def test_the_test_part_takes_from_both_others() -> None:
    """It is the last word, so nothing of it may have been seen."""
    test = [made_up("t", 0, content="x")]
    parts = divided(
        dataset(made_up("a", 0, content="x"), *plain(5)),
        validation=dataset(made_up("v", 0, content="x"), made_up("w", 0)),
        test=test,
    )
    assert (["w"], ["t"]) == (names(parts.validation), names(parts.test))
    assert [("in_test", "a"), ("in_test", "v")] == [(why, pair.name) for why, pair in parts.dropped]


def test_lookalikes_with_different_labels_are_told_and_kept() -> None:
    """Perhaps one label is wrong, perhaps both garments are the same cut."""
    source = dataset(made_up("a", 0, phash="0" * 16), made_up("b", 1, phash="0" * 15 + "1"), *plain(5))
    parts = divided(source)
    assert (Pair(name="b", label="shoe", other="a", other_label="hat", same=False),) == parts.lookalikes
    assert () == parts.dropped
