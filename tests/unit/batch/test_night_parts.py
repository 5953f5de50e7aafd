"""The small parts of a night: verdicts, patience, pace, signs of life, room, moves."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from shoplens.batch.entities import BatchItem, BatchRun, ItemState
from shoplens.batch.examiners import Room
from shoplens.batch.ledger import Batch, Ledger
from shoplens.batch.life import SignsOfLife
from shoplens.batch.moves import Move, MovePhotos, finish_move, finish_moves
from shoplens.batch.ownership import claim, this_process
from shoplens.batch.patience import Patience
from shoplens.batch.progress import Pace
from shoplens.batch.runs import RequestRun
from shoplens.batch.verdicts import failed
from shoplens.db import Database
from shoplens.errors import (
    DatabaseUnavailable,
    ImageCorrupt,
    ImageDecoderFailed,
    ImageGone,
    RecordRefused,
    RunInProgress,
    RunLost,
    StorageUnavailable,
)
from tests.unit.batch.batch_house import House, now, open_house, request_run

ITEM = BatchItem(
        channel="returns",
    id="i" * 26, received_at=now(), source_name="a.jpg", sha256="0" * 64, byte_count=1, state=ItemState.PROCESSING,
    key="returns/incoming/a.jpg",
)  # fmt: skip


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """An empty one."""
    return open_house(database, tmp_path)


class Time:
    """Passes when somebody pauses."""

    def __init__(self) -> None:
        self.s = 0.0
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        return self.s

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.s += seconds


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
def test_a_failure_is_final_or_may_pass(error: Exception, attempts: int, state: ItemState) -> None:
    """What is wrong with a photo itself stays wrong; everything else gets three tries."""
    verdict = failed(replace(ITEM, attempts=attempts), error, max_attempts=3, now=now())  # type: ignore[arg-type]
    assert (state, attempts + 1, "x") == (
        verdict.settlement.state, verdict.settlement.attempts, verdict.settlement.failure,
    )  # fmt: skip
    assert verdict.settled is (state is ItemState.QUARANTINED)


def test_a_photo_that_is_in_quarantine_already_is_not_moved_there() -> None:
    """It was tried again and failed again."""
    again = failed(replace(ITEM, key="returns/quarantine/a.jpg"), ImageCorrupt("x"), max_attempts=3, now=now())
    assert (None, None) == (again.settlement.target_key, again.move)


def test_patience_waits_longer_each_time_and_then_goes_on() -> None:
    """As long as the part is away."""
    time, failures = Time(), [DatabaseUnavailable("x")] * 8

    def act() -> str:
        if failures:
            raise failures.pop()
        return "done"

    patience = Patience(600, monotonic=time.monotonic, pause=time.pause)
    assert "done" == patience(act)
    assert (sorted(time.pauses), 8, True) == (time.pauses, len(time.pauses), max(time.pauses) <= 10.0)


def test_patience_ends() -> None:
    """With the error that it waited for."""
    time = Time()

    def act() -> None:
        raise StorageUnavailable("gone for good")

    with pytest.raises(StorageUnavailable, match="gone for good"):
        Patience(30, monotonic=time.monotonic, pause=time.pause)(act)
    assert 30 <= time.s < 41


def test_patience_does_not_wait_for_what_will_not_change_or_when_told_to_stop() -> None:
    """A row that does not fit, any other error, a night that ends."""
    time, stop = Time(), threading.Event()
    patience = Patience(600, stop=stop, monotonic=time.monotonic, pause=time.pause)
    for error in (RecordRefused("x"), RunLost("x")):

        def act(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            patience(act)
    stop.set()
    with pytest.raises(DatabaseUnavailable):
        patience(lambda: (_ for _ in ()).throw(DatabaseUnavailable("x")))
    assert [] == time.pauses


def test_the_pace_is_that_of_the_last_half_minute() -> None:
    """A slow beginning is forgotten; what is left follows from what is planned."""
    pace = Pace("r", planned=1000, before={ItemState.DONE: 100, ItemState.PROCESSING: 7}, now_s=0.0)
    assert (100, None, None) == (
        pace.progress().settled, pace.progress().per_second, pace.progress().seconds_left,
    )  # fmt: skip
    pace.add([ItemState.DONE], now_s=100.0)
    for second in range(101, 161):
        progress = pace.add([ItemState.NEEDS_REVIEW] * 5, now_s=float(second))
    assert 401 == progress.settled
    assert 5.0 == pytest.approx(progress.per_second or 0.0, rel=0.1)
    assert 599 / 5 == pytest.approx(progress.seconds_left or 0.0, rel=0.1)


def test_a_night_shows_that_it_lives_and_when_it_is_stalled(house: House) -> None:
    """A beat is due every third of the time after which others may take over; a stall is marked, and its end."""
    time = Time()
    run = claim(house.database, request_run(house), this_process(0), takeover_s=1.0, clock=now)
    ledger = Ledger(house.database, run, clock=now, monotonic=time.monotonic)
    life = SignsOfLife(ledger, takeover_s=15, stall_after_s=60, on_lost=lambda _: None, monotonic=time.monotonic)
    seen: list[tuple[int, bool]] = []
    for seconds in (1, 4, 1, 60, 1):
        time.s += seconds
        life.look()
        with house.database.read_uow() as work:
            now_run = work.batch_runs.get(run.id)
        seen.append((now_run.heartbeat - run.heartbeat, now_run.stalled))
    life.item_finished()
    life.look()
    with house.database.read_uow() as work:
        assert not work.batch_runs.get(run.id).stalled
    assert [(0, False), (1, False), (1, False), (2, True), (2, True)] == seen


def test_the_loss_of_a_run_is_told_by_the_signs_of_life(house: House) -> None:
    """Also while no batch is committed for long."""
    run = claim(house.database, request_run(house), this_process(0), takeover_s=1.0, clock=now)
    ledger = Ledger(house.database, run, clock=now)
    with house.database.uow() as work:
        work.batch_runs.take_over(run, replace(this_process(0), id="o" * 26), now=now())
    told = threading.Event()
    with SignsOfLife(ledger, takeover_s=0.03, stall_after_s=60, on_lost=lambda _: told.set()):
        assert told.wait(20)


async def test_room_is_given_in_turn_and_to_one_at_least() -> None:
    """However large that one is."""
    room, held, most = Room(10), Counter[str](), 0

    async def task(count: int) -> None:
        nonlocal most
        async with room.for_bytes(count):
            held["bytes"] += count
            most = max(most, held["bytes"])
            await asyncio.sleep(0)
            held["bytes"] -= count

    await asyncio.wait_for(asyncio.gather(*(task(count) for count in (3, 4, 5, 6, 100, 1, 9, 2))), 20)
    assert 100 == most
    await asyncio.wait_for(asyncio.gather(*(task(4) for _ in range(20))), 20)
    assert 100 == most


def test_a_photo_that_is_nowhere_is_told_and_not_looked_for_again(house: House) -> None:
    """Its item keeps what it is and says so."""
    (item,) = house.bring("shirt 0.9")
    with house.database.uow() as work:
        work.batch_items.correct(item.id, label="coat", target_key="returns/processed/coat/a.jpg", now=now())
    house.store.delete(item.key or "")
    assert (1, 0) == (
        finish_moves(house.database, house.store, "returns"),
        finish_moves(house.database, house.store, "returns"),
    )
    found = house.item(item.id)
    assert ("image_gone", None, ItemState.DONE) == (found.failure_code, found.target_key, found.state)


def test_a_move_of_one_item_is_finished_alone(house: House) -> None:
    """And nothing is done where none is outstanding."""
    first, second = house.bring("shirt 0.9", "shirt 0.9")
    with house.database.uow() as work:
        for item in (first, second):
            work.batch_items.correct(item.id, label="coat", target_key=f"returns/processed/coat/{item.id}", now=now())
    moved = finish_move(house.database, house.store, first.id)
    assert (f"returns/processed/coat/{first.id}", None) == (moved.key, moved.target_key)
    assert moved == finish_move(house.database, house.store, first.id)
    assert house.item(second.id).target_key is not None


def test_an_arrival_is_noted_only_where_the_item_still_wants_its_photo(house: House) -> None:
    """A slow mover cannot undo what a person said meanwhile."""
    (item,) = house.bring("shirt 0.9")
    with house.database.uow() as work:
        work.batch_items.correct(item.id, label="coat", target_key="returns/processed/coat/a", now=now())
        work.batch_items.moved([(item.id, "returns/processed/hat/a")])
        work.batch_items.lost([(item.id, "returns/processed/hat/a")], code="image_gone", failure="x")
    assert ("returns/processed/coat/a", None) == (house.item(item.id).target_key, house.item(item.id).failure_code)


def test_many_photos_are_moved_at_once(house: House) -> None:
    """And those that are nowhere are told apart."""
    items = house.bring(*["shirt 0.9"] * 70)
    house.store.delete(items[33].key or "")
    movers = MovePhotos(house.store)
    moved = movers([Move(item_id=each.id, source=each.key or "", target=f"moved/{each.id}") for each in items])
    movers.close()
    assert (69, [(items[33].id, f"moved/{items[33].id}")]) == (len(moved.arrived), list(moved.gone))
    assert {f"moved/{item.id}" for item in items} - {f"moved/{items[33].id}"} == set(house.store.list("moved"))


def test_a_run_is_requested_once(house: House) -> None:
    """By whoever asks first, over what waits then."""
    house.bring("shirt 0.9", "shirt 0.9")
    request = RequestRun(house.database, now)

    def attempt(name: str) -> BatchRun | None:
        try:
            return request("returns", name)
        except RunInProgress:
            return None

    with ThreadPoolExecutor(4) as threads:
        (run,) = [each for each in threads.map(attempt, ["the timer", "a clerk", "a program", "cron"]) if each]
    assert (2, 2, True) == (run.bound, run.planned, run.active)
    with house.database.read_uow() as work:
        assert [run] == work.batch_runs.page("returns", limit=10)


def test_an_empty_batch_is_a_sign_of_life_that_finishes_nothing(house: House) -> None:
    """The time of the last item stays what it was."""
    run = claim(house.database, request_run(house), this_process(0), takeover_s=1.0, clock=now)
    Ledger(house.database, run, clock=now).commit(Batch())
    with house.database.read_uow() as work:
        after = work.batch_runs.get(run.id)
    assert (run.heartbeat + 1, None) == (after.heartbeat, after.last_item_at)
