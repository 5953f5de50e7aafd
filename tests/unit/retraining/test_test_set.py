"""The frozen test set: what tests never trains, and what trained never tests, however labels arrive."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from shoplens.labels.groups import Groups
from shoplens.retraining.samples import BASE, TEST, Gathered, LabelledSample, gather
from shoplens.retraining.test_set import TestSet, TestSets, grown
from shoplens.storage import open_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PEOPLE = "feedback"


def sample(number: int, *, label: str = "", source: str = PEOPLE, phash: str = "", **other: object) -> LabelledSample:
    """A photo of its own."""
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    made = LabelledSample(
        source=source, sample_id=f"{number:05}", label=label or f"class {number % 3}", sha256=sha256, phash=phash
    )
    return replace(made, **other)  # type: ignore[arg-type]


def gathered(*samples: LabelledSample) -> Gathered:
    """As the pipeline gives them."""
    return gather(
        [each for each in samples if each.source == PEOPLE],
        [each for each in samples if each.source != PEOPLE],
        known=(),
        new_class_samples=2,
    )


def grow(before: TestSet | None, *samples: LabelledSample, base_tests: bool = False) -> tuple[TestSet, set[str]]:
    """The next version, and the names of what trains."""
    after, training = grown("c", before, gathered(*samples), share=0.2, base_tests=base_tests, now=NOW)
    return after, {each.name for each in training}


def near(number: int) -> str:
    """Hashes in families of four that differ in at most two bits."""
    family = int.from_bytes(hashlib.sha256(f"family {number // 4}".encode()).digest()[:8])
    return f"{family ^ (1 << (number % 4)):016x}"


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_what_tests_never_trains_and_what_trained_never_tests(weeks: list[int], random: object) -> None:
    """Labels arrive week by week, near-duplicates of earlier ones among them."""
    numbers = list(range(sum(weeks)))
    random.shuffle(numbers)  # type: ignore[attr-defined]
    present: list[LabelledSample] = []
    known: TestSet | None = None
    ever_trained: set[str] = set()
    ever_tested: set[str] = set()
    for week in weeks:
        present += [sample(number, phash=near(number)) for number in numbers[len(present) : len(present) + week]]
        known, training = grow(known, *present)
        tests = {each.name for each in known.samples}
        ever_trained |= training
        ever_tested |= tests
        assert not tests & ever_trained
        assert not training & ever_tested
        groups = Groups()
        for each in present:
            groups.add(sha256=each.sha256, phash=each.phash, title=None)
        leaders = dict(zip((each.name for each in present), groups.leaders(), strict=True))
        assert not {leaders[name] for name in tests} & {leaders[name] for name in training}
        assert len({leaders[name] for name in tests}) == len(tests)


def test_every_class_with_two_groups_tests_and_trains() -> None:
    """A share of each, the first time."""
    after, training = grow(
        None, *[sample(number) for number in range(60)], sample(90, label="rare"), sample(91, label="rare")
    )
    counts = {label: sum(each.label == label for each in after.samples) for label in ("class 0", "class 1", "rare")}
    assert {"class 0": 4, "class 1": 4, "rare": 1} == counts
    assert 62 == len(after.samples) + len(training)


def test_the_same_labels_change_nothing_and_new_ones_give_a_version() -> None:
    """A version never changes; its digest is over its samples."""
    samples = [sample(number) for number in range(30)]
    first, _ = grow(None, *samples)
    assert first is grow(first, *samples)[0]
    second, _ = grow(first, *samples, *[sample(number) for number in range(100, 160)])
    assert 2 == second.version
    assert list(first.samples) == list(second.samples[: len(first.samples)])
    assert 3 <= len(second.samples) - len(first.samples) <= 25
    assert first.digest != second.digest


def test_a_withdrawn_label_leaves_and_a_later_word_changes_the_label() -> None:
    """Of samples that test."""
    samples = [sample(number) for number in range(30)]
    first, _ = grow(None, *samples)
    gone, changed = first.samples[0], first.samples[1]
    others = [replace(each, label="class 2") if each.name == changed.name else each for each in samples]
    others = [each for each in others if each.name != gone.name]
    second, training = grow(first, *others, sample(99))
    labels = {each.name: each.label for each in second.samples}
    assert gone.name not in labels
    assert "class 2" == labels[changed.name]
    assert changed.name not in training


def test_base_data_tests_only_the_first_model_and_data_kept_apart_tests_always() -> None:
    """A model that exists may have been trained on the base data."""
    people = [sample(number) for number in range(30)]
    base = [sample(number, source=BASE) for number in range(200, 260)]
    apart = [sample(number, source=TEST) for number in range(300, 310)]
    twin = sample(301, source=BASE, sha256=apart[1].sha256)
    with_model, training = grow(None, *people, *base, *apart, twin)
    assert not {each.name for each in with_model.samples if each.source == BASE}
    assert {each.name for each in apart} <= {each.name for each in with_model.samples}
    assert {each.name for each in base} <= training
    assert twin.name not in training
    without, _ = grow(None, *people, *base, base_tests=True)
    assert any(each.source == BASE for each in without.samples)


def test_versions_are_stored_once_and_forget_the_erased(tmp_path: Path) -> None:
    """Of two writers one wins; what people had erased goes out of every version."""
    sets = TestSets(open_store(str(tmp_path)))
    assert sets.newest("c") is None
    first, _ = grow(None, *[sample(number) for number in range(30)])
    assert first == sets.add(first)
    other = replace(first, samples=first.samples[:1])
    assert first == sets.add(other) == sets.newest("c") == sets.get("c", 1)
    gone = first.samples[2]
    assert 1 == sets.forget({gone.sample_id})
    assert gone.name not in {each.name for each in sets.get("c", 1).samples}
    assert 0 == sets.forget({gone.sample_id})


def test_one_persons_later_word_counts_and_people_who_disagree_teach_nothing() -> None:
    """And people's word replaces that of base data; a label that few gave is no class."""
    early, late = NOW, datetime(2026, 2, 1, tzinfo=UTC)
    known = ("dress", "hat")
    people = [
        sample(1, label="hat", given_by="anna", given_at=late, sample_id="b"),
        sample(1, label="dress", given_by="anna", given_at=early, sample_id="a"),
        sample(2, label="dress", given_by="anna", given_at=early),
        sample(2, label="hat", given_by="ben", given_at=early, sample_id="x"),
        sample(3, label="typo", given_by="ben"),
    ]
    base = [sample(1, label="dress", source=BASE), sample(4, label="shoes", source=BASE)]
    found = gather(people, base, known=known, new_class_samples=2)
    assert [("b", "hat"), ("00004", "shoes")] == [(each.sample_id, each.label) for each in found.samples]
    assert {
        "later word of the same person": 1,
        "people disagree": 2,
        "base data that people labelled": 1,
        "label with fewer than 2 samples": 1,
    } == found.left_out


def test_products_with_the_same_photo_and_other_titles_are_different_products() -> None:
    """A variant in another category is no contradiction; the same words again are the same product."""
    people = [
        sample(1, label="cap", designation="Winter cap", sample_id="a"),
        sample(1, label="scarf", designation="Winter scarf", sample_id="b"),
        sample(1, label="cap", designation="cap, winter", sample_id="c"),
    ]
    found = gather(people, [], known=("cap", "scarf"), new_class_samples=2)
    assert ["cap", "scarf"] == sorted(each.label for each in found.samples)
    assert {"later word of the same person": 1} == found.left_out
    assert 1 == len(set(found.groups))
