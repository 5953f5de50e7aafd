"""Nights as processes of their own: started, started again, left alone, and never turned into zombies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from shoplens.batch.entities import BatchRun, RunOwner
from shoplens.batch.process import RunLauncher, RunProcess, StartRun, process_mark, request_run, this_process
from shoplens.batch.repository import RunRepository
from shoplens.db import Database
from shoplens.db.ids import make_id
from shoplens.errors import RunInProgress

TIMEOUT_S = 60.0

TELL = """
import json, os, sys
told = {name: value for name, value in os.environ.items() if name.startswith("SHOPLENS_")}
print(json.dumps({"run": sys.argv[-1], "settings": told, "session": os.getsid(0), "pid": os.getpid()}), flush=True)
"""
COUNT_AND_FAIL = """
import sys
with open(sys.argv[1], "a") as starts: starts.write("x")
print("Error (storage_unavailable): The disk is full.")
sys.exit(int(sys.argv[2]))
"""
WAIT_FOR_WORD = """
import sys
with open(sys.argv[1]) as word: sys.exit(int(word.read() or 0))
"""


@pytest.fixture
def run(database: Database) -> BatchRun:
    """A run that was requested and that nobody works on."""
    return request_run(database, "returns", "test", clock=now)


@pytest.fixture
def make_launcher(database: Database, tmp_path: Path) -> Iterator[Callable[..., RunLauncher]]:
    """Launchers of a Python program; closed, and their threads ended, when the test ends."""
    made: list[RunLauncher] = []

    def make(program: str, *arguments: str, pauses_s: Sequence[float] = ()) -> RunLauncher:
        process = RunProcess(
            environment={"SHOPLENS_DATA_DIR": "here"},
            logs=tmp_path / "logs",
            command=(sys.executable, "-c", program, *arguments),
        )
        made.append(RunLauncher(database, process, pauses_s=pauses_s))
        return made[-1]

    yield make
    for launcher in made:
        launcher.close()
    wait_for_nights()


def now() -> datetime:
    """The clock on the wall."""
    return datetime.now(UTC)


def wait_for_nights() -> None:
    """Until no launcher of this process sees a night through."""
    for thread in threading.enumerate():
        if thread.name.startswith("run-"):
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


def nights() -> list[psutil.Process]:
    """The nights that this process started."""
    return [child for child in psutil.Process().children() if "the-run" in child.cmdline()]


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another process or thread does."""
    give_up_at = time.monotonic() + TIMEOUT_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.005)


def owned_by(database: Database, run: BatchRun, worker: RunOwner) -> BatchRun:
    """The run after this worker took it over."""
    with database.transaction() as tx:
        RunRepository(tx).take_over(run, worker, now=now())
        return RunRepository(tx).get(run.id)


def dead_worker() -> RunOwner:
    """A process of this machine that is gone."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        worker = replace(
            this_process(1), id=make_id(2, os.urandom(10)), pid=process.pid, process=process_mark(process.pid)
        )
        process.communicate(b"\n")
    return worker


def test_a_night_is_told_its_run_and_these_settings_alone(
    make_launcher: Callable[..., RunLauncher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a session of its own, and what it says is in a file."""
    monkeypatch.setenv("SHOPLENS_PORT", "1")
    assert make_launcher(TELL).start("the-run")
    wait_for_nights()
    told = json.loads((tmp_path / "logs" / "run.log").read_text())
    assert {"SHOPLENS_DATA_DIR": "here"} == told["settings"]
    assert ("the-run", told["pid"]) == (told["run"], told["session"])


def test_a_night_that_ended_is_no_zombie(make_launcher: Callable[..., RunLauncher]) -> None:
    """It is waited for, however it ended."""
    launcher = make_launcher("import os; os.abort()")
    launcher.start("the-run")
    wait_for_nights()
    assert [] == [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]
    assert "ended by SIGABRT" in (launcher.trouble("the-run") or "")


def test_one_night_at_a_time_for_a_run(make_launcher: Callable[..., RunLauncher], tmp_path: Path) -> None:
    """A second start does nothing while the first one is at work; afterwards it may."""
    word = tmp_path / "word"
    os.mkfifo(word)
    launcher = make_launcher(WAIT_FOR_WORD, str(word))
    assert launcher.start("the-run")
    assert not launcher.start("the-run")
    word.write_text("0")
    wait_for_nights()
    assert launcher.start("the-run")
    word.write_text("0")


def test_a_night_goes_on_when_the_launcher_is_closed(make_launcher: Callable[..., RunLauncher], tmp_path: Path) -> None:
    """The server stops, the work does not; and nothing new is started."""
    word = tmp_path / "word"
    os.mkfifo(word)
    launcher = make_launcher(WAIT_FOR_WORD, str(word))
    launcher.start("the-run")
    until(lambda: len(nights()) == 1)
    launcher.close()
    (night,) = nights()
    assert night.is_running()
    assert not launcher.start("another-run")
    word.write_text("0")
    wait_for_nights()


def test_a_night_that_breaks_off_is_started_again_a_few_times(
    make_launcher: Callable[..., RunLauncher], run: BatchRun, tmp_path: Path
) -> None:
    """As long as the run is there to be worked on; then the reason is told."""
    launcher = make_launcher(COUNT_AND_FAIL, str(tmp_path / "starts"), "1", pauses_s=(0.0, 0.0))
    launcher.start(run.id)
    wait_for_nights()
    assert "xxx" == (tmp_path / "starts").read_text()
    assert "Its process ended with status 1. Error (storage_unavailable): The disk is full." == launcher.trouble(run.id)


