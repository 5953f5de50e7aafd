"""Runs from end to end, with everything real but the model: results, retries, failures of store and database."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import select

from shoplens.batch.entities import ItemState, RunState
from shoplens.batch.executors import RetryPolicy
from shoplens.batch.files import Move, PhotoMover, finish_moves
from shoplens.batch.process import WatchTime, this_process
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.batch.status import RunProgress
from shoplens.batch.tables import batch_runs
from shoplens.db import Database, open_database
from shoplens.errors import (
    DatabaseUnavailable,
    EngineStopped,
    ImageCorrupt,
    NothingWaiting,
    RunInProgress,
    RunLost,
    StorageUnavailable,
)
from shoplens.predictions.repository import PredictionRepository
from shoplens.serving.engine import ClassifyRequest, ClassifyResult
from tests.conftest import colourful, jpeg_of
from tests.relabel import relabel
from tests.unit.batch.batch_house import (
    CHANNEL,
    RULES,
    House,
    MoodyStore,
    ScriptedEngine,
    away,
    make_run,
    now,
    open_house,
)
from tests.unit.db.blocker import Blocker

T = TypeVar("T")


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """A database and a store without items."""
    return open_house(database, tmp_path)


async def test_each_photo_is_moved_to_its_place(house: House) -> None:
    """By label if accepted, apart if it needs review, in quarantine if it is no photo."""
    sure, unsure, bad = house.bring("shirt 0.9", "coat 0.5", "!ImageCorrupt -")
    run = await house.work()
    assert ["processed/shirt", "needs_review/coat", "quarantine"] == [
        (house.item(each.id).key or "").removeprefix("returns/").rpartition("/")[0] for each in (sure, unsure, bad)
    ]
    assert (RunState.FINISHED, 3, "script@1.0.0") == (run.state, run.planned, str(run.model))
    assert [] == house.faults()


async def test_an_item_keeps_its_prediction(house: House) -> None:
    """Label, score, time and record are committed with the state."""
    (item,) = house.bring("shirt 0.9")
    await house.work()
    found = house.item(item.id)
    (record,) = house.records()
    assert ("shirt", "shirt", 0.9, record.id, 1, 3.0) == (
        found.predicted, found.label, found.score, found.prediction_id, found.attempts, found.work_ms,
    )  # fmt: skip
    assert ("returns", item.sha256, found.key) == (record.channel, record.image.sha256, record.image_key)


async def test_a_run_whose_items_went_meanwhile_finishes(house: House) -> None:
    """With a report."""
    requested = make_run(house)
    run = await house.work()
    assert (requested.id, RunState.FINISHED, 0, [run.id]) == (run.id, run.state, run.planned, house.reports)


async def test_many_items_are_processed_within_bounds(house: House) -> None:
    """At most the allowed number of photos is in memory, and the engine is closed at the end."""
    house.bring(*["shirt 0.9", "coat 0.5", "!ImageUnsupported -"] * 40)
    await house.work()
    assert Counter(done=40, needs_review=40, quarantined=40) == Counter(
        state.value for state in house.states().elements()
    )
    assert (True, True) == (house.engine.most_at_once <= RULES.photos, house.engine.closed)
    assert [] == house.faults()


async def test_large_photos_take_turns(house: House) -> None:
    """The bytes in memory are bounded too; one photo is let in even if it is larger."""
    house.bring(*["shirt 0.9"] * 10)
    await house.work(replace(RULES, photo_bytes=1))
    assert (1, Counter({ItemState.DONE: 10})) == (house.engine.most_at_once, house.states())


@pytest.mark.parametrize("name", ["ImageCorrupt", "ImageTooLarge", "ImageTooManyPixels", "ImageUnsupported"])
async def test_an_unusable_photo_is_quarantined_at_once(house: House, name: str) -> None:
    """With its reason and error code."""
    (item,) = house.bring(f"!{name} -")
    await house.work()
    found = house.item(item.id)
    assert (ItemState.QUARANTINED, 1, f"It is {name}.") == (found.state, found.attempts, found.failure)
    assert (found.failure_code or "").startswith("image_")
    assert [] == house.faults()


@pytest.mark.parametrize("name", ["ImageDecoderFailed", "DeadlineExceeded", "ShoplensError", "SomeFault"])
async def test_a_failure_that_may_pass_is_retried_and_then_quarantined(house: House, name: str) -> None:
    """After `max_attempts`, in the same run."""
    (item,) = house.bring(f"!{name} -")
    await house.work(replace(RULES, photos=4))
    found = house.item(item.id)
    assert (ItemState.QUARANTINED, 3, 3) == (found.state, found.attempts, house.engine.seen[item.sha256])
    assert [] == house.faults()


async def test_a_failure_that_passes_leaves_no_trace(house: House) -> None:
    """The second attempt counts; the other items are not held up."""
    first, *_ = house.bring("!OnceImageDecoderFailed -", *["coat 0.9"] * 5)
    await house.work()
    found = house.item(first.id)
    assert (ItemState.DONE, 2, None, None) == (found.state, found.attempts, found.failure_code, found.failure)
    assert [] == house.faults()


class SlowEmptyLeases(RetryPolicy):
    """Delays the answer of a lease that found nothing, so that a commit comes between."""

    def __call__(self, act: Callable[[], T]) -> T:
        """See RetryPolicy."""
        found = super().__call__(act)
        if found == []:
            time.sleep(0.2)
        return found


async def test_a_run_does_not_end_while_an_item_waits_for_its_next_attempt(house: House) -> None:
    """Even if the item was in work when nothing else waited."""
    (item,) = house.bring("!OnceImageDecoderFailed -")
    run = await house.runner(retry=SlowEmptyLeases(30.0)).run(requested_by="test")
    assert (RunState.FINISHED, ItemState.DONE, 2) == (
        run.state,
        house.item(item.id).state,
        house.item(item.id).attempts,
    )


async def test_a_full_queue_is_no_attempt(house: House) -> None:
    """The item is sent again."""
    (item,) = house.bring("!OnceQueueFull -")
    await house.work()
    assert (ItemState.DONE, 1) == (house.item(item.id).state, house.item(item.id).attempts)


async def test_a_missing_photo_is_quarantined(house: House) -> None:
    """With the reason; nothing is moved."""
    gone, there = house.bring("shirt 0.9", "shirt 0.9")
    house.store.delete(gone.key or "")
    await house.work()
    found = house.item(gone.id)
    assert (ItemState.QUARANTINED, "image_gone", None) == (found.state, found.failure_code, found.target_key)
    assert ItemState.DONE is house.item(there.id).state


async def test_a_photo_that_changed_in_the_store_is_quarantined_and_not_classified(house: House) -> None:
    """After a write by another program or damage on the disk, the prediction would be of another photo."""
    changed, kept = house.bring("shirt 0.9", "shirt 0.9")
    house.store.delete(changed.key or "")
    house.store.put(changed.key or "", b"coat 0.9 of somebody else")
    await house.work()
    found = house.item(changed.id)
    assert (ItemState.QUARANTINED, "image_changed", None, 1) == (
        found.state, found.failure_code, found.prediction_id, found.attempts,
    )  # fmt: skip
    assert "Put the original back from a backup" in (found.failure or "")
    assert (ItemState.DONE, 1) == (house.item(kept.id).state, sum(house.engine.seen.values()))


async def test_one_photo_that_the_store_cannot_read_is_quarantined_alone(house: House) -> None:
    """The store itself answers, so the run does not wait for it."""
    bad, good = house.bring("shirt 0.9", "shirt 0.9")

    def refuse(verb: str, key: str) -> Exception | None:
        return StorageUnavailable("bad sector") if (verb, key) == ("get", bad.key) else None

    await house.work(store=MoodyStore(house.store, refuse))
    assert (ItemState.QUARANTINED, "storage_unavailable") == (house.item(bad.id).state, house.item(bad.id).failure_code)
    assert ItemState.DONE is house.item(good.id).state
    assert [] == house.faults()


@pytest.mark.parametrize("verbs", [("get", "check"), ("move",)])
async def test_a_run_waits_for_a_store_that_is_unavailable_for_a_while(house: House, verbs: tuple[str, ...]) -> None:
    """It is no attempt of any item."""
    house.bring(*["shirt 0.9"] * 6)
    await house.work(store=MoodyStore(house.store, away(4, *verbs)))
    assert [1] * 6 == [item.attempts for item in house.items()]
    assert (Counter({ItemState.DONE: 6}), []) == (house.states(), house.faults())


async def test_a_store_that_stays_unavailable_ends_the_process_and_the_next_resumes(house: House) -> None:
    """No item is quarantined; the run stays active with the reason."""
    house.bring(*["shirt 0.9"] * 6)
    with pytest.raises(StorageUnavailable):
        await house.work(replace(RULES, retry_s=0.0), store=MoodyStore(house.store, away(10_000, "get", "check")))
    with house.database.reading() as tx:
        left = RunRepository(tx).active("returns")
    assert left is not None
    assert (None, True) == (left.owner, "storage_unavailable" in (left.failure or ""))
    assert Counter({ItemState.WAITING: 6}) == house.states()
    run = await house.work()
    assert (left.id, RunState.FINISHED, []) == (run.id, run.state, house.faults())


async def test_a_run_waits_for_a_database_that_is_locked_for_a_while(house: House, database_url: str) -> None:
    """Another process holds the lock for longer than a writer waits."""
    impatient = open_database(database_url, busy_timeout_s=0.01)
    locked = replace(house, database=impatient, engine=ScriptedEngine(asyncio.Event()))
    locked.bring(*["shirt 0.9"] * 9)
    blocker = Blocker(database_url)
    ended = asyncio.create_task(locked.work())
    await locked.engine.until_at_work()
    blocker.block()
    locked.engine.open_gate()
    threading.Timer(0.5, blocker.release).start()
    run = await ended
    blocker.close()
    assert (RunState.FINISHED, Counter({ItemState.DONE: 9}), []) == (run.state, locked.states(), locked.faults())
    assert {1} == set(locked.engine.seen.values())
    impatient.close()


async def test_a_database_that_stays_locked_ends_the_process_and_the_next_resumes(
    house: House, database_url: str
) -> None:
    """What was not committed is processed again, and only that."""
    impatient = open_database(database_url, busy_timeout_s=0.01)
    locked = replace(house, database=impatient, engine=ScriptedEngine(asyncio.Event()))
    locked.bring(*["shirt 0.9"] * 9)
    blocker = Blocker(database_url)
    ended = asyncio.create_task(locked.work(replace(RULES, retry_s=0.3)))
    await locked.engine.until_at_work()
    blocker.block()
    locked.engine.open_gate()
    with pytest.raises(DatabaseUnavailable, match="locked"):
        await ended
    # A process ends here, and its threads with it. In this one they end with the attempt that they are in: with a lock
    # to take, it would write the heartbeat of a process that works.
    await asyncio.sleep(1.5)
    blocker.release()
    blocker.close()
    impatient.close()
    await replace(house, watch=no_time()).work()
    assert (Counter({ItemState.DONE: 9}), []) == (house.states(), house.faults())


async def test_items_that_arrive_during_a_run_belong_to_the_next(house: House) -> None:
    """A run ends even if items arrive faster than they are processed."""
    house.bring(*["shirt 0.9"] * 10)
    arrived: list[str] = []

    def bring_more(_: RunProgress) -> None:
        arrived.extend(item.id for item in house.bring("coat 0.9", "coat 0.9"))

    run = await house.work(on_progress=bring_more)
    assert (RunState.FINISHED, 10) == (run.state, run.planned)
    assert Counter({ItemState.DONE: 10, ItemState.WAITING: len(arrived)}) == house.states()
    assert len(arrived) >= 4
    await house.work()
    assert ({ItemState.DONE}, []) == (set(house.states()), house.faults())


async def test_a_stopped_run_commits_the_items_in_work_and_releases_the_others(house: House) -> None:
    """The run stays active without an owner; the next start processes the other items, and nothing twice."""
    house.engine = ScriptedEngine(asyncio.Event())
    house.bring(*["shirt 0.9"] * 20)
    runner = house.runner()
    working = asyncio.create_task(runner.run(requested_by="test"))
    await house.engine.until_at_work(RULES.photos)
    runner.stop()
    house.engine.open_gate()
    stopped = await working
    assert (RunState.RUNNING, None, True) == (stopped.state, stopped.owner, runner.stopped)
    assert Counter({ItemState.DONE: 3, ItemState.WAITING: 17}) == house.states()
    run = await house.work()
    assert (stopped.id, RunState.FINISHED, 20) == (run.id, run.state, run.planned)
    assert ({1}, []) == (set(house.engine.seen.values()), house.faults())


async def test_a_resumed_run_includes_items_that_arrived_since(house: House) -> None:
    """Otherwise a run that was interrupted on Monday would leave Tuesday's photos until Wednesday."""
    first = house.runner()
    first.stop()
    house.bring("shirt 0.9")
    stopped = await first.run(requested_by="test")
    house.bring("shirt 0.9")
    run = await house.work()
    assert (stopped.id, 2, Counter({ItemState.DONE: 2})) == (run.id, run.planned, house.states())


