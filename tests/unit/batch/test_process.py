"""The process of a run: claim a run from a dead or silent owner; start, restart and supervise a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from shoplens.batch.entities import BatchRun, ItemState, RunOwner
from shoplens.batch.process import (
    RunLauncher,
    RunProcess,
    StartRun,
    WatchTime,
    claim,
    has_ended,
    process_mark,
    request_run,
    this_process,
)
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import NothingWaiting, RunInProgress
from tests.samples import make_item
from tests.unit.batch.batch_house import House, make_run, now, open_house

Launcher = RunLauncher[BatchRun]
TIMEOUT_S = 60.0

PRINT_FACTS = """
import json, os, sys
own = {name: value for name, value in os.environ.items() if name.startswith("SHOPLENS_")}
print(json.dumps({"run": sys.argv[-1], "settings": own, "session": os.getsid(0), "pid": os.getpid()}), flush=True)
"""
COUNT_AND_FAIL = """
import sys
with open(sys.argv[1], "a") as starts: starts.write("x")
print("error (storage_unavailable): The disk is full.")
sys.exit(int(sys.argv[2]))
"""
WAIT_FOR_STATUS = """
import sys
with open(sys.argv[1]) as word: sys.exit(int(word.read() or 0))
"""


@pytest.fixture
def run(database: Database) -> BatchRun:
    """A requested run without an owner, over one item."""
    with database.transaction() as tx:
        ItemRepository(tx).add_many([make_item()])
    return request_run(database, "returns", "test", clock=now)


@pytest.fixture
def make_launcher(database: Database, tmp_path: Path) -> Iterator[Callable[..., Launcher]]:
    """Launchers of a Python program; closed, and their threads ended, when the test ends."""
    made: list[Launcher] = []

    def make(program: str, *arguments: str, pauses_s: Sequence[float] = ()) -> Launcher:
        process = RunProcess(
            environment={"SHOPLENS_DATA_DIR": "here"},
            logs=tmp_path / "logs",
            command=(sys.executable, "-c", program, *arguments),
        )
        made.append(RunLauncher(database, process, runs=RunRepository, pauses_s=pauses_s))
        return made[-1]

    yield make
    for launcher in made:
        launcher.close()
    wait_for_launchers()


def wait_for_launchers() -> None:
    """Wait until no launcher of this process supervises a process."""
    for thread in threading.enumerate():
        if thread.name.startswith("run-"):
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


def run_processes() -> list[psutil.Process]:
    """The processes of runs that this process started."""
    return [child for child in psutil.Process().children() if "the-run" in child.cmdline()]


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another process or thread does."""
    give_up_at = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def owned_by(database: Database, run: BatchRun, owner: RunOwner) -> BatchRun:
    """The run after this process took it over."""
    with database.transaction() as tx:
        RunRepository(tx).take_over(run, owner, now=now())
        return RunRepository(tx).get(run.id)


def ended_owner() -> RunOwner:
    """A process of this machine that has ended."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        owner = replace(
            this_process(1), id=make_id(2, os.urandom(10)), pid=process.pid, process=process_mark(process.pid)
        )
        process.communicate(b"\n")
    return owner


def test_a_process_gets_its_run_and_only_the_given_settings(
    make_launcher: Callable[..., Launcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has a session of its own, and its output goes to a file."""
    monkeypatch.setenv("SHOPLENS_PORT", "1")
    assert make_launcher(PRINT_FACTS).start("the-run")
    wait_for_launchers()
    output = json.loads((tmp_path / "logs" / "run.log").read_text())
    assert {"SHOPLENS_DATA_DIR": "here"} == output["settings"]
    assert ("the-run", output["pid"]) == (output["run"], output["session"])


