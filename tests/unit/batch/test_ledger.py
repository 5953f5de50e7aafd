"""The transactions of a night: proof of ownership, doubtful commits, and rows that the database refuses."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from shoplens.batch.entities import BatchItem, ItemState
from shoplens.batch.ledger import Batch, Ledger
from shoplens.batch.ownership import claim, this_process
from shoplens.batch.verdicts import Verdict, classified
from shoplens.db import Database
from shoplens.errors import DatabaseUnavailable, RecordRefused, RunLost
from shoplens.predictions.entities import PredictionRecord
from shoplens.serving.engine import ClassifyRequest
from tests.unit.batch.batch_house import CHANNEL, MODEL, House, now, open_house, request_run


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """Ten photos wait."""
    house = open_house(database, tmp_path)
    house.bring(*["shirt 0.9"] * 10)
    return house


@pytest.fixture
def ledger(house: House) -> Ledger:
    """Of a run that is this process's own."""
    run = claim(house.database, request_run(house), this_process(0), takeover_s=1.0, clock=now)
    return Ledger(house.database, run, clock=now)


def verdict(house: House, item: BatchItem) -> Verdict:
    """It is a shirt."""
    job = ClassifyRequest(model=MODEL.name, image=b"shirt 0.9", top_k=1, timeout_s=1.0, sha256=item.sha256)
    return classified(item, house.engine._answer(job), CHANNEL, now=now(), prediction_id=item.id)


def take_over(house: House) -> None:
    """Another process becomes the owner."""
    with house.database.read_uow() as work:
        run = work.batch_runs.active("returns")
    assert run is not None
    with house.database.uow() as work:
        work.batch_runs.take_over(run, replace(this_process(0), id="o" * 26), now=now())


def test_a_batch_is_written_and_the_next_leased_in_one_step(house: House, ledger: Ledger) -> None:
    """The states, the predictions and the moves to come."""
    first = ledger.commit(Batch(lease=4)).leased
    second = ledger.commit(Batch(verdicts=[verdict(house, item) for item in first], lease=3)).leased
    assert Counter(done=4, processing=3, waiting=3) == Counter(state.value for state in house.states().elements())
    assert (4, 3) == (len(house.records()), len({item.id for item in second} - {item.id for item in first}))
    assert {item.target_key for item in house.items()[:4]} == {record.image_key for record in house.records()}


def test_whoever_lost_the_run_writes_nothing_at_all(house: House, ledger: Ledger) -> None:
    """Neither results nor leases nor signs of life nor its end."""
    leased = ledger.commit(Batch(lease=4)).leased
    take_over(house)
    before = house.items(), house.records()
    for attempt in (
        lambda: ledger.commit(Batch(verdicts=[verdict(house, leased[0])])),
        lambda: ledger.commit(Batch(lease=1)),
        lambda: ledger.beat(stalled=False),
        lambda: ledger.finish(None),
        lambda: ledger.interrupt("x"),
    ):
        with pytest.raises(RunLost):
            attempt()
    assert before == (house.items(), house.records())


def test_an_item_that_is_no_longer_leased_here_undoes_the_whole_batch(house: House, ledger: Ledger) -> None:
    """The second lock: even an owner settles only what it has leased."""
    leased = ledger.commit(Batch(lease=2)).leased
    with house.database.uow() as work:
        work.batch_items.release_others("returns", "nobody")
    with pytest.raises(RunLost):
        ledger.commit(Batch(verdicts=[verdict(house, item) for item in leased]))
    assert ([], {ItemState.WAITING}) == (house.records(), set(house.states()))


def test_a_commit_whose_answer_was_lost_is_not_made_twice(house: House, ledger: Ledger) -> None:
    """It took effect, but the database seemed to be away: the second attempt finds it done, and leases anew."""
    leased = ledger.commit(Batch(lease=4)).leased
    batch = Batch(verdicts=[verdict(house, item) for item in leased], lease=4)
    real = ledger._write

    def lose_the_answer(batch: Batch) -> None:
        real(batch)
        raise DatabaseUnavailable("connection reset")

    ledger._write = lose_the_answer  # type: ignore[assignment,method-assign]
    with pytest.raises(DatabaseUnavailable):
        ledger.commit(batch)
    ledger._write = real  # type: ignore[method-assign]
    again = ledger.commit(batch).leased
    assert Counter(done=4, working=4, waiting=2) == Counter(state.value for state in house.states().elements())
    assert (4, 4) == (len(house.records()), len(again))


def test_a_row_that_the_database_refuses_fails_alone(house: House, ledger: Ledger) -> None:
    """Its item goes to quarantine for good, its neighbours are written."""
    first, *rest = ledger.commit(Batch(lease=3)).leased
    known = verdict(house, first).record
    assert isinstance(known, PredictionRecord)
    with house.database.uow() as work:
        work.predictions.add_many([replace(known, created_at=known.created_at - timedelta(days=1))])
    done = ledger.commit(Batch(verdicts=[verdict(house, item) for item in (first, *rest)], lease=2))
    assert [ItemState.QUARANTINED, ItemState.DONE, ItemState.DONE] == [each.settlement.state for each in done.verdicts]
    assert ("record_refused", 2) == (house.item(first.id).failure_code, len(done.leased))


def test_what_cannot_be_written_at_all_is_told(house: House, ledger: Ledger) -> None:
    """There is nothing smaller to try."""

    def refuse(_: Batch) -> None:
        raise RecordRefused("no")

    ledger._write = refuse  # type: ignore[assignment,method-assign]
    with pytest.raises(RecordRefused):
        ledger.commit(Batch())


def test_an_interrupted_run_gives_back_what_it_had_leased(house: House, ledger: Ledger) -> None:
    """The next start need not wait for anything."""
    ledger.commit(Batch(lease=4))
    run = ledger.interrupt("It was told to stop.")
    assert (True, None, "It was told to stop.") == (run.active, run.owner, run.failure)
    assert Counter({ItemState.WAITING: 10}) == house.states()


def test_a_beginning_takes_in_what_waits_and_what_was_settled_before(house: House, ledger: Ledger) -> None:
    """So an interrupted run counts right when it is gone on with."""
    leased = ledger.commit(Batch(lease=4)).leased
    ledger.commit(Batch(verdicts=[verdict(house, item) for item in leased]))
    house.bring("shirt 0.9")
    run, before = ledger.begin(MODEL, "1")
    assert (11, 11, 4) == (run.planned, run.bound, before[ItemState.DONE])
