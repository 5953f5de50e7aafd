"""The repository of feedback, on a real SQLite file."""

from __future__ import annotations

import pytest

from shoplens.db import Database
from shoplens.errors import PredictionNotFound, RequestInvalid
from shoplens.predictions.entities import FeedbackValue, PredictionRecord
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from tests.samples import make_record, make_remark


@pytest.fixture
def records(database: Database) -> list[PredictionRecord]:
    """Three committed records, oldest first."""
    made = [make_record(number) for number in range(3)]
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(made)
    return made


def test_remarks_come_back_as_they_were_added(database: Database, records: list[PredictionRecord]) -> None:
    """Per prediction, oldest first, with and without a label."""
    first = make_remark(records[0].id, 1)
    second = make_remark(records[0].id, 2, verdict=FeedbackValue.RIGHT, label=None, comment=None)
    with database.transaction() as tx:
        FeedbackRepository(tx).add(second)
        FeedbackRepository(tx).add(first)
    with database.reading() as tx:
        found = FeedbackRepository(tx).for_predictions([record.id for record in records])
    assert {records[0].id: [first, second]} == found


def test_asking_for_no_predictions_is_harmless(database: Database) -> None:
    """An empty page has no remarks."""
    with database.reading() as tx:
        assert {} == FeedbackRepository(tx).for_predictions([])


def test_a_remark_on_nothing_is_refused(database: Database) -> None:
    """The prediction must exist."""
    with pytest.raises(PredictionNotFound, match="01nothing"), database.transaction() as tx:
        FeedbackRepository(tx).add(make_remark("01nothing"))


def test_a_comment_that_is_no_text_is_a_clear_error(database: Database, records: list[PredictionRecord]) -> None:
    """Half a surrogate pair can arrive in JSON."""
    with pytest.raises(RequestInvalid, match="surrogate"), database.transaction() as tx:
        FeedbackRepository(tx).add(make_remark(records[0].id, comment="\ud800"))


def test_a_stream_pairs_every_remark_with_its_prediction(database: Database, records: list[PredictionRecord]) -> None:
    """Oldest first, over several pages."""
    remarks = [make_remark(records[number % 3].id, number) for number in range(1100)]
    with database.transaction() as tx:
        for remark in remarks:
            FeedbackRepository(tx).add(remark)
    expected = [(remark, records[number % 3]) for number, remark in enumerate(remarks)]
    with database.reading() as tx:
        assert expected == list(FeedbackRepository(tx).page(limit=10_000))
