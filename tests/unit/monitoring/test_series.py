"""The time series in the database: minutes, hours and days, of several processes, with gaps."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from shoplens.db import Database
from shoplens.errors import DatabaseUnavailable, DeadlineExceeded, EngineStuck, ImageCorrupt
from shoplens.monitoring.series.counters import read_counts
from shoplens.monitoring.series.day_repository import DayRepository
from shoplens.monitoring.series.entities import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    NOTHING,
    SERVER,
    Counts,
    DayCounts,
    MinuteReading,
    SeriesKey,
    ServerState,
    StepState,
    quantile,
    total,
)
from shoplens.monitoring.series.recorder import Kept, Recorder
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.policy import Decision, Outcome
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.telemetry.metrics import LATENCY_BUCKETS_S, Metrics, kind_of
from tests.samples import id_at, make_record, make_remark

START = datetime(2026, 5, 4, 10, 0, tzinfo=UTC)
START_S = int(START.timestamp())
RETURNS = SeriesKey("returns", "clothing")
LOOK = SeriesKey("look", "efficientnet")


def counts(answered: int, *, bucket: int = 3, **other: int) -> Counts:
    """Answers, all of them in one bucket of latency."""
    latency = [0] * (len(LATENCY_BUCKETS_S) + 1)
    latency[bucket] = answered
    return Counts(answered=answered, accepted=answered, latency_sum_s=answered * 0.015, latency=tuple(latency), **other)


def reading(minute: int, of: dict[SeriesKey, Counts] | None = None, **state: int) -> MinuteReading:
    """What was seen in a minute after the start."""
    return MinuteReading(begins_s=START_S + MINUTE_S * minute, counts=of or {}, state=ServerState(**state))


def add(database: Database, *readings: MinuteReading) -> None:
    """As one process does."""
    with database.transaction() as tx:
        SeriesRepository(tx).add(readings)


def totals(database: Database, step_s: int, bucket_s: int | None = None) -> dict[int, Counts]:
    """All that is stored in steps of this length."""
    with database.reading() as tx:
        return SeriesRepository(tx).totals(
            step_s=step_s, bucket_s=bucket_s or step_s, since_s=0, until_s=START_S + 30 * DAY_S
        )


def states(database: Database, step_s: int) -> dict[int, StepState]:
    """All states in steps of this length."""
    with database.reading() as tx:
        return SeriesRepository(tx).states(step_s=step_s, bucket_s=step_s, since_s=0, until_s=START_S + 30 * DAY_S)


def test_minutes_add_up_to_hours_and_days(database: Database) -> None:
    """Each step is the sum of its minutes, latencies included."""
    add(database, reading(59, {RETURNS: counts(3)}), reading(60, {RETURNS: counts(4, refused=1), LOOK: counts(1)}))
    assert {START_S + 59 * 60: counts(3), START_S + 3600: counts(5, refused=1)} == totals(database, MINUTE_S)
    assert {START_S: counts(3), START_S + HOUR_S: counts(5, refused=1)} == totals(database, HOUR_S)
    assert {START_S // DAY_S * DAY_S: counts(8, refused=1)} == totals(database, DAY_S)
    assert 8 == totals(database, MINUTE_S, DAY_S)[START_S // DAY_S * DAY_S].latency[3]


def test_several_processes_add_to_the_same_minute(database: Database) -> None:
    """None overwrites another, and a minute is watched once however many watched it."""
    readings = [reading(minute, {RETURNS: counts(1)}, queue=minute) for minute in (0, 1)]
    threads = [threading.Thread(target=add, args=(database, *order)) for order in (readings, readings[::-1]) * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [6, 6] == [each.answered for each in totals(database, MINUTE_S).values()]
    assert {START_S: StepState(watched=2, state=ServerState(queue=1))} == states(database, HOUR_S)


def test_a_state_is_the_worst_of_its_step(database: Database) -> None:
    """The longest queue, the fewest workers, the least room; what one process does not know another may."""
    add(database, reading(0, queue=3, workers=2, disk_free_bytes=10), reading(1, queue=1, workers=4, disk_free_bytes=9))
    add(database, reading(1, storage_bytes=5 << 40))
    worst = ServerState(queue=3, workers=2, disk_free_bytes=9, storage_bytes=5 << 40)
    assert {START_S: StepState(watched=2, state=worst)} == states(database, HOUR_S)


def test_nothing_asked_for_differs_from_nobody_looked(database: Database) -> None:
    """The first has a state and no counts; the second has neither."""
    add(database, reading(0), reading(2, {RETURNS: counts(1)}))
    assert [START_S + 120] == list(totals(database, MINUTE_S))
    assert [START_S, START_S + 120] == sorted(states(database, MINUTE_S))


def test_one_channel_and_one_model_are_read_alone(database: Database) -> None:
    """All channels together leave out the requests of the whole server, which are counted, too."""
    other = SeriesKey("returns", "clothing-2")
    server = SeriesKey(SERVER)
    add(database, reading(0, {RETURNS: counts(1), other: counts(2), LOOK: counts(4), server: counts(50)}))
    with database.reading() as tx:
        repository = SeriesRepository(tx)
        wanted = {"step_s": HOUR_S, "since_s": START_S, "until_s": START_S + 1}
        found = [
            repository.totals(bucket_s=HOUR_S, key=key, **wanted)[START_S].answered
            for key in (SeriesKey("returns"), other, SeriesKey(SERVER))
        ]
        assert [3, 2, 7] == found
        assert {server: 50, LOOK: 4, RETURNS: 1, other: 2} == {
            key: each.answered for key, each in repository.by_series(**wanted).items()
        }


def test_the_newest_steps_are_kept_by_count(database: Database) -> None:
    """A clock that was years ahead for a minute costs one of them, and not the series."""
    far = MinuteReading(begins_s=START_S + 3_650 * DAY_S, counts={RETURNS: counts(1)}, state=ServerState())
    add(database, *(reading(minute, {RETURNS: counts(1)}) for minute in range(6)), far)
    with database.transaction() as tx:
        assert 3 == SeriesRepository(tx).prune(MINUTE_S, keep=4)
        assert 0 == SeriesRepository(tx).prune(HOUR_S, keep=4)
    assert [START_S + 60 * minute for minute in (3, 4, 5)] == sorted(totals(database, MINUTE_S))


def test_a_day_counts_its_records_and_the_answers_of_people(database: Database) -> None:
    """By the day of the answer, whatever the day of the record; a photo that is not usable says nothing."""
    today = datetime(2026, 5, 4, tzinfo=UTC)
    before = today - timedelta(minutes=1)
    old = make_record(channel="returns", id=id_at(before), created_at=before)
    review = Decision(outcome=Outcome.REVIEW, policy_version="0123456789ab")
    records = [
        old,
        make_record(1, channel="returns"),
        make_record(2, channel="returns", decision=review),
        make_record(3),
    ]
    verdicts = (FeedbackValue.RIGHT, FeedbackValue.WRONG, FeedbackValue.NONE, FeedbackValue.UNUSABLE)
    with database.transaction() as tx:
        PredictionRepository(tx).add_many(records)
        for verdict in verdicts:
            FeedbackRepository(tx).add(make_remark(old.id, verdict=verdict))
        FeedbackRepository(tx).add(make_remark(records[1].id, withdrawn_at=today))
    day = int(today.timestamp())
    with database.transaction() as tx:
        days = DayRepository(tx)
        days.replace(day, days.count(day), now=today)
        days.replace(day, days.count(day), now=today)
        assert [
            DayCounts(begins_s=day, channel="look", predictions=1, accepted=1),
            DayCounts(
                begins_s=day, channel="returns", predictions=2, accepted=1, to_review=1, confirmed=1, corrected=2
            ),
        ] == days.between(day, day + 1)
        assert [1] == [each.predictions for each in days.count(day - DAY_S)]


def test_percentiles_lie_within_their_bucket() -> None:
    """Half of a hundred answers of 10 to 20 ms took up to 15 ms; slower than the last bound counts as that bound."""
    assert 0.015 == pytest.approx(quantile(counts(100).latency, 0.5))
    assert 0.0199 == pytest.approx(quantile(counts(100).latency, 0.99))
    assert (None, 10.0) == (quantile(NOTHING.latency, 0.5), quantile(counts(1, bucket=15).latency, 0.5))


def test_percentiles_of_merged_steps_are_those_of_all_their_answers() -> None:
    """A mean of percentiles would be wrong: one slow hour among quick ones."""
    merged = total([counts(90), counts(10, bucket=9)])
    assert 0.02 == pytest.approx(merged.latency_s(0.9))
    assert 0.2 < (merged.latency_s(0.99) or 0) <= 0.3


def test_a_failure_is_of_the_sample_of_the_load_or_of_shoplens() -> None:
    """What an operator looks at first differs."""
    errors = (ImageCorrupt("x"), DeadlineExceeded("x"), EngineStuck("x"), DatabaseUnavailable("x"), ValueError("x"))
    assert ["refused", "busy", "failed", "failed", "failed"] == [kind_of(each) for each in errors]


class _Process:
    """A process with its metrics and a clock that the test sets."""

    def __init__(self, database: Database) -> None:
        self.metrics = Metrics()
        self.now = START
        self.recorder = Recorder(self.metrics, database, look=ServerState, kept=Kept(), clock=lambda: self.now)

    def answer(self, channel: str = "returns") -> None:
        """One request, as the service counts it."""
        with self.metrics.request_of(channel, "clothing"):
            pass
        self.metrics.channel_predictions.labels(channel, "clothing", "review").inc()

    def record(self) -> None:
        """The end of a minute."""
        self.recorder.record(int(self.now.timestamp()))


def test_a_minute_has_what_was_counted_in_it(database: Database) -> None:
    """And not what the process counted before."""
    process = _Process(database)
    process.answer()
    process.record()
    process.now += timedelta(minutes=1)
    process.answer()
    process.answer()
    with pytest.raises(ImageCorrupt), process.metrics.request_of("returns", "clothing"):
        raise ImageCorrupt("x")
    process.record()
    process.record()
    first, second = totals(database, MINUTE_S).values()
    assert (1, 1, 0) == (first.answered, first.to_review, first.refused)
    assert (2, 2, 1) == (second.answered, second.to_review, second.refused)
    assert 3 == second.requests


def test_a_clock_that_jumps_back_loses_and_doubles_nothing(database: Database) -> None:
    """The counts are differences of counters, so only the minute that they are written to moves."""
    process = _Process(database)
    for step in (timedelta(), timedelta(hours=2), timedelta(days=-1), timedelta(minutes=1)):
        process.now += step
        process.answer()
        process.record()
    assert 4 == total(totals(database, DAY_S).values()).answered
    assert [1, 1, 1, 1] == [each.answered for each in totals(database, MINUTE_S).values()]


def test_minutes_wait_while_the_database_is_away(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They are written to the minutes that they belong to, and the fault is logged once."""
    process = _Process(database)
    with monkeypatch.context() as away:
        away.setattr(database, "transaction", _refuse)
        for _ in range(2):
            process.answer()
            process.record()
            process.now += timedelta(minutes=1)
    process.record()
    assert {START_S: 1, START_S + 60: 1} == {at: each.answered for at, each in totals(database, MINUTE_S).items()}
    assert [START_S + 60 * minute for minute in range(3)] == sorted(states(database, MINUTE_S))
    assert 1 == caplog.text.count("monitoring.not_recorded")


def _refuse() -> None:
    raise DatabaseUnavailable("gone")


def test_requests_of_people_and_programs_are_counted_without_the_checks_of_machines() -> None:
    """Probes ask every few seconds."""
    metrics = Metrics()
    for route, status in (("/predict", "200"), ("/predict", "429"), ("/predict", "503"), ("/health/ready", "200")):
        metrics.http_requests.labels(route, status).inc()
    assert {SeriesKey(SERVER): Counts(answered=1, busy=1, failed=1)} == read_counts(metrics)


def test_older_records_are_counted_when_monitoring_begins(database: Database) -> None:
    """So volumes and the share that needed a person are there at once."""
    process = _Process(database)
    old = START - timedelta(days=5)
    with database.transaction() as tx:
        PredictionRepository(tx).add_many([make_record(id=id_at(old), created_at=old), make_record()])
    process.recorder.keep_house()
    with database.reading() as tx:
        found = DayRepository(tx).between(0, START_S + DAY_S)
    today = START_S // DAY_S
    assert [(today - 5, 1), (today, 1)] == [(each.begins_s // DAY_S, each.predictions) for each in found]
