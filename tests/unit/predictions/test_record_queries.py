"""The SQL of a filter: every combination is read in the order of an index, whatever it selects."""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ClauseElement
from sqlalchemy.dialects import postgresql, sqlite

from shoplens.db.ids import make_id
from shoplens.db.tables import predictions
from shoplens.predictions import record_queries
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.policy import Outcome
from tests.unit.db.samples import moment

BY_ID = "sqlite_autoindex_predictions_1"
BY_CHANNEL = "ix_predictions_channel_outcome_id"
BY_LABEL = "ix_predictions_top_label_channel_outcome_id"


def plan(path: Path, statement: ClauseElement) -> list[str]:
    """The steps that SQLite takes."""
    sql = str(statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}))
    with closing(sqlite3.connect(path)) as connection:
        return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]


def page_of(wanted: RecordFilter, *, before: str | None, up: bool = False) -> Any:
    """The statement of a page."""
    ids = record_queries.id_range(wanted, before=before, after="01" if up else None)
    found = record_queries.rows(wanted, ids, ["look", "returns", "reviews"])
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
        BY_CHANNEL: "(channel=? AND outcome=?",
        BY_LABEL: "(top_label=? AND channel=? AND outcome=?",
    }
    assert ranges
    assert all(f"USING INDEX {index} {equalities[index]}".strip() in step for step in ranges), ranges
    assert {"MERGE (UNION ALL)", "LEFT", "RIGHT"} >= set(steps) - set(ranges), steps


def test_labels_are_found_by_leaps_over_an_index(empty_database_file: Path) -> None:
    """One search per label instead of a scan of all rows."""
    steps = plan(empty_database_file, record_queries.distinct(predictions.c.top_label))
    touching = [step for step in steps if "predictions" in step]
    assert 2 == len(touching)
    assert all(step.startswith(f"SEARCH predictions USING COVERING INDEX {BY_LABEL}") for step in touching), steps


def test_the_statements_are_also_those_of_postgresql() -> None:
    """They compile for its dialect, without SQLite's words."""
    statement = page_of(RecordFilter(outcome=Outcome.REJECT), before="01kqrs")
    sql = str(statement.compile(dialect=postgresql.dialect()))  # type: ignore[no-untyped-call]
    assert 2 == sql.count("UNION ALL")


def test_a_time_is_the_least_id_of_its_millisecond() -> None:
    """Since includes it, until excludes it."""
    wanted = RecordFilter(since=moment(0), until=moment(1))
    ids = record_queries.id_range(wanted, before=None, after=None)
    assert (make_id(1_777_896_000_123, bytes(10)), make_id(1_777_896_001_123, bytes(10))) == (ids.least, ids.below)


def test_the_nearer_of_two_ends_counts() -> None:
    """A page's place and the time limit it together."""
    wanted = RecordFilter(until=moment(1))
    assert "01" == record_queries.id_range(wanted, before="01", after=None).below
    assert "01" < str(record_queries.id_range(wanted, before="zz", after=None).below) < "zz"


def test_a_time_without_a_zone_is_taken_as_utc() -> None:
    """A filter is a person's words; the record's own times must carry a zone."""
    aware = record_queries.id_range(RecordFilter(since=moment(0)), before=None, after=None)
    naive = record_queries.id_range(RecordFilter(since=moment(0).replace(tzinfo=None)), before=None, after=None)
    assert aware == naive