@pytest.mark.parametrize("status", ["0", "143", "130"])
def test_a_night_that_is_through_or_was_told_to_stop_is_left_alone(
    make_launcher: Callable[..., RunLauncher], run: BatchRun, tmp_path: Path, status: str
) -> None:
    """Whoever stops one by hand is not worked against."""
    launcher = make_launcher(COUNT_AND_FAIL, str(tmp_path / "starts"), status, pauses_s=(0.0, 0.0))
    launcher.start(run.id)
    wait_for_nights()
    assert "x" == (tmp_path / "starts").read_text()


def test_a_run_that_is_over_or_taken_over_is_not_started_again(
    make_launcher: Callable[..., RunLauncher], database: Database, run: BatchRun, tmp_path: Path
) -> None:
    """Somebody else may have gone on meanwhile."""
    owned_by(database, run, this_process(1))
    launcher = make_launcher(COUNT_AND_FAIL, str(tmp_path / "starts"), "1", pauses_s=(0.0, 0.0))
    launcher.start(run.id)
    wait_for_nights()
    with database.transaction() as tx:
        owner = RunRepository(tx).get(run.id).owner or ""
        RunRepository(tx).finish(run.id, owner=owner, now=now(), report_key=None)
    launcher.start(run.id)
    wait_for_nights()
    assert "xx" == (tmp_path / "starts").read_text()


def test_a_request_ends_the_pause_before_a_new_start(
    make_launcher: Callable[..., RunLauncher], run: BatchRun, tmp_path: Path
) -> None:
    """A person who asks does not wait for a timer."""
    launcher = make_launcher(COUNT_AND_FAIL, str(tmp_path / "starts"), "1", pauses_s=(3_600.0,))
    launcher.start(run.id)
    until(lambda: launcher.resume("returns") is not None)
    wait_for_nights()
    assert "xx" == (tmp_path / "starts").read_text()


def test_a_program_that_is_not_there_is_told(make_launcher: Callable[..., RunLauncher], database: Database) -> None:
    """Instead of a thread that dies."""
    process = RunProcess(environment={}, logs=Path(os.devnull) / "logs", command=("no-such-program",))
    launcher = RunLauncher(database, process, pauses_s=())
    launcher.start("the-run")
    wait_for_nights()
    assert "No process could be started for it: Not a directory." == launcher.trouble("the-run")


def test_success_ends_the_trouble(make_launcher: Callable[..., RunLauncher], run: BatchRun, tmp_path: Path) -> None:
    """What is over is not told."""
    word = tmp_path / "word"
    os.mkfifo(word)
    launcher = make_launcher(WAIT_FOR_WORD, str(word), pauses_s=(0.0,))
    launcher.start(run.id)
    word.write_text("1")
    until(lambda: launcher.trouble(run.id) is not None)
    word.write_text("0")
    wait_for_nights()
    assert launcher.trouble(run.id) is None


def test_the_log_of_nights_does_not_grow_for_ever(make_launcher: Callable[..., RunLauncher], tmp_path: Path) -> None:
    """A large one makes room, and is kept beside the new one."""
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "run.log").write_bytes(b"." * 10_000_001)
    make_launcher(TELL).start("the-run")
    wait_for_nights()
    assert 10_000_001 == (logs / "run.1.log").stat().st_size
    assert (logs / "run.log").stat().st_size < 10_000


def test_an_abandoned_run_is_gone_on_with(
    make_launcher: Callable[..., RunLauncher], database: Database, run: BatchRun
) -> None:
    """Whether nobody took it yet or whoever did is gone."""
    assert run == make_launcher(TELL).resume("returns")
    wait_for_nights()
    gone = owned_by(database, run, dead_worker())
    assert gone == make_launcher(TELL).resume("returns")


def test_a_run_that_is_worked_on_is_left_alone(
    make_launcher: Callable[..., RunLauncher], database: Database, run: BatchRun
) -> None:
    """Its process lives on this machine: there is nothing to try."""
    owned_by(database, run, this_process(1))
    assert make_launcher(TELL).resume("returns", try_unknown=True) is None


def test_a_run_of_another_machine_is_only_tried_when_asked_to(
    make_launcher: Callable[..., RunLauncher], database: Database, run: BatchRun
) -> None:
    """Its process may live, which the night finds out by watching."""
    elsewhere = replace(this_process(1), host="elsewhere", process="another-boot/another-room/1")
    owned = owned_by(database, run, elsewhere)
    assert make_launcher(TELL).resume("returns") is None
    assert owned == make_launcher(TELL).resume("returns", try_unknown=True)


def test_nothing_is_resumed_where_no_run_is_active(make_launcher: Callable[..., RunLauncher]) -> None:
    """As on most days."""
    assert make_launcher(TELL).resume("returns", try_unknown=True) is None


def test_a_requested_run_is_worked_on_at_once(
    make_launcher: Callable[..., RunLauncher], database: Database, tmp_path: Path
) -> None:
    """And another request is refused while that is so."""
    word = tmp_path / "word"
    os.mkfifo(word)
    start = StartRun(database, make_launcher(WAIT_FOR_WORD, str(word)), clock=now)
    run = start("returns", "somebody")
    assert "somebody" == run.requested_by
    with pytest.raises(RunInProgress):
        start("returns", "somebody else")
    word.write_text("0")


def test_a_request_goes_on_with_a_run_whose_process_is_gone(
    make_launcher: Callable[..., RunLauncher], database: Database, run: BatchRun
) -> None:
    """Instead of being refused until somebody tidies up."""
    gone = owned_by(database, run, dead_worker())
    assert gone == StartRun(database, make_launcher(TELL), clock=now)("returns", "somebody")
