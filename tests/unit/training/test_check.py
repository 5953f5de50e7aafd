"""Findings in the data are reported; data that cannot be learned from is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from shoplens.training.check import DataReport, refuse_unlearnable, report_on
from shoplens.training.errors import DatasetInvalid
from shoplens.training.samples import Dataset, Sample, UnreadableFile
from shoplens.training.split import split_dataset
from tests.unit.training.colours import made_sample


def report_of(
    counts: dict[str, int],
    *,
    extra: Sequence[Sample] = (),
    unreadable: Sequence[UnreadableFile] = (),
    test: Sequence[Sample] = (),
) -> DataReport:
    """The report on so many samples per class, and the `extra` ones."""
    made = [
        made_sample(f"{label}{n}", index) for index, (label, count) in enumerate(counts.items()) for n in range(count)
    ]
    source = Dataset(classes=tuple(counts), samples=(*made, *extra), unreadable=tuple(unreadable), sha256="0" * 64)
    return report_on(source, [], split_dataset(source, test=test, fraction=0.2, seed=0))


def test_the_report_on_good_data_has_two_lines() -> None:
    """The counts and the sizes."""
    report = report_of({"hat": 50, "shoe": 40})
    refuse_unlearnable(report)
    assert [
        "90 photos in 2 classes: 72 to train, 18 to validate, 0 to test.",
        "Their sides are 4 to 4 pixels long (median short side: 4).",
    ] == list(report.lines())


def test_every_kind_of_finding_is_reported() -> None:
    """Unreadable, repeated, contradicted, in the test part, alike, few, unbalanced."""
    extra = [
        made_sample("again", 0, content="content of hat0"),
        made_sample("either", 0, content="e"),
        made_sample("or", 1, content="e"),
        made_sample("tested", 0, content="t"),
        made_sample("one", 0, phash="0" * 16),
        made_sample("like it", 1, phash="0" * 16),
    ]
    unreadable = [UnreadableFile(name=f"{n}.jpg", code="image_corrupt", reason="It is cut off.") for n in range(7)]
    report = report_of(
        {"hat": 200, "shoe": 10}, extra=extra, unreadable=unreadable, test=[made_sample("t", 1, content="t")]
    )
    text = "\n".join(report.lines())
    for part in (
        "7 cannot be read", "0.jpg (image_corrupt): It is cut off.", "and 2 more", "1 repeat the content",
        "again = hat0",
        "2 have the same content under two labels", "either = or (hat and shoe)", "1 are also in the test part",
        "tested = t (hat and shoe)", "like it ≈ one (shoe and hat)", "fewer than 20 training photos: 'shoe'",
        "18 times as many",
    ):  # fmt: skip
        assert part in text, part


@pytest.mark.parametrize(
    ("counts", "reason"),
    [
        ({"hat": 50}, "At least two classes are needed; there is only 'hat'"),
        ({"hat": 50, "shoe": 1}, "fewer than 2 usable photos: 'shoe'"),
        ({"hat": 50, "shoe": 0, 'a "b"': 1}, "fewer than 2 usable photos: 'shoe', 'a \"b\"'"),
    ],
)
def test_too_little_data_is_refused(counts: dict[str, int], reason: str) -> None:
    """The message names the classes."""
    with pytest.raises(DatasetInvalid, match=re.escape(reason)):
        refuse_unlearnable(report_of(counts))


def test_a_class_with_all_photos_in_the_test_part_is_refused() -> None:
    """It cannot be trained."""
    tested = [made_sample(f"t{n}", 1, content=f"content of shoe{n}") for n in range(3)]
    with pytest.raises(DatasetInvalid, match="fewer than 2 usable photos: 'shoe'"):
        refuse_unlearnable(report_of({"hat": 20, "shoe": 3}, test=tested))


def test_one_group_per_class_is_refused() -> None:
    """All photos of each class are near-duplicates, so none can be held out."""
    samples = [made_sample(f"{label}{n}", label, phash=f"{label * 255:016x}") for label in (0, 1) for n in range(5)]
    source = Dataset(classes=("hat", "shoe"), samples=tuple(samples), sha256="0" * 64)
    report = report_on(source, [], split_dataset(source, fraction=0.2, seed=0))
    with pytest.raises(DatasetInvalid, match="No photo could be held out"):
        refuse_unlearnable(report)