def no_time() -> WatchTime:
    """Time passes only by sleeping, which returns at once."""
    passed = [0.0]

    def pause(seconds: float) -> None:
        passed[0] += seconds

    return WatchTime(monotonic=lambda: passed[0], sleep=pause)


async def test_a_run_whose_owner_writes_no_heartbeat_is_taken_over(house: House) -> None:
    """The items that it had leased are released, and its outstanding moves are finished."""
    moving, leased, waiting = house.bring("shirt 0.9", "shirt 0.9", "shirt 0.9")
    run = make_run(house)
    other = replace(this_process(1), process=None)
    with house.database.transaction() as tx:
        RunRepository(tx).take_over(run, other, now=now())
        ItemRepository(tx).lease("returns", owner=other.id, run_id=run.id, bound=leased.seq or 2, limit=2)
    run_after = await replace(house, watch=no_time()).work()
    assert (run.id, RunState.FINISHED) == (run_after.id, run_after.state)
    assert (Counter({ItemState.DONE: 3}), []) == (house.states(), house.faults())
    assert {house.item(each.id).state for each in (moving, waiting)} == {ItemState.DONE}


async def test_a_run_whose_owner_writes_heartbeats_is_not_taken_over(house: House) -> None:
    """The second process gets an error that names the run, and changes nothing."""
    house.bring("shirt 0.9")
    run = make_run(house)
    other = replace(this_process(1), process=None)
    with house.database.transaction() as tx:
        RunRepository(tx).take_over(run, other, now=now())

    def beat_instead(_: float) -> None:
        with house.database.transaction() as tx:
            RunRepository(tx).beat(run.id, owner=other.id, now=now(), finished_item=False)

    with pytest.raises(RunInProgress, match=run.id):
        await replace(house, watch=WatchTime(sleep=beat_instead)).work()
    assert Counter({ItemState.WAITING: 1}) == house.states()


