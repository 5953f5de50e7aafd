"""Claiming a run: who is dead, who lives, who was quicker; and no clock on the wall has a say."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from shoplens.batch.entities import BatchRun, ItemState, RunOwner
from shoplens.batch.process import WatchTime, claim, has_ended, process_mark, this_process
from shoplens.batch.repository import ItemRepository, RunRepository
from shoplens.db import Database
from shoplens.errors import RunInProgress
from tests.unit.batch.batch_house import House, make_run, now, open_house


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """An empty one."""
    return open_house(database, tmp_path)


def owned(house: House, owner: RunOwner) -> BatchRun:
    """An active run of somebody's."""
    run = make_run(house)
    with house.database.transaction() as tx:
        RunRepository(tx).take_over(run, owner, now=now())
        return RunRepository(tx).get(run.id)


def ended_process() -> subprocess.Popen[bytes]:
    """One that has ended and that nobody has asked about: its number is still taken."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


def stranger(**more: object) -> RunOwner:
    """A process on a machine that nothing is known of."""
    return replace(RunOwner(id="s" * 26, host="elsewhere", pid=1), **more)  # type: ignore[arg-type]


def test_a_process_is_told_from_a_later_one_with_its_number() -> None:
    """By the machine since it was switched on, the room of its number, and when it started."""
    mine = process_mark(os.getpid())
    assert mine is not None
    assert mine == process_mark(os.getpid())
    assert mine != process_mark(os.getppid())


def test_a_process_that_ended_has_no_mark_even_before_its_parent_asks() -> None:
    """In a container nobody may ever ask."""
    with ended_process() as process:
        assert process_mark(process.pid) is None


def test_only_a_process_of_this_machine_is_known_to_be_gone(house: House) -> None:
    """Another machine, another start of this one, or no knowledge at all: then only silence tells."""
    run = owned(house, this_process(0))
    machine, _, _ = (run.process or "").rpartition("/")
    assert [False, True, False, False] == [
        has_ended(replace(run, process=process))
        for process in (run.process, f"{machine}/1", f"another-{machine}/1", None)
    ]


def test_a_run_without_an_owner_is_claimed_at_once(house: House) -> None:
    """It was requested, or its last owner handed it over."""
    me = this_process(0)
    run = claim(house.database, make_run(house), me, takeover_s=1e9, clock=now)
    assert (me.id, me.pid, me.process) == (run.owner, run.pid, run.process)


def test_a_run_of_a_dead_process_is_claimed_at_once_with_all_that_it_had_leased(house: House) -> None:
    """Nobody waits for the silence of what is known to be dead."""
    house.bring("shirt 0.9", "shirt 0.9")
    with ended_process() as process:
        dead = replace(this_process(0), pid=process.pid)
        run = owned(house, dead)
        with house.database.transaction() as tx:
            ItemRepository(tx).lease("returns", owner=dead.id, run_id=run.id, bound=10, limit=1)
        claimed = claim(house.database, run, replace(this_process(0), id="m" * 26), takeover_s=1e9, clock=now)
    assert "m" * 26 == claimed.owner
    assert {ItemState.WAITING} == set(house.states())


def test_silence_is_measured_by_the_own_monotonic_clock(house: House) -> None:
    """Exactly as long as it was told, however wrong the heartbeat's time on the wall is."""
    run = owned(house, stranger())
    passed = [0.0]

    def pause(seconds: float) -> None:
        passed[0] += seconds

    waiting = WatchTime(monotonic=lambda: passed[0], sleep=pause)
    claimed = claim(house.database, run, this_process(0), takeover_s=15.0, clock=now, watch=waiting)
    assert os.getpid() == claimed.pid
    assert 15.0 == pytest.approx(passed[0])


def test_a_sign_of_life_ends_the_watch(house: House) -> None:
    """The newcomer says whose run it is, and the run stays his."""
    run = owned(house, stranger())

    def beat(_: float) -> None:
        with house.database.transaction() as tx:
            RunRepository(tx).beat(run.id, owner=run.owner or "", now=now(), finished_item=False)

    with pytest.raises(RunInProgress, match="process 1 on elsewhere"):
        claim(house.database, run, this_process(0), takeover_s=15.0, clock=now, watch=WatchTime(sleep=beat))
    with house.database.reading() as tx:
        assert run.owner == RunRepository(tx).get(run.id).owner


def test_of_two_newcomers_one_gets_the_run(house: House) -> None:
    """The other read it before it changed hands."""
    run = make_run(house)
    claim(house.database, run, replace(this_process(0), id="a" * 26), takeover_s=1.0, clock=now)
    with pytest.raises(RunInProgress):
        claim(house.database, run, replace(this_process(0), id="b" * 26), takeover_s=1.0, clock=now)
