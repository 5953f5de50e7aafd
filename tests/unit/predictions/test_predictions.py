"""The repository of predictions, on a real SQLite file."""

from __future__ import annotations

import itertools
import random
import threading
import tracemalloc
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from shoplens.db import Database
from shoplens.db.sqlite import driver as sqlite3
from shoplens.errors import DatabaseUnavailable, PredictionNotFound, RecordRefused, RequestInvalid
from shoplens.predictions.entities import Keep, PredictionRecord, RecordFilter
from shoplens.predictions.export import stream_records
from shoplens.predictions.policy import Decision, Outcome
from shoplens.predictions.repository import MOST_CHANNELS, PredictionRepository
from tests.conftest import ONLY_SQLITE
from tests.samples import NOON, make_record, moment

EVERYTHING = RecordFilter()
ALL_FILTERS = [
    RecordFilter(channel=channel, label=label, outcome=outcome, since=since, until=until)
    for channel, label, outcome, since, until in itertools.product(
        (None, "look", "reviews"), (None, "vase", "cup"), (None, Outcome.REVIEW), (None, moment(20)), (None, moment(70))
    )
]


def add(database: Database, *records: PredictionRecord) -> None:
    """Commit `records`."""
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(records)


@pytest.fixture
def varied(database: Database) -> list[PredictionRecord]:
    """Ninety committed records of all kinds, newest first."""
    chance = random.Random(5)
    records = [
        make_record(
            number,
            label=chance.choice(["vase", "cup", "sofa"]),
            channel=chance.choice(["look", "reviews", "returns"]),
            outcome=chance.choice(list(Outcome)),
        )
        for number in range(90)
    ]
    add(database, *chance.sample(records, len(records)))
    return records[::-1]


def matches(record: PredictionRecord, wanted: RecordFilter) -> bool:
    """What a filter means, said in Python."""
    return (
        wanted.channel in (None, record.channel)
        and wanted.label in (None, record.labels[0].label)
        and wanted.outcome in (None, record.decision.outcome)
        and (wanted.since is None or record.created_at >= wanted.since)
        and (wanted.until is None or record.created_at < wanted.until)
    )


def test_a_record_comes_back_as_it_was_added(database: Database) -> None:
    """Every field, with microseconds and with letters of any script."""
    record = make_record()
    add(database, record)
    with database.reading() as tx:
        assert record == PredictionRepository(tx).get(record.id)


def test_a_record_without_its_optional_parts_comes_back_as_it_was_added(database: Database) -> None:
    """No threshold decided, nothing was kept."""
    plain = Decision(outcome=Outcome.ACCEPT, policy_version="0123456789ab")
    record = make_record(decision=plain, keep=Keep.NOTHING, image_key=None)
    add(database, record)
    with database.reading() as tx:
        assert record == PredictionRepository(tx).get(record.id)


def test_a_time_in_another_zone_is_the_same_moment(database: Database) -> None:
    """It comes back in UTC."""
    there = NOON.astimezone(timezone(timedelta(hours=9)))
    record = make_record(created_at=there)
    add(database, record)
    with database.reading() as tx:
        found = PredictionRepository(tx).get(record.id).created_at
    assert (NOON, UTC) == (found, found.tzinfo)


def test_an_unknown_id_is_an_error(database: Database) -> None:
    """With the id in the sentence."""
    with pytest.raises(PredictionNotFound, match="01nothing"), database.reading() as tx:
        PredictionRepository(tx).get("01nothing")


def test_adding_no_records_is_harmless(database: Database) -> None:
    """An empty group writes nothing."""
    add(database)
    with database.reading() as tx:
        assert [] == PredictionRepository(tx).page(EVERYTHING, limit=10)


def test_pages_downwards_show_every_match_once_in_order(database: Database, varied: list[PredictionRecord]) -> None:
    """Newest first, from page to page by the last id, for every combination of filters."""
    for wanted in ALL_FILTERS:
        found: list[PredictionRecord] = []
        with database.reading() as tx:
            while page := PredictionRepository(tx).page(wanted, limit=7, before=found[-1].id if found else None):
                found += page
        assert [record for record in varied if matches(record, wanted)] == found, wanted


def test_pages_upwards_show_the_nearest_newer_ones(database: Database, varied: list[PredictionRecord]) -> None:
    """Each page newest first, from page to page by the first id, for every combination of filters."""
    for wanted in ALL_FILTERS:
        found: list[PredictionRecord] = []
        with database.reading() as tx:
            while page := PredictionRepository(tx).page(wanted, limit=7, after=found[0].id if found else ""):
                found = page + found
        assert [record for record in varied if matches(record, wanted)] == found, wanted


def test_a_stream_gives_every_match(database: Database, varied: list[PredictionRecord]) -> None:
    """In the order of the pages."""
    for wanted in ALL_FILTERS:
        found = list(stream_records(database, wanted))
        assert [record for record in varied if matches(record, wanted)] == found, wanted


def test_a_page_between_two_records_has_the_records_between(database: Database, varied: list[PredictionRecord]) -> None:
    """Both ends are excluded."""
    with database.reading() as tx:
        page = PredictionRepository(tx).page(EVERYTHING, limit=50, before=varied[2].id, after=varied[6].id)
    assert varied[3:6] == page