async def test_a_clock_that_jumps_has_no_effect(house: House) -> None:
    """Back by a year or ahead by ten at each reading: the run ends, and every item is processed once."""
    jumps = iter(range(10_000))

    def jumping() -> datetime:
        years = -1 if next(jumps) % 2 else 10
        return datetime(2026, 11, 21, 2, tzinfo=UTC) + timedelta(days=365 * years)

    house.clock = jumping
    house.bring(*["shirt 0.9", "!OnceImageDecoderFailed -"] * 10)
    run = await house.work()
    assert (RunState.FINISHED, Counter({ItemState.DONE: 20}), []) == (run.state, house.states(), house.faults())


async def test_a_process_that_lost_its_run_writes_nothing(house: House) -> None:
    """Another process took the run over while this one was suspended."""
    house.engine = ScriptedEngine(asyncio.Event())
    house.bring(*["shirt 0.9"] * 8)
    sleeper = asyncio.create_task(house.work())
    await house.engine.until_at_work()
    with house.database.transaction() as tx:  # its leases write heartbeats, so nothing may come between the two
        tx.execute(select(batch_runs.c.id).with_for_update())
        run = RunRepository(tx).active("returns")
        assert run is not None
        RunRepository(tx).take_over(run, replace(this_process(2), process=None), now=now())
        ItemRepository(tx).release_others("returns", "nobody")
    house.engine.open_gate()
    with pytest.raises(RunLost):
        await sleeper
    assert (Counter({ItemState.WAITING: 8}), []) == (house.states(), house.records())
    successor = replace(house, watch=no_time(), engine=ScriptedEngine())
    await successor.work()
    assert (Counter({ItemState.DONE: 8}), []) == (house.states(), house.faults())


