"""The process of a run: request a run, claim it, find out whether its owner is alive, start and supervise a process.

A process shows that it is alive by raising the run's `heartbeat`. Another process that finds a run with an owner either
knows that this owner ended, because it ran on this machine and is not there any more, or watches the heartbeat for a
while by its own monotonic clock. Wall clocks are never compared.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from sqlalchemy import Connection

from shoplens.batch.entities import BatchRun, Clock, RunOwner, RunState
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import DatabaseUnavailable, NothingWaiting, RecordRefused, RunInProgress, RunLost
from shoplens.messages import marked
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.tracing import TRACEPARENT, traceparent

RUN_COMMAND: Final = (sys.executable, "-m", "shoplens", "batch", "run", "--requested-by", "http", "--run")
"""The command of a run; the run's id is appended."""

_LOG: Final = "run.log"
_ERROR_LINE: Final = re.compile(r"error \((\w+)\): ")
"""How a command says why it failed: the code, and a sentence that may hold addresses and paths."""
_HINT: Final = "hint: "
_FORMER_LOG: Final = "run.1.log"
_LARGEST_LOG_BYTES: Final = 10_000_000
_LAST_LINES_BYTES: Final = 4_000
_SETTINGS_PREFIX: Final = "SHOPLENS_"
_NOT_STARTED: Final = -1
_STOPPED: Final = frozenset({-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT})
_ENDED: Final = ("Z", "X", "x")
"""States of a process that has ended and whose parent has not asked for its status yet."""
_LOOKS_PER_WATCH: Final = 20
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTime:
    """How time passes while another process is watched."""

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep


def cancel_run(database: Database, run_id: str, by: str, *, clock: Clock) -> BatchRun:
    """End an active run: its process stops at its next commit, and what it has not done waits for the next run. Blocks.

    What is done stays done. A run that has ended is returned as it is. Raises RunNotFound.
    """
    with database.transaction() as tx:
        run = RunRepository(tx).get(run_id)
        if RunRepository(tx).cancel(run_id, now=clock(), reason=marked(f"Cancelled by {by}.")):
            ItemRepository(tx).release_others(run.channel, "")
        return RunRepository(tx).get(run_id)


def request_run(database: Database, channel: str, requested_by: str, *, clock: Clock) -> BatchRun:
    """A new run over everything that waits in `channel` now. Blocks.

    Of several callers at once one gets the run. Raises RunInProgress while the channel has an active run, and
    NothingWaiting if no item waits: an empty run would hide the last one.
    """
    now = clock()
    in_progress = f"The channel {channel} has an active run already."
    try:
        with database.transaction() as tx:
            if RunRepository(tx).active(channel) is not None:
                raise RunInProgress(in_progress)
            ItemRepository(tx).hold_arrivals()
            bound = ItemRepository(tx).last_seq()
            planned = ItemRepository(tx).count_waiting(channel, bound=bound)
            if not planned:
                raise NothingWaiting(f"No photos of the channel {channel} wait, so no run was started.")
            run = BatchRun(
                id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
                channel=channel,
                created_at=now,
                requested_by=requested_by,
                state=RunState.REQUESTED,
                bound=bound,
                planned=planned,
            )
            RunRepository(tx).add(run)
    except RecordRefused as error:
        raise RunInProgress(in_progress) from error
    return run


def this_process(now_ms: int) -> RunOwner:
    """This process under a new id."""
    return RunOwner(
        id=make_id(now_ms, os.urandom(10)),
        host=socket.gethostname(),
        pid=os.getpid(),
        process=process_mark(os.getpid()),
    )


