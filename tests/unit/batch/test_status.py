"""The status of a channel: sentences, JSON and metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from shoplens.batch.entities import ItemState
from shoplens.batch.presenting import status_sentences
from shoplens.batch.process import this_process
from shoplens.batch.run_repository import RunRepository
from shoplens.batch.status import OwnerState, ReadStatus, RunStatus, StatusMetrics, as_json
from shoplens.db import Database
from shoplens.errors import DatabaseUnavailable
from shoplens.telemetry.metrics import Metrics
from tests.unit.batch.batch_house import House, make_run, now, open_house


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """An empty one."""
    return open_house(database, tmp_path)


@pytest.fixture
def show(house: House) -> Callable[..., RunStatus]:
    """Reads it, some seconds from now."""

    def read(*, in_s: float = 0.0) -> RunStatus:
        return ReadStatus(house.database, clock=lambda: now() + timedelta(seconds=in_s), takeover_s=15)("returns")

    return read


def test_before_the_first_run_only_waiting_items_are_known(house: House, show: Callable[..., RunStatus]) -> None:
    """The status says so."""
    house.bring("shirt 0.9")
    assert ["No runs yet. 1 item waits."] == list(status_sentences(show()))
    assert {"waiting": 1, "run": None} == as_json(show())


async def test_after_a_run_its_counts_are_shown(house: House, show: Callable[..., RunStatus]) -> None:
    """With the mean time of a photo, and nothing left to do."""
    house.bring("shirt 0.9", "coat 0.5", "!ImageCorrupt -")
    run = await house.work()
    status = show()
    assert (0, 3, OwnerState.NOBODY, 0.003) == (
        status.left, status.counts.settled, status.owner, status.seconds_per_item,
    )  # fmt: skip
    output = " ".join(status_sentences(status))
    assert f"Run {run.id}: finished." in output
    assert "1 done, 1 needs review, 1 quarantined" in output


def test_the_owner_of_a_run_is_shown(house: House, show: Callable[..., RunStatus]) -> None:
    """Alive, silent for too long, ended, or none."""
    run = make_run(house)
    assert OwnerState.NOBODY is show().owner
    with house.database.transaction() as tx:
        RunRepository(tx).take_over(run, this_process(0), now=now())
    assert (OwnerState.ALIVE, OwnerState.SILENT) == (show().owner, show(in_s=16).owner)
    assert "no heartbeat" in next(status_sentences(show(in_s=16)))
    with house.database.transaction() as tx:
        run = RunRepository(tx).get(run.id)
        machine, _, _ = (run.process or "").rpartition("/")
        RunRepository(tx).take_over(run, replace(this_process(0), process=f"{machine}/1"), now=now())
    assert OwnerState.GONE is show().owner
    assert "has ended" in next(status_sentences(show()))


def test_a_stall_and_an_interruption_are_shown(house: House, show: Callable[..., RunStatus]) -> None:
    """In capitals, and with the reason."""
    run, me = make_run(house), this_process(0)
    with house.database.transaction() as tx:
        RunRepository(tx).take_over(run, me, now=now())
        RunRepository(tx).beat(run.id, owner=me.id, now=now(), finished_item=True, stalled=True)
    assert "STALLED" in next(status_sentences(show()))
    with house.database.transaction() as tx:
        RunRepository(tx).interrupt(run.id, owner=me.id, reason="the disk is full")
    assert "the disk is full" in " ".join(status_sentences(show()))


def test_a_clock_that_was_set_back_shows_nothing_in_the_future(house: House, show: Callable[..., RunStatus]) -> None:
    """No negative ages."""
    run, me = make_run(house), this_process(0)
    with house.database.transaction() as tx:
        RunRepository(tx).take_over(run, me, now=now())
        RunRepository(tx).beat(run.id, owner=me.id, now=now(), finished_item=True)
    assert 0.0 == show(in_s=-3600).last_item_ago_s


async def test_the_metrics_show_what_the_database_says(house: House, show: Callable[..., RunStatus]) -> None:
    """At the scrape."""
    house.bring("shirt 0.9", "coat 0.5")
    await house.work()
    house.bring("shirt 0.9")
    metrics = Metrics()
    metrics.before_scrape(StatusMetrics(lambda: {"returns": show()}, metrics))
    shown = metrics.exposition().decode()
    for line in (
        "shoplens_batch_readable 1.0",
        'shoplens_batch_waiting{channel="returns"} 1.0',
        'shoplens_batch_run_active{channel="returns"} 0.0',
        'shoplens_batch_run_planned{channel="returns"} 2.0',
        'shoplens_batch_run_items{channel="returns",state="done"} 1.0',
        'shoplens_batch_run_items{channel="returns",state="needs_review"} 1.0',
        'shoplens_batch_item_seconds{channel="returns"} 0.003',
        'shoplens_batch_run_items{channel="returns",state="duplicate"} 0.0',
    ):
        assert line in shown
    for zero in (
        'shoplens_batch_last_timestamp_seconds{channel="returns",what="item"} 0.0',
        'shoplens_batch_run_seconds{channel="returns"} 0.0',
        'shoplens_batch_run_items_per_second{channel="returns"} 0.0',
    ):
        assert f"{zero}\n" not in shown
        assert zero.removesuffix(" 0.0") in shown


def test_frequent_scrapes_share_a_reading() -> None:
    """One reading serves for five seconds."""
    time, reads, metrics = [0.0], [0], Metrics()

    def read() -> dict[str, RunStatus]:
        reads[0] += 1
        return {"returns": RunStatus(waiting=reads[0])}

    metrics.before_scrape(StatusMetrics(read, metrics, monotonic=lambda: time[0]))
    seen = []
    for seconds in (0, 1, 3, 2, 1):
        time[0] += seconds
        metrics.exposition()
        seen.append(reads[0])
    assert [1, 1, 1, 2, 2] == seen


def test_a_database_that_hangs_does_not_hold_up_a_scrape() -> None:
    """The last figures stay, and the reading that hangs is not asked again."""
    hang, reads, metrics = threading.Event(), [0], Metrics()

    def read() -> dict[str, RunStatus]:
        reads[0] += 1
        hang.wait(60)
        return {"returns": RunStatus(waiting=7)}

    metrics.before_scrape(StatusMetrics(read, metrics))
    for _ in range(2):
        assert "shoplens_batch_waiting{" not in metrics.exposition().decode()
    hang.set()
    while 'shoplens_batch_waiting{channel="returns"} 7.0' not in metrics.exposition().decode():
        assert 1 == reads[0]


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), KeyError("a bug")])
def test_a_database_that_fails_leaves_the_other_metrics(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """One metric says that the status is unknown. Only a bug is logged with its traceback."""
    metrics = Metrics()

    def read() -> dict[str, RunStatus]:
        raise error

    metrics.before_scrape(StatusMetrics(read, metrics))
    shown = metrics.exposition().decode()
    assert "shoplens_batch_readable 0.0" in shown
    assert "shoplens_queue_length" in shown
    (logged,) = (record.msg for record in caplog.records if "batch.status_unknown" in str(record.msg))
    assert isinstance(logged, dict)
    assert isinstance(error, KeyError) is (logged["exc_info"] is not None)


def test_every_state_is_named_for_programs(house: House, show: Callable[..., RunStatus]) -> None:
    """Also states without items."""
    make_run(house)
    run = as_json(show())["run"]
    assert isinstance(run, dict)
    assert {state.value for state in ItemState} == set(run["counts"])