async def test_an_executor_that_does_not_open_ends_the_process_and_the_run_keeps_the_reason(house: House) -> None:
    """As for a missing model. The next start resumes the run."""
    house.bring("shirt 0.9")

    def fail() -> Any:
        raise EngineStopped("There is no model.")

    with pytest.raises(EngineStopped):
        await house.runner(open_executor=fail).run(requested_by="test")
    with house.database.reading() as tx:
        run = RunRepository(tx).active("returns")
    assert run is not None
    assert (None, "There is no model (engine_stopped).") == (run.owner, run.failure)


async def test_waiting_for_others_is_no_attempt(house: House) -> None:
    """A photo whose time passed in the queue is tried again as if nothing had been, however often that happens."""
    (first, *_) = house.bring("!OnceNotStarted -", *["coat 0.9"] * 5)
    await house.work()
    found = house.item(first.id)
    assert (ItemState.DONE, 1) == (found.state, found.attempts)
    assert [] == house.faults()


async def test_photos_that_all_wait_in_vain_end_the_run_and_none_is_quarantined(house: House) -> None:
    """Otherwise it would try for ever."""
    house.bring(*["!NotStarted -"] * 40)
    with pytest.raises(EngineStopped, match="stuck"):
        await house.work()
    assert {ItemState.WAITING} == set(house.states())