def process_mark(pid: int) -> str | None:
    """A mark that no other process has, on any machine and at any time; None if it ended or the mark cannot be read.

    The part before the last slash names the machine since its start, and the namespace in which process numbers count
    (containers have their own).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    machine = _machine()
    return None if fields[0] in _ENDED or not machine else f"{machine}/{fields[19]}"


class OwnedByProcess(Protocol):
    """What a process works on; both None where no process does."""

    @property
    def pid(self) -> int | None:
        """Its number on its machine."""
        ...

    @property
    def process(self) -> str | None:
        """Its `process_mark`."""
        ...


def has_ended(run: OwnedByProcess) -> bool:
    """Whether the owner of `run` is known to have ended. False also means that it cannot be known here."""
    return process_ended(run.pid, run.process)


def process_ended(pid: int | None, mark: str | None) -> bool:
    """Whether the process with this number and mark is known to have ended; False also where it cannot be known."""
    if mark is None or pid is None:
        return False
    machine, _, _ = mark.rpartition("/")
    return machine != "" and machine == _machine() and process_mark(pid) != mark


def claim(
    database: Database, run: BatchRun, me: RunOwner, *, takeover_s: float, clock: Clock, watch: WatchTime | None = None
) -> BatchRun:
    """Make this process the owner of `run`, and release the items that another process had leased. Blocks.

    An owner that is not known to have ended is watched for `takeover_s`. Raises RunInProgress as soon as it writes a
    heartbeat, and when another process was faster.
    """
    watch = watch or WatchTime()
    until = watch.monotonic() + takeover_s
    while run.owner is not None and not has_ended(run) and watch.monotonic() < until:
        watch.sleep(takeover_s / _LOOKS_PER_WATCH)
        with database.reading() as tx:
            now = RunRepository(tx).get(run.id)
        if (now.owner, now.heartbeat) != (run.owner, run.heartbeat):
            raise _in_progress(now)
    try:
        with database.transaction() as tx:
            RunRepository(tx).take_over(run, me, now=clock())
            ItemRepository(tx).release_others(run.channel, me.id)
            return RunRepository(tx).get(run.id)
    except RunLost as error:
        raise _in_progress(run) from error


def _in_progress(run: BatchRun) -> RunInProgress:
    who = marked(f"Process {run.pid} on {run.host}") if run.pid else marked("Another process")
    return RunInProgress(f"{who} works on the run {run.id}; a channel has one active run at a time.")


def _machine() -> str:
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProcess:
    """How a process for a run is started.

    `environment` holds its settings; other variables of that kind are left out. Its output goes to a file in `logs`,
    since a pipe would fill, or break when this server ends.
    """

    environment: Mapping[str, str]
    logs: Path
    command: Sequence[str] = RUN_COMMAND

    def start(self, run_id: str) -> subprocess.Popen[bytes]:
        """Raises OSError."""
        parent = traceparent()
        others = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS_PREFIX)}
        # One file for all runs and one older file; a run that still writes to the older one continues to.
        self.logs.mkdir(parents=True, exist_ok=True)
        if self._log_path.exists() and self._log_path.stat().st_size > _LARGEST_LOG_BYTES:
            self._log_path.replace(self.logs / _FORMER_LOG)
        with self._log_path.open("ab") as sink:
            return subprocess.Popen(
                [*self.command, run_id],
                env={**others, **self.environment, **({} if parent is None else {TRACEPARENT: parent})},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # signals of the terminal do not reach the run
            )

    def last_line(self) -> str | None:
        """The last line of the log, which is the error of a run that failed; None if it is a log event."""
        try:
            with self._log_path.open("rb") as log:
                log.seek(max(0, self._log_path.stat().st_size - _LAST_LINES_BYTES))
                text = log.read().decode(errors="replace")
        except OSError:
            return None
        lines = [line for line in text.splitlines() if not line.startswith(_HINT)]
        return lines[-1].strip() if lines and not lines[-1].startswith("{") else None

    @property
    def _log_path(self) -> Path:
        return self.logs / _LOG


@dataclass(slots=True)
class _Watch:
    """The state of the thread that supervises a run. `hurry` ends its pause between two processes."""

    hurry: threading.Event = field(default_factory=threading.Event)
    pausing: bool = False


class LaunchedRun(OwnedByProcess, Protocol):
    """A run that processes are started for. It is over when `active` is false; nobody works on it without `owner`."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def owner(self) -> str | None:
        """The process that works on it."""
        ...

    @property
    def active(self) -> object:
        """Whether it is not over."""
        ...


Run = TypeVar("Run", bound=LaunchedRun)
RunOut_co = TypeVar("RunOut_co", bound=LaunchedRun, covariant=True)


class LaunchedRuns(Protocol[RunOut_co]):
    """The runs in the database, over a transaction."""

    def active(self, channel: str, /) -> RunOut_co | None:
        """The run of a channel that is not over."""
        ...

    def get(self, run_id: str, /) -> RunOut_co:
        """Raises RunNotFound."""
        ...