def test_many_channels_are_all_found(database: Database) -> None:
    """Also when there are too many for one index range each."""
    records = [make_record(number, channel=f"channel {number:03}") for number in range(MOST_CHANNELS + 20)]
    add(database, *records)
    with database.reading() as tx:
        assert records[::-1] == PredictionRepository(tx).page(RecordFilter(label="vase"), limit=1000)


@pytest.mark.parametrize("year", [1, 1969, 9999])
def test_times_that_no_id_can_hold_are_bounds_all_the_same(database: Database, year: int) -> None:
    """Everything is after the past and before the far future."""
    record = make_record()
    add(database, record)
    bound = datetime(year, 1, 1, tzinfo=UTC)
    wanted = RecordFilter(until=bound) if year == 9999 else RecordFilter(since=bound)
    with database.reading() as tx:
        assert [record] == PredictionRepository(tx).page(wanted, limit=2)


def test_labels_are_the_different_best_labels_in_order(database: Database, varied: list[PredictionRecord]) -> None:
    """For the filter's list; at most as many as asked for."""
    with database.reading() as tx:
        assert ["cup", "sofa", "vase"] == PredictionRepository(tx).labels()
        assert ["cup"] == PredictionRepository(tx).labels(limit=1)


def test_an_empty_database_has_no_labels_and_no_channels(database: Database) -> None:
    """And every kind of page is empty."""
    with database.reading() as tx:
        assert ([], []) == (PredictionRepository(tx).labels(), PredictionRepository(tx).channels())
        assert [] == PredictionRepository(tx).page(RecordFilter(outcome=Outcome.REVIEW), limit=5)


def test_a_group_is_added_wholly_or_not_at_all(database: Database) -> None:
    """A double id refuses the group."""
    record = make_record()
    with pytest.raises(RecordRefused, match=r"UNIQUE|unique"):
        add(database, make_record(1), record, record)
    with database.reading() as tx:
        assert [] == PredictionRepository(tx).page(EVERYTHING, limit=5)


def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    """It would be another moment on another machine."""
    with pytest.raises(RecordRefused, match="zone"):
        add(database, make_record(created_at=NOON.replace(tzinfo=None)))


def test_a_label_that_is_no_text_is_a_clear_error(database: Database) -> None:
    """Half a surrogate pair can arrive in JSON and cannot be stored or looked for."""
    add(database, make_record())
    with pytest.raises(RequestInvalid, match="surrogate"), database.reading() as tx:
        PredictionRepository(tx).page(RecordFilter(label="\ud800"), limit=5)


def test_an_error_in_the_block_rolls_back(database: Database) -> None:
    """Whatever raised it."""
    with pytest.raises(ZeroDivisionError), database.transaction() as tx:
        PredictionRepository(tx).add_many([make_record()])
        raise ZeroDivisionError
    with database.reading() as tx:
        assert [] == PredictionRepository(tx).page(EVERYTHING, limit=5)


def test_reading_goes_on_while_somebody_writes(database: Database) -> None:
    """A reader neither waits for an open writer nor sees its rows before the commit."""
    record = make_record()
    with database.transaction() as writing:
        PredictionRepository(writing).add_many([record])
        with database.reading() as tx:
            assert [] == PredictionRepository(tx).page(EVERYTHING, limit=5)
    with database.reading() as tx:
        assert [record] == PredictionRepository(tx).page(EVERYTHING, limit=5)


def test_a_stream_goes_on_while_rows_are_added(database: Database) -> None:
    """It shows what was there when it began, and holds nobody up."""
    old = [make_record(number) for number in range(1200)]
    add(database, *old)
    stream = stream_records(database, EVERYTHING)
    first = next(stream)
    add(database, make_record(5000))
    assert old[::-1] == [first, *stream]


@ONLY_SQLITE
def test_a_slow_stream_does_not_hold_the_log_back(database: Database, database_file: Path) -> None:
    """Between pages it has no view open, so the write-ahead log can be emptied."""
    add(database, *(make_record(number) for number in range(600)))
    stream = stream_records(database, EVERYTHING)
    next(stream)
    add(database, make_record(5000))
    assert (0, 0) == truncate_log(database_file)
    assert 599 == sum(1 for _ in stream)


def truncate_log(path: Path) -> tuple[int, int]:
    """Whether the log was busy, and its pages afterwards."""
    with closing(sqlite3.connect(path)) as connection:
        busy, pages, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return busy, pages


def test_a_stream_takes_bounded_memory(database: Database) -> None:
    """Twice the rows take the same memory: a page of them."""
    peaks = []
    for _ in range(2):
        add(database, *(make_record(number) for number in range(1200)))
        tracemalloc.start()
        count = sum(1 for _ in stream_records(database, EVERYTHING))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert 2400 == count
    assert peaks[1] < 1.3 * peaks[0], peaks


def test_many_threads_read_and_write_at_once(database: Database) -> None:
    """Nothing is lost, nobody fails."""
    failures: list[DatabaseUnavailable] = []

    def work_hard(first: int) -> None:
        try:
            for number in range(first, first + 20):
                add(database, make_record(number))
                with database.reading() as tx:
                    PredictionRepository(tx).page(EVERYTHING, limit=3)
        except DatabaseUnavailable as error:
            failures.append(error)

    threads = [threading.Thread(target=work_hard, args=(first * 100,)) for first in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as tx:
        assert ([], 120) == (failures, len(PredictionRepository(tx).page(EVERYTHING, limit=1000)))


def test_a_renamed_record_is_another_record() -> None:
    """The test data does not hide differences."""
    record = make_record()
    assert record != replace(record, channel="reviews")