async def test_models_that_are_stuck_end_the_process(house: House) -> None:
    """Every photo exceeds its time limit; none is quarantined for it."""
    house.bring(*["!DeadlineExceeded -"] * 40)
    with pytest.raises(EngineStopped, match="stuck"):
        await house.work()
    assert ItemState.QUARANTINED not in house.states()


async def test_a_run_finishes_without_a_report_that_fails(house: House) -> None:
    """The results are committed; the report can be written later."""
    house.bring("shirt 0.9")

    def fail(_: str) -> str:
        raise RuntimeError("no ink")

    run = await house.runner(report=fail).run(requested_by="test")
    assert (RunState.FINISHED, None) == (run.state, run.report_key)


async def test_moves_that_a_crash_left_are_finished_by_the_next_start(house: House) -> None:
    """Also moves that were made and not noted."""
    house.bring(*["shirt 0.9"] * 4)
    await house.work()
    items = house.items()
    with house.database.transaction() as tx:
        for number, item in enumerate(items):
            relabel(tx, item.id, label="coat", target_key=f"returns/processed/coat/{number}", now=now())
            if item.prediction_id:
                PredictionRepository(tx).move_image(item.prediction_id, f"returns/processed/coat/{number}")
    movers = PhotoMover(house.store)
    movers([Move(item_id=items[0].id, source=items[0].key or "", target="returns/processed/coat/0")])
    movers.close()
    with pytest.raises(NothingWaiting):
        await house.work()
    assert [f"returns/processed/coat/{number}" for number in range(4)] == [item.key for item in house.items()]
    assert (0, []) == (finish_moves(house.database, house.store, "returns"), house.faults())


async def test_a_finished_run_is_returned_unchanged(house: House) -> None:
    """A second process for it does nothing."""
    house.bring("shirt 0.9")
    run = await house.work()
    assert run == await house.runner().run(requested_by="test", run_id=run.id)


async def test_progress_is_reported_from_the_first_to_the_last_item(house: House) -> None:
    """The counts only rise, and end at the planned number."""
    house.bring(*["shirt 0.9"] * 30)
    reported: list[RunProgress] = []
    await house.work(on_progress=reported.append)
    settled = [each.settled for each in reported]
    assert (0, 30, sorted(settled)) == (settled[0], settled[-1], settled)


class StrictEngine(ScriptedEngine):
    """Finds every photo damaged."""

    def _answer(self, job: ClassifyRequest) -> ClassifyResult:
        raise ImageCorrupt("The JPEG was cut off.")


async def test_a_damaged_photo_gets_a_thumbnail_of_what_can_be_decoded(house: House) -> None:
    """A file that is no photo gets none."""
    house.engine = StrictEngine()
    jpeg = jpeg_of(colourful(1))
    half, nothing = house.bring_bytes(jpeg[: len(jpeg) // 2]), house.bring_bytes(b"<html>")
    await house.work()
    key = house.item(half.id).thumbnail_key
    assert key is not None
    assert house.store.get(key).startswith(b"\xff\xd8")
    assert [None, "image_corrupt"] == [house.item(nothing.id).thumbnail_key, house.item(nothing.id).failure_code]


async def test_two_channels_run_at_once(house: House) -> None:
    """Each has its own active run, which processes the items of its channel only."""
    catalogue = replace(house, channel=replace(CHANNEL, name="catalogue"), engine=ScriptedEngine())
    house.bring(*["shirt 0.9"] * 10)
    catalogue.bring(*["coat 0.9"] * 10)
    first, second = await asyncio.gather(house.work(), catalogue.work())
    assert ("returns", "catalogue", 10, 10) == (first.channel, second.channel, first.planned, second.planned)
    found = {(item.channel, item.run_id, item.state, item.label) for item in house.items()}
    assert {
        ("returns", first.id, ItemState.DONE, "shirt"),
        ("catalogue", second.id, ItemState.DONE, "coat"),
    } == found
    assert [] == [item.key for item in house.items() if not (item.key or "").startswith(f"{item.channel}/processed/")]


async def test_photos_of_a_channel_without_file_by_label_stay(house: House) -> None:
    """In every state; the record names the same place."""
    arrived = house.bring("shirt 0.9", "coat 0.5", "!ImageUnsupported -")
    await house.work(replace(RULES, file_by_label=False))
    assert [item.key for item in arrived] == [item.key for item in house.items()]
    assert [None] * 3 == [item.target_key for item in house.items()]
    assert [] == house.faults()