class RunLauncher(Generic[Run]):
    """Starts processes for runs, restarts those that fail, and collects those that end. Thread-safe.

    `runs` reads them in a transaction. `pauses_s` are the seconds before each restart; there are no more restarts than
    that.
    """

    def __init__(
        self,
        database: Database,
        process: RunProcess,
        *,
        runs: Callable[[Connection], LaunchedRuns[Run]],
        pauses_s: Sequence[float] = (5.0, 20.0, 60.0),
    ) -> None:
        self._database = database
        self._process = process
        self._runs = runs
        self._pauses_s = tuple(pauses_s)
        self._lock = threading.Lock()
        self._watches: dict[str, _Watch] = {}
        self._trouble: dict[str, str] = {}
        self._closed = False

    def start(self, run_id: str) -> bool:
        """Start a process for this run. False if this launcher has one already, or is closed.

        The process itself checks whether another one owns the run.
        """
        with self._lock:
            watch = self._watches.get(run_id)
            if self._closed or (watch is not None and not watch.pausing):
                return False
            if watch is not None:
                watch.hurry.set()
                return True
            self._watches[run_id] = watch = _Watch()
        supervise = partial(copy_context().run, self._supervise, run_id, watch)
        threading.Thread(target=supervise, name=f"run-{run_id}", daemon=True).start()
        return True

    def resume(self, channel: str, *, try_unknown: bool = False) -> Run | None:
        """Continue the active run of a channel if its process has ended. The run, if a process was started for it.

        With `try_unknown` also if that cannot be known here: the new process watches the heartbeat itself. Raises
        DatabaseUnavailable.
        """
        with self._database.reading() as tx:
            run = self._runs(tx).active(channel)
        if run is None or not (_is_abandoned(run) or (try_unknown and not _is_alive(run))) or not self.start(run.id):
            return None
        _log.info("run.resumed", run=run.id, former_pid=run.pid)
        return run

    def trouble(self, run_id: str) -> str | None:
        """Why the last process that this launcher started for the run failed; None if none failed."""
        return self._trouble.get(run_id)

    def close(self) -> None:
        """Start no more processes. Those that run continue."""
        with self._lock:
            self._closed = True
            for watch in self._watches.values():
                watch.hurry.set()

    def _supervise(self, run_id: str, watch: _Watch) -> None:
        try:
            for pause_s in (*self._pauses_s, None):
                status = self._run(run_id)
                if status == 0 or status in _STOPPED or pause_s is None:
                    return
                with self._lock:
                    watch.pausing = True
                watch.hurry.wait(pause_s)
                with self._lock:
                    watch.pausing = False
                    watch.hurry.clear()
                if self._closed or not self._is_abandoned_now(run_id):
                    return
                _log.warning("run.restarted", run=run_id, status=status)
        finally:
            with self._lock:
                del self._watches[run_id]

    def _run(self, run_id: str) -> int:
        """Start a process and wait for its end; its exit status. Notes why it failed."""
        try:
            process = self._process.start(run_id)
        except OSError as error:
            self._trouble[run_id] = marked(f"No process could be started for it: {error.strerror}.")
            _log.error("run.not_started", run=run_id, reason=str(error))
            return _NOT_STARTED
        _log.info("run.launched", run=run_id, pid=process.pid)
        status = process.wait()
        if status == 0:
            self._trouble.pop(run_id, None)
        else:
            how = marked(f"ended with status {status}")
            if status < 0:
                names = {number.value: number.name for number in signal.Signals}
                how = marked(f"was ended by {names.get(-status, f'signal {-status}')}")
            line = self._process.last_line() or ""
            code = f" ({found[1]})" if (found := _ERROR_LINE.match(line)) else ""
            place = f"{self._process.logs.name}/{_LOG}"
            self._trouble[run_id] = marked(f"Its process {how}{code}. {place} has the details.")
            _log.warning("run.process_failed", run=run_id, pid=process.pid, status=status, reason=line)
        _log.info("run.process_ended", run=run_id, pid=process.pid, status=status)
        return status

    def _is_abandoned_now(self, run_id: str) -> bool:
        """Whether the run is still active and no process works on it."""
        try:
            with self._database.reading() as tx:
                run = self._runs(tx).get(run_id)
        except DatabaseUnavailable as error:
            _log.warning("run.state_unknown", run=run_id, reason=str(error))
            return True  # the process itself waits for the database
        return bool(run.active) and _is_abandoned(run)


class StartRun:
    """Requests a run and starts a process for it. Blocks. Thread-safe, also across processes."""

    def __init__(self, database: Database, launcher: RunLauncher[BatchRun], *, clock: Clock) -> None:
        self._database = database
        self._launcher = launcher
        self._clock = clock

    def __call__(self, channel: str, requested_by: str) -> BatchRun:
        """The new run, or the active one if its process had ended.

        Raises RunInProgress, NothingWaiting and DatabaseUnavailable.
        """
        try:
            run = request_run(self._database, channel, requested_by, clock=self._clock)
        except RunInProgress:
            resumed = self._launcher.resume(channel)
            if resumed is None:
                raise
            return resumed
        self._launcher.start(run.id)
        return run


def _is_abandoned(run: LaunchedRun) -> bool:
    """Whether it is known that no process works on it."""
    return run.owner is None or has_ended(run)


def _is_alive(run: LaunchedRun) -> bool:
    """Whether its process is known to be alive. Only its own machine can know."""
    return run.process is not None and run.pid is not None and process_mark(run.pid) == run.process
