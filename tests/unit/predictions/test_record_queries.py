"""The SQL of a filter: every combination is read in the order of an index, whatever it selects."""

from __future__ import annotations

import itertools
from contextlib import closing
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ClauseElement
from sqlalchemy.dialects import postgresql, sqlite

from shoplens.db.sqlite import driver as sqlite3
from shoplens.db.tables import distinct, make_id
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.policy import Outcome
from shoplens.predictions.repository import matching
from shoplens.predictions.tables import predictions
from tests.samples import moment

BY_ID = "sqlite_autoindex_predictions_1"
BY_CHANNEL = "ix_predictions_channel_decision_outcome_id"
BY_LABEL = "ix_predictions_top_label_channel_decision_outcome_id"


def plan(path: Path, statement: ClauseElement) -> list[str]:
    """The steps that SQLite takes."""
    sql = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    with closing(sqlite3.connect(path)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]


def page_of(wanted: RecordFilter, *, before: str | None, up: bool = False) -> Any:
    """The statement of a page."""
    found = matching(wanted, before=before, after="01" if up else None, channels=["look", "returns", "reviews"])
    column = found.selected_columns.id
    return found.order_by(column.asc() if up else column.desc()).limit(50)


@pytest.mark.parametrize("up", [False, True], ids=["down", "up"])
@pytest.mark.parametrize("before", [None, "01kqrs"], ids=["first page", "later page"])
@pytest.mark.parametrize("since", [None, moment(0)], ids=["ever", "since"])
@pytest.mark.parametrize(
    ("channel", "label", "outcome"),
    list(itertools.product((None, "look"), (None, "vase"), (None, Outcome.REJECT))),
)
def test_no_page_sorts_or_reads_rows_that_it_does_not_show(
    empty_database_file: Path,
    channel: str | None,
    label: str | None,
    outcome: Outcome | None,
    since: Any,
    before: str | None,
    up: bool,
) -> None:
    """Every step is an index range in which each row matches, or the merging of such ranges."""
    wanted = RecordFilter(channel=channel, label=label, outcome=outcome, since=since)
    steps = plan(empty_database_file, page_of(wanted, before=before, up=up))
    index = BY_LABEL if label else BY_CHANNEL if channel or outcome else BY_ID
    ranges = [step for step in steps if "predictions" in step]
    equalities = {
        BY_ID: "",
        BY_CHANNEL: "(channel=? AND decision_outcome=?",
        BY_LABEL: "(top_label=? AND channel=? AND decision_outcome=?",
    }
    assert ranges
    assert all(f"USING INDEX {index} {equalities[index]}".strip() in step for step in ranges), ranges
    assert {"MERGE (UNION ALL)", "LEFT", "RIGHT"} >= set(steps) - set(ranges), steps


def test_labels_are_found_by_leaps_over_an_index(empty_database_file: Path) -> None:
    """One search per label instead of a scan of all rows."""
    steps = plan(empty_database_file, distinct(predictions.c.top_label))
    touching = [step for step in steps if "predictions" in step]
    assert 2 == len(touching)
    assert all(step.startswith(f"SEARCH predictions USING COVERING INDEX {BY_LABEL}") for step in touching), steps


def test_the_statements_are_also_those_of_postgresql() -> None:
    """They compile for its dialect, without SQLite's words."""
    statement = page_of(RecordFilter(outcome=Outcome.REJECT), before="01kqrs")
    sql = str(statement.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    assert 2 == sql.count("UNION ALL")


@pytest.mark.parametrize("zone", [UTC, None], ids=["UTC", "no zone"])
def test_a_time_is_the_least_id_of_its_millisecond(zone: Any) -> None:
    """`since` is inclusive, `until` is exclusive; a time without a zone is UTC."""
    wanted = RecordFilter(since=moment(0).replace(tzinfo=zone), until=moment(1).replace(tzinfo=zone))
    statement = matching(wanted, before=None, after=None, channels=[])
    bounds = {make_id(1_777_896_000_123, bytes(10)), make_id(1_777_896_001_123, bytes(10))}
    assert bounds == set(statement.compile().params.values())
