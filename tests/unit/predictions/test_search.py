"""The search in records, over file names, the numbers of items, and labels."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from shoplens.batch.entities import References
from shoplens.batch.repository import ItemRepository
from shoplens.batch.review_repository import find_references
from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database
from shoplens.predictions.entities import FeedbackValue, PredictionRecord, RecordFilter
from shoplens.predictions.policy import Outcome
from shoplens.predictions.records import RecordService
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.predictions.search import RecordSearch
from shoplens.telemetry.metrics import Metrics
from tests.samples import make_item, make_record, make_remark, moment

SEARCH = RecordSearch(references=find_references, label_names={"outwear": {"Outerwear", "Jackets"}})


def now() -> datetime:
    """Any time."""
    return moment(1_000)


@pytest.fixture
def kept(database: Database) -> list[PredictionRecord]:
    """Eight records, oldest first; the last two are of items of a run."""
    records = [
        make_record(0, file_name="IMG_2031.JPG", label="dress"),
        make_record(1, file_name="img_2032.jpg", label="hat"),
        make_record(2, file_name="My Coat.png", label="outwear", outcome=Outcome.REVIEW),
        make_record(3, label="Long dress", channel="strict"),
        make_record(4, file_name="Ärmel 100%_.jpg", label="longsleeve"),
        make_record(5, file_name="Ärmel 100xx.jpg", label="longsleeve"),
        make_record(6, file_name="a.jpg", label="shirt", channel="returns"),
        make_record(7, file_name="b.jpg", label="skirt", channel="returns"),
    ]
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(records)
        references = (References(order="268110", item="COAT055"), References(order="268111", item="coat056"))
        ItemRepository(tx).add_many(
            [
                make_item(number, prediction_id=record.id, references=each)
                for number, (record, each) in enumerate(zip(records[6:], references, strict=True))
            ]
        )
    return records


@pytest.fixture
def records(database: Database) -> RecordService:
    """As the server has it."""
    return RecordService(database, clock=now, metrics=Metrics(), search=SEARCH)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("IMG_2031.JPG", [0]),
        ("img_203", [1, 0]),
        ("my coat", [2]),
        ("ÄRMEL 100%_", [4]),
        ("268110", [6]),
        ("2681", [7, 6]),
        ("coat055", [6]),
        ("COAT05", [7, 6]),
        ("Order 268110, item COAT055", [6]),
        ("268110 coat056", []),
        ("dress", [3, 0]),
        ("img_2032 hat", [1]),
        ("jackets", [2]),
        ("2031", []),
        ("' OR 1=1 --", []),
        ("\U0010ffff", []),
    ],
)
def test_records_are_found_by_what_people_know_of_them(
    records: RecordService, kept: list[PredictionRecord], text: str, found: list[int]
) -> None:
    """The beginning of a name or a number in any case, any part of a label, and all words of several."""
    page = records.page(RecordFilter(text=text))
    assert [kept[each].id for each in found] == [record.id for record in page.records]
    assert (len(found), True) == (page.total, page.total_is_exact)


def test_a_record_is_found_by_its_id(records: RecordService, kept: list[PredictionRecord]) -> None:
    """As it stands in a log."""
    assert [kept[3]] == records.page(RecordFilter(text=kept[3].id.upper())).records


def test_a_search_is_combined_with_filters(records: RecordService, kept: list[PredictionRecord]) -> None:
    """Channel, label, decision and times."""

    def found(**more: object) -> list[PredictionRecord]:
        return records.page(replace(RecordFilter(text="dress"), **more)).records  # type: ignore[arg-type]

    assert [kept[0]] == found(channel="look")
    assert [kept[3]] == found(since=moment(1))
    assert [kept[0]] == found(until=moment(3))
    assert [] == found(outcome=Outcome.REVIEW)
    assert [kept[3]] == found(label="Long dress")


def test_pages_of_a_search_go_back_and_forth(database: Database, records: RecordService) -> None:
    """Without gaps, also where a filter leaves most of what was found out."""
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(
            make_record(number, file_name=f"x{number}.jpg", outcome=Outcome.REVIEW if number % 3 else Outcome.ACCEPT)
            for number in range(30)
        )
    wanted = RecordFilter(text="x", outcome=Outcome.ACCEPT)
    first = records.page(wanted, limit=4)
    second = records.page(wanted, limit=4, before=first.older)
    third = records.page(wanted, limit=4, before=second.older)
    back = records.page(wanted, limit=4, after=third.newer)

    numbers = [record.file_name for page in (first, second, third) for record in page.records]
    assert [f"x{number}.jpg" for number in range(27, -1, -3)] == numbers
    assert (None, None, 10) == (first.newer, third.older, third.total)
    assert second.records == back.records


def test_neighbours_are_those_of_the_filter(records: RecordService, kept: list[PredictionRecord]) -> None:
    """Newer and older; None at the ends, whether something is searched for or not."""
    assert (None, kept[0].id) == records.neighbours(RecordFilter(text="dress"), kept[3].id)
    assert (kept[4].id, kept[2].id) == records.neighbours(RecordFilter(), kept[3].id)
    assert (kept[7].id, None) == records.neighbours(RecordFilter(channel="returns"), kept[6].id)


def test_totals_are_counted_up_to_a_bound(
    database: Database, records: RecordService, kept: list[PredictionRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exact up to it, and said to be more beyond, for filters and for searches."""
    assert (8, True) == _total(records, RecordFilter())
    assert (2, True) == _total(records, RecordFilter(label="longsleeve"))
    for module in ("search", "records"):
        monkeypatch.setattr(f"shoplens.predictions.{module}.MOST_FOUND", 2)
    assert (2, False) == _total(records, RecordFilter())
    assert (2, False) == _total(records, RecordFilter(channel="look"))
    assert (2, True) == _total(records, RecordFilter(label="longsleeve"))
    assert (2, True) == _total(records, RecordFilter(text="dress"))
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([make_record(9, file_name="dress.jpg")])
    assert (2, False) == _total(records, RecordFilter(text="dress"))


