"""The parts of a run: results, retries, progress, heartbeats, the memory budget, moves of photos."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from shoplens.batch.entities import BatchItem, BatchRun, ItemState, RunState
from shoplens.batch.executors import Executor, MemoryBudget, ProcessedItem, ResultBuilder, RetryPolicy
from shoplens.batch.files import Move, Moved, PhotoMover, finish_move, finish_moves
from shoplens.batch.owned_run import OwnedRun
from shoplens.batch.process import claim, request_run, this_process
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.batch.runner import RunRules
from shoplens.batch.status import ProgressMeter
from shoplens.db import Database
from shoplens.errors import (
    DatabaseUnavailable,
    ImageCorrupt,
    ImageDecoderFailed,
    ImageGone,
    Misconfigured,
    NothingWaiting,
    NoWorker,
    RecordRefused,
    RunInProgress,
    RunLost,
    ShoplensError,
    StorageUnavailable,
)
from tests.relabel import relabel
from tests.unit.batch.batch_house import CHANNEL, RULES, House, ScriptedEngine, make_run, now, open_house

ITEM = BatchItem(
        channel="returns",
    id="i" * 26, received_at=now(), source_name="a.jpg", sha256="0" * 64, byte_count=1, state=ItemState.PROCESSING,
    key="returns/incoming/a.jpg",
)  # fmt: skip


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """A database and a store without items."""
    return open_house(database, tmp_path)


@pytest.mark.parametrize(
    ("error", "attempts", "state"),
    [
        (ImageCorrupt("x"), 0, ItemState.QUARANTINED),
        (ImageGone("x"), 0, ItemState.QUARANTINED),
        (ImageDecoderFailed("x"), 0, ItemState.WAITING),
        (ImageDecoderFailed("x"), 1, ItemState.WAITING),
        (ImageDecoderFailed("x"), 2, ItemState.QUARANTINED),
        (StorageUnavailable("x"), 0, ItemState.WAITING),
    ],
)
def test_a_failure_is_final_or_may_pass(house: House, error: ShoplensError, attempts: int, state: ItemState) -> None:
    """A photo that is unusable stays unusable; every other failure gets three attempts."""
    processed = failed(house, replace(ITEM, attempts=attempts), error)
    assert (state, attempts + 1) == (processed.result.state, processed.result.attempts)
    shown = "The photo store is unavailable." if isinstance(error, StorageUnavailable) else "x"
    assert (error.code, shown) == (processed.result.failure_code, processed.result.failure)
    assert processed.completed is (state is ItemState.QUARANTINED)


def test_a_photo_in_quarantine_is_not_moved_there_again(house: House) -> None:
    """Its retry failed."""
    again = failed(house, replace(ITEM, key="returns/quarantine/a.jpg"), ImageCorrupt("x"))
    assert (None, None) == (again.result.target_key, again.move)


def failed(house: House, item: BatchItem, error: ShoplensError) -> ProcessedItem:
    """What a run makes of this error."""
    return ResultBuilder(CHANNEL, house.store, clock=now, max_attempts=3).failed(item, error)


def test_an_unavailable_service_is_retried_until_it_is_back() -> None:
    """With pauses."""
    failures: list[Exception] = [DatabaseUnavailable("x"), StorageUnavailable("y")]

    def act() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert "done" == RetryPolicy(600)(act)


async def test_a_coroutine_is_retried_too() -> None:
    """Under the same policy."""
    failures: list[Exception] = [NoWorker("x")]

    async def act() -> str:
        if failures:
            raise failures.pop()
        return "done"

    assert "done" == await RetryPolicy(600).run(act)


def test_retries_end_after_the_limit_and_when_stopped() -> None:
    """With the last error."""

    def act() -> None:
        raise StorageUnavailable("gone for good")

    with pytest.raises(StorageUnavailable, match="gone for good"):
        RetryPolicy(0.1)(act)
    stopped = RetryPolicy(600)
    threading.Timer(0.1, stopped.stopped.set).start()
    with pytest.raises(StorageUnavailable, match="gone for good"):
        stopped(act)


@pytest.mark.parametrize("error", [RecordRefused("x"), RunLost("x"), ImageCorrupt("x")])
def test_an_error_that_cannot_pass_is_not_retried(error: Exception) -> None:
    """A rejected row, a run of another process, an unusable photo."""
    attempts = []

    def act() -> None:
        attempts.append(1)
        raise error

    with pytest.raises(type(error)):
        RetryPolicy(600)(act)
    assert [1] == attempts


def test_the_speed_is_that_of_the_last_half_minute() -> None:
    """The remaining time follows from the planned items."""
    meter = ProgressMeter("r", planned=1000, before={ItemState.DONE: 100, ItemState.PROCESSING: 7}, now_s=0.0)
    assert (100, None, None) == (
        meter.progress().settled, meter.progress().per_second, meter.progress().seconds_left,
    )  # fmt: skip
    meter.add([ItemState.DONE], now_s=100.0)
    for second in range(101, 161):
        progress = meter.add([ItemState.NEEDS_REVIEW] * 5, now_s=float(second))
    assert 401 == progress.settled
    assert 5.0 == pytest.approx(progress.per_second or 0.0, rel=0.1)
    assert 599 / 5 == pytest.approx(progress.seconds_left or 0.0, rel=0.1)


async def test_a_run_shows_a_heartbeat_and_when_it_is_stalled(house: House) -> None:
    """Also while nothing is committed. The end of a stall is written too."""
    gate = asyncio.Event()
    house.engine = ScriptedEngine(gate)
    house.bring("shirt 0.9")
    rules = RunRules(commit_items=4, takeover_s=0.06, stall_after_s=0.1)
    working = asyncio.create_task(house.work(replace(RULES, run=rules)))
    await house.engine.until_at_work()

    async def until(holds: Callable[[BatchRun], bool]) -> BatchRun:
        while True:
            with house.database.reading() as tx:
                run = RunRepository(tx).active("returns")
            if run and holds(run):
                return run
            await asyncio.sleep(0.01)

    first = await asyncio.wait_for(until(lambda run: run.stalled), 20)
    await asyncio.wait_for(until(lambda run: run.stalled and run.heartbeat > first.heartbeat), 20)
    house.engine.open_gate()
    assert not (await working).stalled


async def test_the_memory_budget_is_given_in_turn_and_to_one_at_least() -> None:
    """One request is let in even if it is larger than the budget."""
    budget, held, most = MemoryBudget(10), Counter[str](), 0

    async def task(count: int) -> None:
        nonlocal most
        async with budget.hold(count):
            held["bytes"] += count
            most = max(most, held["bytes"])
            await asyncio.sleep(0)
            held["bytes"] -= count

    await asyncio.wait_for(asyncio.gather(*(task(count) for count in (3, 4, 5, 6, 100, 1, 9, 2))), 20)
    assert 100 == most
    await asyncio.wait_for(asyncio.gather(*(task(4) for _ in range(20))), 20)
    assert 100 == most


def test_a_missing_photo_is_noted_once(house: House) -> None:
    """Its item keeps its state and gets the failure."""
    (item,) = house.bring("shirt 0.9")
    with house.database.transaction() as tx:
        relabel(tx, item.id, label="coat", target_key="returns/processed/coat/a.jpg", now=now())
    house.store.delete(item.key or "")
    assert (1, 0) == (
        finish_moves(house.database, house.store, "returns"),
        finish_moves(house.database, house.store, "returns"),
    )
    found = house.item(item.id)
    assert ("image_gone", None, ItemState.DONE) == (found.failure_code, found.target_key, found.state)


def test_a_move_of_one_item_is_finished_alone(house: House) -> None:
    """Without an outstanding move nothing is done."""
    first, second = house.bring("shirt 0.9", "shirt 0.9")
    with house.database.transaction() as tx:
        for item in (first, second):
            relabel(tx, item.id, label="coat", target_key=f"returns/processed/coat/{item.id}", now=now())
    moved = finish_move(house.database, house.store, first.id)
    assert (f"returns/processed/coat/{first.id}", None) == (moved.key, moved.target_key)
    assert moved == finish_move(house.database, house.store, first.id)
    assert house.item(second.id).target_key is not None


def test_a_move_is_noted_only_while_the_row_names_its_target(house: House) -> None:
    """A slow move cannot undo a correction."""
    (item,) = house.bring("shirt 0.9")
    with house.database.transaction() as tx:
        relabel(tx, item.id, label="coat", target_key="returns/processed/coat/a", now=now())
        ItemRepository(tx).moved([(item.id, "returns/processed/hat/a")])
        ItemRepository(tx).lost([(item.id, "returns/processed/hat/a")], code="image_gone", failure="x")
    assert ("returns/processed/coat/a", None) == (house.item(item.id).target_key, house.item(item.id).failure_code)


def test_many_photos_are_moved_in_parallel(house: House) -> None:
    """Missing photos are listed apart."""
    items = house.bring(*["shirt 0.9"] * 70)
    house.store.delete(items[33].key or "")
    movers = PhotoMover(house.store)
    moved = movers([Move(item_id=each.id, source=each.key or "", target=f"moved/{each.id}") for each in items])
    movers.close()
    assert (69, [(items[33].id, f"moved/{items[33].id}")]) == (len(moved.arrived), list(moved.missing))
    assert {f"moved/{item.id}" for item in items} - {f"moved/{items[33].id}"} == set(house.store.list("moved"))


def test_a_run_is_requested_once(house: House) -> None:
    """Over the items that wait at that time. Of several callers one gets it."""
    house.bring("shirt 0.9", "shirt 0.9")

    def attempt(name: str) -> BatchRun | None:
        try:
            return request_run(house.database, "returns", name, clock=now)
        except RunInProgress:
            return None

    with ThreadPoolExecutor(4) as threads:
        (run,) = [each for each in threads.map(attempt, ["the timer", "a person", "a program", "cron"]) if each]
    assert (2, 2, True) == (run.bound, run.planned, run.active)
    with house.database.reading() as tx:
        assert [run] == RunRepository(tx).page("returns", limit=10)


def test_an_empty_commit_is_a_heartbeat_that_finishes_nothing(house: House) -> None:
    """The time of the last item stays."""
    run = claim(house.database, make_run(house), this_process(0), takeover_s=1.0, clock=now)
    results = ResultBuilder(CHANNEL, house.store, clock=now, max_attempts=3)
    OwnedRun(house.database, run, results=results, clock=now).commit((), Moved())
    with house.database.reading() as tx:
        after = RunRepository(tx).get(run.id)
    assert (run.heartbeat + 1, None) == (after.heartbeat, after.last_item_at)


async def test_a_start_that_is_refused_leaves_no_run(house: House) -> None:
    """A setting of the engine that is missing: nothing hides the last run, and the next start is free."""
    house.bring("shirt 0.9")

    def refuse() -> Executor:
        raise Misconfigured("set redis_url")

    with pytest.raises(Misconfigured):
        await house.runner(open_executor=refuse).run(requested_by="test")
    with house.database.reading() as tx:
        assert [] == RunRepository(tx).page("returns", limit=9)
    assert ItemState.WAITING is house.items()[0].state
    assert RunState.FINISHED is (await house.work()).state


async def test_a_refused_start_leaves_a_run_that_another_had_requested(house: House) -> None:
    """It says why, without what only operators may read, and the next start works on it."""
    house.bring("shirt 0.9")
    run = request_run(house.database, "returns", "http", clock=now)

    def refuse() -> Executor:
        raise Misconfigured("set redis_url")

    with pytest.raises(Misconfigured):
        await house.runner(open_executor=refuse).run(requested_by="test", run_id=run.id)
    with house.database.reading() as tx:
        assert "The server lacks a setting for this (misconfigured). The log has the details." == (
            RunRepository(tx).get(run.id).failure
        )
    assert run.id == (await house.work()).id


async def test_without_waiting_items_a_start_makes_no_run(house: House) -> None:
    """It says so, and the last run stays the last."""
    house.bring("shirt 0.9")
    last = await house.work()
    with pytest.raises(NothingWaiting):
        await house.work()
    with house.database.reading() as tx:
        assert [last.id] == [run.id for run in RunRepository(tx).page("returns", limit=9)]
