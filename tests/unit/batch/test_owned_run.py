"""The transactions of a run: proof of ownership, commits in doubt, and rows that the database refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from shoplens.batch.entities import BatchItem, BatchRun, ItemState
from shoplens.batch.executors import ProcessedItem, ResultBuilder
from shoplens.batch.files import Moved
from shoplens.batch.owned_run import OwnedRun
from shoplens.batch.process import cancel_run, claim, this_process
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.errors import DatabaseUnavailable, RunLost
from shoplens.predictions.repository import PredictionRepository
from shoplens.serving.engine import ClassifyRequest
from tests.unit.batch.batch_house import CHANNEL, MODEL, House, make_run, now, open_house


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """Ten photos wait."""
    house = open_house(database, tmp_path)
    house.bring(*["shirt 0.9"] * 10)
    return house


@pytest.fixture
def owned(house: House) -> OwnedRun:
    """A run that this process owns."""
    run = claim(house.database, make_run(house), this_process(0), takeover_s=1.0, clock=now)
    return OwnedRun(house.database, run, results=builder(house), clock=now)


def builder(house: House) -> ResultBuilder:
    """Of the channel in the tests."""
    return ResultBuilder(CHANNEL, house.store, clock=now, max_attempts=3)


def processed(house: House, item: BatchItem) -> ProcessedItem:
    """It is a shirt."""
    job = ClassifyRequest(model=MODEL.name, images=(b"shirt 0.9",), top_k=1, timeout_s=1.0, sha256=item.sha256)
    return builder(house).classified(item, house.engine._answer(job))


def take_over(house: House) -> None:
    """Another process becomes the owner."""
    with house.database.reading() as tx:
        run = RunRepository(tx).active("returns")
    assert run is not None
    with house.database.transaction() as tx:
        RunRepository(tx).take_over(run, replace(this_process(0), id="o" * 26), now=now())


def test_a_commit_writes_states_predictions_and_the_moves_to_come(house: House, owned: OwnedRun) -> None:
    """All in one transaction; what is leased meanwhile stays leased."""
    first = owned.lease(4)
    second = owned.lease(3)
    owned.commit([processed(house, item) for item in first], Moved())
    assert Counter(done=4, processing=3, waiting=3) == Counter(state.value for state in house.states().elements())
    assert (4, 3) == (len(house.records()), len({item.id for item in second} - {item.id for item in first}))
    assert {item.target_key for item in house.items()[:4]} == {record.image_key for record in house.records()}


def test_a_process_that_lost_the_run_writes_nothing(house: House, owned: OwnedRun) -> None:
    """Neither results nor leases nor signs of life nor its end."""
    leased = owned.lease(4)
    take_over(house)
    before = house.items(), house.records()
    for attempt in (
        lambda: owned.commit([processed(house, leased[0])], Moved()),
        lambda: owned.lease(1),
        lambda: owned.beat(stalled=False),
        lambda: owned.finish(None),
        lambda: owned.interrupt("x"),
    ):
        with pytest.raises(RunLost):
            attempt()
    assert before == (house.items(), house.records())


def test_an_item_that_is_no_longer_leased_here_undoes_the_whole_batch(house: House, owned: OwnedRun) -> None:
    """The second lock: even an owner settles only what it has leased."""
    leased = owned.lease(2)
    with house.database.transaction() as tx:
        ItemRepository(tx).release_others("returns", "nobody")
    with pytest.raises(RunLost):
        owned.commit([processed(house, item) for item in leased], Moved())
    assert ([], {ItemState.WAITING}) == (house.records(), set(house.states()))


class LosesAnswers(Database):
    """Commits, and then seems to be away, as often as requested."""

    def __init__(self, inner: Database) -> None:
        super().__init__(inner._engine, inner.place)
        self.lose = 0

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        with super().transaction() as tx:
            yield tx
        if self.lose:
            self.lose -= 1
            raise DatabaseUnavailable("connection reset")


def test_a_commit_whose_answer_was_lost_is_not_made_twice(house: House, owned: OwnedRun) -> None:
    """It took effect although the database seemed to be away: the second attempt finds it done."""
    database = LosesAnswers(house.database)
    owned = OwnedRun(database, owned.run, results=builder(house), clock=now)
    results = [processed(house, item) for item in owned.lease(4)]
    database.lose = 1
    with pytest.raises(DatabaseUnavailable):
        owned.commit(results, Moved())
    assert 2 == len(owned.lease(2))
    owned.commit(results, Moved())
    assert Counter(done=4, processing=2, waiting=4) == Counter(state.value for state in house.states().elements())
    assert 4 == len(house.records())


def test_a_lease_whose_answer_was_lost_is_made_again(house: House, owned: OwnedRun) -> None:
    """What it leased is released first; what is held is kept."""
    database = LosesAnswers(house.database)
    owned = OwnedRun(database, owned.run, results=builder(house), clock=now)
    held = owned.lease(3)
    database.lose = 1
    with pytest.raises(DatabaseUnavailable):
        owned.lease(4)
    again = owned.lease(4)
    assert Counter({ItemState.PROCESSING: 7, ItemState.WAITING: 3}) == house.states()
    assert 7 == len({item.id for item in [*held, *again]})


def test_a_row_that_the_database_refuses_fails_alone(house: House, owned: OwnedRun) -> None:
    """Its item goes to quarantine for good, its neighbours are written."""
    results = [processed(house, item) for item in owned.lease(3)]
    known = results[0].record
    assert known is not None
    with house.database.transaction() as tx:
        PredictionRepository(tx).add_many([replace(known, created_at=known.created_at - timedelta(days=1))])
    written = owned.commit(results, Moved())
    assert [ItemState.QUARANTINED, ItemState.DONE, ItemState.DONE] == [each.result.state for each in written]
    assert "record_refused" == house.item(results[0].item.id).failure_code


def test_an_interrupted_run_gives_back_what_it_had_leased(house: House, owned: OwnedRun) -> None:
    """The next start need not wait for anything."""
    owned.lease(4)
    run = owned.interrupt("It was asked to stop.")
    assert (True, None, "It was asked to stop.") == (run.active, run.owner, run.failure)
    assert Counter({ItemState.WAITING: 10}) == house.states()


@pytest.mark.parametrize("end", [lambda owned: owned.finish(None), lambda owned: owned.interrupt(None)])
def test_a_heartbeat_that_comes_after_the_end_is_none(owned: OwnedRun, end: Callable[[OwnedRun], BatchRun]) -> None:
    """It may have begun in its thread while the run ended. That is no loss of the run."""
    ended = end(owned)
    beaten_at = owned.heartbeat_at
    owned.beat(stalled=False)
    assert (ended.heartbeat, beaten_at) == (end_of(owned).heartbeat, owned.heartbeat_at)


def end_of(owned: OwnedRun) -> BatchRun:
    """The run as it is stored."""
    with owned._database.reading() as tx:
        return RunRepository(tx).get(owned.run.id)


def test_a_beginning_counts_what_waits_and_what_was_completed_before(house: House, owned: OwnedRun) -> None:
    """So the counts of an interrupted run are right when it continues."""
    owned.commit([processed(house, item) for item in owned.lease(4)], Moved())
    house.bring("shirt 0.9")
    before = owned.begin(MODEL, "1")
    assert (11, 11, 4) == (owned.run.planned, owned.run.bound, before[ItemState.DONE])


def test_a_cancelled_run_keeps_what_is_done_and_its_process_loses_it(house: House, owned: OwnedRun) -> None:
    """The rest waits for the next run; cancelling it again changes nothing."""
    leased = owned.lease(4)
    owned.commit([processed(house, item) for item in leased[:3]], Moved())
    cancelled = cancel_run(house.database, owned.run.id, "Anna", clock=now)
    assert (False, True, "Cancelled by Anna.") == (cancelled.active, cancelled.cancelled, cancelled.failure)
    for attempt in (
        lambda: owned.commit([processed(house, leased[3])], Moved()),
        lambda: owned.lease(1),
        lambda: owned.beat(stalled=False),
        lambda: owned.finish(None),
    ):
        with pytest.raises(RunLost):
            attempt()
    assert Counter(done=3, waiting=7) == Counter(state.value for state in house.states().elements())
    assert cancelled == cancel_run(house.database, owned.run.id, "Ben", clock=now)

    following = claim(house.database, make_run(house), this_process(1), takeover_s=1.0, clock=now)
    again = OwnedRun(house.database, following, results=builder(house), clock=now)
    again.commit([processed(house, item) for item in again.lease(10)], Moved())
    again.finish(None)
    assert Counter(done=10) == Counter(state.value for state in house.states().elements())
    with house.database.reading() as tx:
        counts = [ItemRepository(tx).counts(RunRepository(tx).get(each.run.id)) for each in (owned, again)]
    assert [3, 7] == [each[ItemState.DONE] for each in counts] == [each.received for each in counts]