def _total(records: RecordService, wanted: RecordFilter) -> tuple[int, bool]:
    page = records.page(wanted)
    return page.total, page.total_is_exact


def test_a_cell_of_the_confusion_matrix_finds_exactly_the_records_that_it_counts(
    database: Database, records: RecordService
) -> None:
    """The last word counts; what was withdrawn, said of another version, or without a label is in no cell."""
    old, new = ModelRef(name="clothing", version="1.0.0"), ModelRef(name="clothing", version="1.1.0")
    kept = [make_record(number, label="shirt", model=new) for number in range(6)]
    kept.append(make_record(6, label="dress", model=new, file_name="IMG_7.jpg"))
    kept.append(make_record(7, label="shirt", model=old))
    said = [
        make_remark(kept[0].id, 10, verdict=FeedbackValue.RIGHT, label=None),
        make_remark(kept[1].id, 11, verdict=FeedbackValue.RIGHT, label="shirt"),
        make_remark(kept[1].id, 12, verdict=FeedbackValue.WRONG, label="dress"),
        make_remark(kept[2].id, 13, verdict=FeedbackValue.WRONG, label="dress"),
        make_remark(kept[3].id, 14, verdict=FeedbackValue.WRONG, label="dress", withdrawn_at=moment(20)),
        make_remark(kept[4].id, 15, verdict=FeedbackValue.NONE, label=None, proposed="scarf"),
        make_remark(kept[5].id, 16, verdict=FeedbackValue.WRONG, label=None),
        make_remark(kept[6].id, 17, verdict=FeedbackValue.RIGHT, label="dress"),
        make_remark(kept[7].id, 18, verdict=FeedbackValue.WRONG, label="dress"),
    ]
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(kept)
        for each in said:
            FeedbackRepository(tx).add(each)
    matrix = records.confusion(new)
    assert {"dress": {"shirt": 2, "dress": 1}, "shirt": {"shirt": 1}} == matrix.counts
    assert (("dress", "shirt"), 4, 2, False) == (matrix.labels, matrix.answered, matrix.unlabelled, matrix.more)
    for truth, row in matrix.counts.items():
        for predicted, count in row.items():
            page = records.page(RecordFilter(truth=truth, label=predicted, model=new))
            assert (count, True) == (page.total, page.total_is_exact)
            assert count == len(page.records)
    of_both = records.page(RecordFilter(truth="dress", label="shirt"))
    assert [kept[7].id, kept[2].id, kept[1].id] == [record.id for record in of_both.records]
    assert [kept[6]] == records.page(RecordFilter(truth="dress", text="img")).records