def test_a_process_that_ended_is_no_zombie(make_launcher: Callable[..., Launcher]) -> None:
    """The launcher waits for it, however it ended."""
    launcher = make_launcher("import os; os.abort()")
    launcher.start("the-run")
    wait_for_launchers()
    assert [] == [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
    assert "ended by SIGABRT" in (launcher.trouble("the-run") or "")


def test_a_run_has_one_process_at_a_time(make_launcher: Callable[..., Launcher], tmp_path: Path) -> None:
    """A second start does nothing while the first process is running."""
    word = tmp_path / "word"
    os.mkfifo(word)
    launcher = make_launcher(WAIT_FOR_STATUS, str(word))
    assert launcher.start("the-run")
    assert not launcher.start("the-run")
    word.write_text("0")
    wait_for_launchers()
    assert launcher.start("the-run")
    word.write_text("0")


def test_a_process_outlives_the_launcher(make_launcher: Callable[..., Launcher], tmp_path: Path) -> None:
    """A closed launcher starts no other process."""
    word = tmp_path / "word"
    os.mkfifo(word)
    launcher = make_launcher(WAIT_FOR_STATUS, str(word))
    launcher.start("the-run")
    until(lambda: len(run_processes()) == 1)
    launcher.close()
    (process,) = run_processes()
    assert process.is_running()
    assert not launcher.start("another-run")
    word.write_text("0")
    wait_for_launchers()


def test_a_process_that_fails_is_restarted_a_few_times(
    make_launcher: Callable[..., Launcher], run: BatchRun, tmp_path: Path
) -> None:
    """While the run is active and has no owner; then the reason is kept."""
    launcher = make_launcher(COUNT_AND_FAIL, str(tmp_path / "starts"), "1", pauses_s=(0.0, 0.0))
    launcher.start(run.id)
    wait_for_launchers()
    assert "xxx" == (tmp_path / "starts").read_text()
    said = launcher.trouble(run.id)
    assert "Its process ended with status 1 (storage_unavailable). logs/run.log has the details." == said


@pytest.mark.parametrize("status", ["0", "143", "130"])
def test_a_process_that_finished_or_was_stopped_is_not_restarted(
    make_launcher: Callable[..., Launcher], run: BatchRun, tmp_path: Path, status: str
) -> None:
    """SIGTERM and SIGINT mean that somebody stopped the run."""
    launcher = make_launcher(COUNT_AND_FAIL, str(tmp_path / "starts"), status, pauses_s=(0.0, 0.0))
    launcher.start(run.id)
    wait_for_launchers()
    assert "x" == (tmp_path / "starts").read_text()


def test_the_process_of_a_finished_or_owned_run_is_not_restarted(
    make_launcher: Callable[..., Launcher], database: Database, run: BatchRun, tmp_path: Path
) -> None:
    """Another process may have taken the run over or finished it."""
    owner = this_process(1)
    owned_by(database, run, owner)
    launcher = make_launcher(COUNT_AND_FAIL, str(tmp_path / "starts"), "1", pauses_s=(0.0, 0.0))
    launcher.start(run.id)
    wait_for_launchers()
    with database.transaction() as tx:
        RunRepository(tx).finish(run.id, owner=owner.id, now=now(), report_key=None)
    launcher.start(run.id)
    wait_for_launchers()
    assert "xx" == (tmp_path / "starts").read_text()


def test_a_request_ends_the_pause_before_a_restart(
    make_launcher: Callable[..., Launcher], run: BatchRun, tmp_path: Path
) -> None:
    """A user does not wait for the timer."""
    launcher = make_launcher(COUNT_AND_FAIL, str(tmp_path / "starts"), "1", pauses_s=(3_600.0,))
    launcher.start(run.id)
    until(lambda: launcher.resume("returns") is not None)
    wait_for_launchers()
    assert "xx" == (tmp_path / "starts").read_text()


def test_a_program_that_cannot_be_started_is_reported(
    make_launcher: Callable[..., Launcher], database: Database
) -> None:
    """The reason is that of the system."""
    process = RunProcess(environment={}, logs=Path(os.devnull) / "logs", command=("no-such-program",))
    launcher = RunLauncher(database, process, runs=RunRepository, pauses_s=())
    launcher.start("the-run")
    wait_for_launchers()
    assert "No process could be started for it: Not a directory." == launcher.trouble("the-run")


def test_success_clears_the_reason_of_an_earlier_failure(
    make_launcher: Callable[..., Launcher], run: BatchRun, tmp_path: Path
) -> None:
    """The failure is in the past."""
    word = tmp_path / "word"
    os.mkfifo(word)
    launcher = make_launcher(WAIT_FOR_STATUS, str(word), pauses_s=(0.0,))
    launcher.start(run.id)
    word.write_text("1")
    until(lambda: launcher.trouble(run.id) is not None)
    word.write_text("0")
    wait_for_launchers()
    assert launcher.trouble(run.id) is None


def test_the_log_of_runs_is_rotated(make_launcher: Callable[..., Launcher], tmp_path: Path) -> None:
    """One older file is kept."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "run.log").write_bytes(b"." * 10_000_001)
    make_launcher(PRINT_FACTS).start("the-run")
    wait_for_launchers()
    assert 10_000_001 == (logs / "run.1.log").stat().st_size
    assert (logs / "run.log").stat().st_size < 10_000


def test_an_abandoned_run_is_resumed(make_launcher: Callable[..., Launcher], database: Database, run: BatchRun) -> None:
    """One without an owner, and one whose owner has ended."""
    assert run == make_launcher(PRINT_FACTS).resume("returns")
    wait_for_launchers()
    abandoned = owned_by(database, run, ended_owner())
    assert abandoned == make_launcher(PRINT_FACTS).resume("returns")


def test_a_run_whose_process_is_alive_is_not_resumed(
    make_launcher: Callable[..., Launcher], database: Database, run: BatchRun
) -> None:
    """Not even on request, since the process is known to be alive."""
    owned_by(database, run, this_process(1))
    assert make_launcher(PRINT_FACTS).resume("returns", try_unknown=True) is None


def test_a_run_of_another_machine_is_resumed_on_request_only(
    make_launcher: Callable[..., Launcher], database: Database, run: BatchRun
) -> None:
    """Its process may be alive; the new process watches the heartbeat."""
    elsewhere = replace(this_process(1), host="elsewhere", process="another-boot/another-namespace/1")
    owned = owned_by(database, run, elsewhere)
    assert make_launcher(PRINT_FACTS).resume("returns") is None
    assert owned == make_launcher(PRINT_FACTS).resume("returns", try_unknown=True)


def test_nothing_is_resumed_where_no_run_is_active(make_launcher: Callable[..., Launcher]) -> None:
    """There is nothing to do."""
    assert make_launcher(PRINT_FACTS).resume("returns", try_unknown=True) is None


def test_a_requested_run_gets_a_process_at_once(
    make_launcher: Callable[..., Launcher], database: Database, tmp_path: Path
) -> None:
    """Another request is refused meanwhile."""
    word = tmp_path / "word"
    os.mkfifo(word)
    with database.transaction() as tx:
        ItemRepository(tx).add_many([make_item()])
    start = StartRun(database, make_launcher(WAIT_FOR_STATUS, str(word)), clock=now)
    run = start("returns", "somebody")
    assert "somebody" == run.requested_by
    with pytest.raises(RunInProgress):
        start("returns", "somebody else")
    word.write_text("0")


def test_without_a_waiting_item_no_run_is_requested(make_launcher: Callable[..., Launcher], database: Database) -> None:
    """It would be the last run, and hide the one before."""
    with pytest.raises(NothingWaiting):
        StartRun(database, make_launcher(PRINT_FACTS), clock=now)("returns", "somebody")
    with database.reading() as tx:
        assert [] == RunRepository(tx).page("returns", limit=9)


def test_a_request_resumes_a_run_whose_process_has_ended(
    make_launcher: Callable[..., Launcher], database: Database, run: BatchRun
) -> None:
    """Instead of being refused."""
    abandoned = owned_by(database, run, ended_owner())
    assert abandoned == StartRun(database, make_launcher(PRINT_FACTS), clock=now)("returns", "somebody")


@pytest.fixture
def house(database: Database, tmp_path: Path) -> House:
    """A database and a store without items."""
    return open_house(database, tmp_path)


def owned(house: House, owner: RunOwner) -> BatchRun:
    """An active run of this owner."""
    run = make_run(house)
    with house.database.transaction() as tx:
        RunRepository(tx).take_over(run, owner, now=now())
        return RunRepository(tx).get(run.id)


def ended_process() -> subprocess.Popen[bytes]:
    """A process that has ended and has not been waited for: its number is still in use."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    return process


def stranger(**more: object) -> RunOwner:
    """A process on another machine."""
    return replace(RunOwner(id="s" * 26, host="elsewhere", pid=1), **more)  # type: ignore[arg-type]


def test_a_process_differs_from_a_later_one_with_its_number() -> None:
    """By the boot of the machine, the namespace of its number, and the time of its start."""
    mine = process_mark(os.getpid())
    assert mine is not None
    assert mine == process_mark(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as later:
        assert mine != process_mark(later.pid)
        assert process_mark(later.pid) is not None
        later.kill()


def test_a_process_that_ended_has_no_mark_even_before_its_parent_waits() -> None:
    """In a container its parent may never wait for it."""
    with ended_process() as process:
        assert process_mark(process.pid) is None


def test_only_a_process_of_this_machine_is_known_to_have_ended(house: House) -> None:
    """On another machine, or after another boot, only the heartbeat can show it."""
    run = owned(house, this_process(0))
    machine, _, _ = (run.process or "").rpartition("/")
    assert [False, True, False, False] == [
        has_ended(replace(run, process=process))
        for process in (run.process, f"{machine}/1", f"another-{machine}/1", None)
    ]


def test_a_run_without_an_owner_is_claimed_at_once(house: House) -> None:
    """It was requested, or its last owner released it."""
    me = this_process(0)
    run = claim(house.database, make_run(house), me, takeover_s=1e9, clock=now)
    assert (me.id, me.pid, me.process) == (run.owner, run.pid, run.process)


def test_a_run_of_a_dead_process_is_claimed_at_once_with_its_leased_items(house: House) -> None:
    """There is no need to watch the heartbeat of a process that is known to have ended."""
    house.bring("shirt 0.9", "shirt 0.9")
    with ended_process() as process:
        dead = replace(this_process(0), pid=process.pid)
        run = owned(house, dead)
        with house.database.transaction() as tx:
            ItemRepository(tx).lease("returns", owner=dead.id, run_id=run.id, bound=10, limit=1)
        claimed = claim(house.database, run, replace(this_process(0), id="m" * 26), takeover_s=1e9, clock=now)
    assert "m" * 26 == claimed.owner
    assert {ItemState.WAITING} == set(house.states())


def test_a_heartbeat_is_watched_by_the_own_monotonic_clock(house: House) -> None:
    """For exactly the given time, whatever the wall clock says."""
    run = owned(house, stranger())
    passed = [0.0]

    def pause(seconds: float) -> None:
        passed[0] += seconds

    watch = WatchTime(monotonic=lambda: passed[0], sleep=pause)
    claimed = claim(house.database, run, this_process(0), takeover_s=15.0, clock=now, watch=watch)
    assert os.getpid() == claimed.pid
    assert 15.0 == pytest.approx(passed[0])


def test_a_heartbeat_ends_the_watch(house: House) -> None:
    """The error names the owner, who keeps the run."""
    run = owned(house, stranger())

    def beat(_: float) -> None:
        with house.database.transaction() as tx:
            RunRepository(tx).beat(run.id, owner=run.owner or "", now=now(), finished_item=False)

    with pytest.raises(RunInProgress, match="Process 1 on elsewhere"):
        claim(house.database, run, this_process(0), takeover_s=15.0, clock=now, watch=WatchTime(sleep=beat))
    with house.database.reading() as tx:
        assert run.owner == RunRepository(tx).get(run.id).owner


def test_of_two_processes_one_gets_the_run(house: House) -> None:
    """The other one read it before it was claimed."""
    run = make_run(house)
    claim(house.database, run, replace(this_process(0), id="a" * 26), takeover_s=1.0, clock=now)
    with pytest.raises(RunInProgress):
        claim(house.database, run, replace(this_process(0), id="b" * 26), takeover_s=1.0, clock=now)
