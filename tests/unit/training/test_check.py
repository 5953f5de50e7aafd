"""What is found in the data is said in sentences; what cannot be learned from is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from shoplens.errors import DatasetInvalid
from shoplens.training.check import DataReport, refuse_unlearnable, report_on, sentences
from shoplens.training.parts import divide
from shoplens.training.samples import Dataset, Fault, Sample
from tests.unit.training.conftest import made_up


def report_of(
    counts: dict[str, int], *, extra: Sequence[Sample] = (), faults: Sequence[Fault] = (), test: Sequence[Sample] = ()
) -> DataReport:
    """Of so many samples per class, and of some more."""
    made = [made_up(f"{label}{n}", index) for index, (label, count) in enumerate(counts.items()) for n in range(count)]
    source = Dataset(classes=tuple(counts), samples=(*made, *extra), unreadable=tuple(faults), sha256="0" * 64)
    return report_on(source, [], divide(source, test=test, fraction=0.2, seed=0))


def test_good_data_needs_two_sentences() -> None:
    """How much there is and how large."""
    report = report_of({"hat": 50, "shoe": 40})
    refuse_unlearnable(report)
    assert [
        "90 photos in 2 classes: 72 to train, 18 to validate, 0 to test.",
        "Their sides have 4 to 4 pixels (median short side 4).",
    ] == list(sentences(report))


def test_everything_odd_is_said() -> None:
    """Unreadable, repeated, contradicted, in the test part, alike, few, unbalanced."""
    extra = [
        made_up("again", 0, content="content of hat0"),
        made_up("either", 0, content="e"),
        made_up("or", 1, content="e"),
        made_up("tested", 0, content="t"),
        made_up("one", 0, phash="0" * 16),
        made_up("like it", 1, phash="0" * 16),
    ]
    faults = [Fault(name=f"{n}.jpg", code="image_corrupt", reason="It is cut off.") for n in range(7)]
    report = report_of({"hat": 200, "shoe": 10}, extra=extra, faults=faults, test=[made_up("t", 1, content="t")])
    text = "\n".join(sentences(report))
    for part in (
        "7 cannot be read", "0.jpg (image_corrupt): It is cut off.", "and 2 more", "1 repeat the content",
        "again = hat0",
        "2 have the same content under two labels", "either = or (hat and shoe)", "1 are in the test part",
        "tested = t (hat and shoe)", "like it ≈ one (shoe and hat)", "Fewer than 20 photos to train with: 'shoe'",
        "18 times as many",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"hat": 50}, "at least two classes to tell apart; there is 'hat'"),
        ({"hat": 50, "shoe": 1}, "fewer than 2 usable photos: 'shoe'"),
        ({"hat": 50, "shoe": 0, 'a "b"': 1}, "fewer than 2 usable photos: 'shoe', 'a \"b\"'"),
    ],
)
def test_too_little_is_refused(counts: dict[str, int], reason: str) -> None:
    """With the classes that are meant."""
    with pytest.raises(DatasetInvalid, match=re.escape(reason)):
        refuse_unlearnable(report_of(counts))


def test_a_class_that_gave_all_its_photos_to_the_test_part_is_refused() -> None:
    """It could not be trained."""
    tested = [made_up(f"t{n}", 1, content=f"content of shoe{n}") for n in range(3)]
    with pytest.raises(DatasetInvalid, match="fewer than 2 usable photos: 'shoe'"):
        refuse_unlearnable(report_of({"hat": 20, "shoe": 3}, test=tested))


def test_data_of_one_group_per_class_cannot_be_measured() -> None:
    """All photos of each class show the same."""
    samples = [made_up(f"{label}{n}", label, phash=f"{label * 255:016x}") for label in (0, 1) for n in range(5)]
    source = Dataset(classes=("hat", "shoe"), samples=tuple(samples), sha256="0" * 64)
    report = report_on(source, [], divide(source, fraction=0.2, seed=0))
    with pytest.raises(DatasetInvalid, match="Nothing could be held out"):
        refuse_unlearnable(report)
