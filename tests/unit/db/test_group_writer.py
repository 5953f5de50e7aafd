"""The group writer, on a real SQLite file."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import replace

import pytest
import structlog
from sqlalchemy import event

from shoplens.db import Database, GroupWriter, open_database
from shoplens.errors import DatabaseUnavailable, QueueFull, RecordRefused
from shoplens.predictions.entities import PredictionRecord, RecordFilter
from shoplens.predictions.repository import PredictionRepository, add_records
from tests.samples import make_record
from tests.unit.db.blocker import blocked

PATIENCE_S = 20


@pytest.fixture
def writer(database: Database) -> Iterator[GroupWriter[PredictionRecord]]:
    """A writer with the usual limits."""
    opened = GroupWriter(database, add_records)
    yield opened
    opened.close()


def stored(database: Database) -> set[str]:
    """The ids that are committed."""
    with database.reading() as tx:
        return {record.id for record in PredictionRepository(tx).page(RecordFilter(), limit=1_000_000)}


def failure(future: Future[None]) -> BaseException | None:
    """What a future ended with."""
    return future.exception(timeout=PATIENCE_S)


def test_a_resolved_future_means_a_committed_row(database: Database, writer: GroupWriter[PredictionRecord]) -> None:
    """The row can be read by others at that moment."""
    record = make_record()
    writer.submit(record).result(timeout=PATIENCE_S)
    with database.reading() as tx:
        assert record == PredictionRepository(tx).get(record.id)


def test_records_of_many_threads_are_all_written(database: Database, writer: GroupWriter[PredictionRecord]) -> None:
    """Each once."""
    batches = [[make_record(number) for number in range(first, first + 50)] for first in range(0, 400, 50)]
    futures: list[Future[None]] = []

    def submit(batch: list[PredictionRecord]) -> None:
        futures.extend([writer.submit(record) for record in batch])

    threads = [threading.Thread(target=submit, args=(batch,)) for batch in batches]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {None} == {failure(future) for future in futures}
    assert {record.id for batch in batches for record in batch} == stored(database)


def test_what_gathers_during_a_commit_shares_the_next_one(database: Database) -> None:
    """While another process holds the lock, a hundred records become few groups."""
    commits: list[int] = []
    event.listen(database._engine, "commit", lambda connection: commits.append(1))
    writer = GroupWriter(database, add_records)
    with database.transaction():
        futures = [writer.submit(make_record(number)) for number in range(100)]
    wait_for(futures, timeout=PATIENCE_S)
    writer.close()
    assert (100, True) == (len(stored(database)), len(commits) <= 4), commits


def test_a_group_is_never_larger_than_allowed(database: Database) -> None:
    """Eleven records in groups of at most two are six commits."""
    commits: list[int] = []
    writer = GroupWriter(database, add_records, max_group=2)
    with database.transaction():
        writer.submit(make_record(999))
        futures = [writer.submit(make_record(number)) for number in range(10)]
        event.listen(database._engine, "commit", lambda connection: commits.append(1))
    wait_for(futures, timeout=PATIENCE_S)
    writer.close()
    assert 11 == len(stored(database))
    assert len(commits) >= 6


def test_a_bad_record_does_not_harm_its_neighbours(database: Database, writer: GroupWriter[PredictionRecord]) -> None:
    """A double id, a value that is no row and one that no column takes; the rest is written."""
    good = [make_record(number) for number in range(6)]
    writer.submit(good[0]).result(timeout=PATIENCE_S)
    bad = [
        replace(make_record(100), id=good[0].id),
        make_record(101, labels=()),
        make_record(102, label="\ud800"),
        make_record(103, created_at="yesterday"),
    ]
    with database.transaction():  # so that all of them wait and share a group
        futures = [writer.submit(record) for record in [good[1], *bad[:2], good[2], *bad[2:], *good[3:]]]
    outcomes = [failure(future) for future in futures]
    assert [False, True, True, False, True, True, False, False, False] == [
        isinstance(outcome, RecordRefused) for outcome in outcomes
    ], outcomes
    assert {record.id for record in good} == stored(database)


def test_a_full_queue_refuses_at_once(database: Database) -> None:
    """With how long to wait; what was accepted is still written."""
    writer = GroupWriter(database, add_records, queue_limit=5, max_group=1)
    with database.transaction():
        accepted = [writer.submit(make_record(0))]
        wait_until(lambda: writer.queued() == 0)  # the first one is being written, behind the lock
        accepted += [writer.submit(make_record(number)) for number in range(1, 6)]
        before = time.monotonic()
        with pytest.raises(QueueFull) as refusal:
            writer.submit(make_record(6))
        took_s = time.monotonic() - before
    assert {None} == {failure(future) for future in accepted}
    writer.close()
    assert (6, True) == (len(stored(database)), refusal.value.retry_after_s > 0)
    assert took_s < PATIENCE_S / 4


def test_a_database_that_stays_locked_fails_the_group_and_the_next_one_succeeds(
    database: Database, database_url: str
) -> None:
    """The wait is bounded, and the loop outlives it."""
    impatient = open_database(database_url, busy_timeout_s=0.05)
    writer = GroupWriter(impatient, add_records)
    with blocked(database_url):
        error = failure(writer.submit(make_record(0)))
    after = make_record(1)
    writer.submit(after).result(timeout=PATIENCE_S)
    writer.close()
    impatient.close()
    assert isinstance(error, DatabaseUnavailable)
    assert "is locked by another process" in str(error)
    assert {after.id} == stored(database)


def test_closing_writes_what_waits(database: Database) -> None:
    """Everything that was accepted is committed; nothing more is taken."""
    writer = GroupWriter(database, add_records, max_group=10)
    futures = [writer.submit(make_record(number)) for number in range(200)]
    writer.close()
    assert (True, 200) == (all(future.done() for future in futures), len(stored(database)))
    with pytest.raises(DatabaseUnavailable, match="no more records"):
        writer.submit(make_record(201))
    writer.close()


def test_a_cancelled_future_does_no_harm(database: Database, writer: GroupWriter[PredictionRecord]) -> None:
    """The row is written, although its caller does not wait."""
    with database.transaction():
        future = writer.submit(make_record(0))
        assert future.cancel()
    writer.submit(make_record(1)).result(timeout=PATIENCE_S)
    assert 2 == len(stored(database))


def wait_until(condition: Callable[[], bool]) -> None:
    """Until `condition()` holds; an assertion after a long while."""
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.001)


def test_a_refused_row_is_logged_with_the_id_of_its_request(
    database: Database, writer: GroupWriter[PredictionRecord]
) -> None:
    """Although another thread writes it, in a group with others."""
    seen: list[tuple[str, object]] = []

    class Seeing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append((record.getMessage(), structlog.contextvars.get_contextvars().get("request_id")))

    handler = Seeing()
    logging.getLogger("shoplens.db.group_writer").addHandler(handler)
    try:
        with database.transaction():  # so that all of them wait and share a group
            futures = []
            for number, record in enumerate((make_record(1), make_record(2), make_record(3, labels=()))):
                with structlog.contextvars.bound_contextvars(request_id=f"request-{number}"):
                    futures.append(writer.submit(record))
        outcomes = [failure(future) for future in futures]
    finally:
        logging.getLogger("shoplens.db.group_writer").removeHandler(handler)
    assert [None, None, RecordRefused] == [outcome and type(outcome) for outcome in outcomes]
    assert [("record.refused", "request-2")] == seen
