"""Let a process of its own work on a run: it outlives whoever asked for it, and this server as well."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from shoplens.batch.entities import BatchRun
from shoplens.batch.ownership import is_gone, mark_of
from shoplens.batch.runs import RequestRun
from shoplens.db import Database
from shoplens.errors import DatabaseUnavailable, RunInProgress

NIGHT: Final = (sys.executable, "-m", "shoplens", "batch", "run", "--requested-by", "http", "--run")
"""The command of a night; the id of its run is appended."""

_LOG: Final = "run.log"
_FORMER_LOG: Final = "run.1.log"
_LARGEST_LOG_BYTES: Final = 10_000_000
_LAST_WORDS_BYTES: Final = 4_000
_PREFIX: Final = "SHOPLENS_"
_NOT_STARTED: Final = -1
_TOLD_TO_STOP: Final = frozenset({-signal.SIGTERM, -signal.SIGINT, 128 + signal.SIGTERM, 128 + signal.SIGINT})
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightProcess:
    """How a night is started as a process.

    `environment` is what it finds its settings in; every other variable of that kind is left out. What it writes goes
    to a file in `logs`: a pipe would fill, or break when this server ends.
    """

    environment: Mapping[str, str]
    logs: Path
    command: Sequence[str] = NIGHT

    def start(self, run_id: str) -> subprocess.Popen[bytes]:
        """Raises OSError."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
        self._make_room()
        with self._log_path.open("ab") as sink:
            return subprocess.Popen(
                [*self.command, run_id],
                env={**others, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # neither a closed terminal nor a key pressed in it reaches the night
            )

    def last_words(self) -> str | None:
        """The last line of the log, which is the sentence of a night that failed; None where it says nothing."""
        try:
            with self._log_path.open("rb") as log:
                log.seek(max(0, self._log_path.stat().st_size - _LAST_WORDS_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return None
        return lines[-1].strip() if lines and not lines[-1].startswith("{") else None

    @property
    def _log_path(self) -> Path:
        return self.logs / _LOG

    def _make_room(self) -> None:
        """One file for all nights, with its predecessor beside it; a night that still writes to that one goes on so."""
        self.logs.mkdir(parents=True, exist_ok=True)
        if self._log_path.exists() and self._log_path.stat().st_size > _LARGEST_LOG_BYTES:
            self._log_path.replace(self.logs / _FORMER_LOG)


@dataclass(slots=True)
class _Watch:
    """A thread that sees a run through. `hurry` ends its pause; `pausing` is true from one process to the next."""

    hurry: threading.Event = field(default_factory=threading.Event)
    pausing: bool = False


class NightLauncher:
    """Starts nights, starts those again that break off, and leaves no zombies. Thread-safe.

    `pauses_s` are the seconds before each new start; there are no more of them than that.
    """

    def __init__(
        self, database: Database, process: NightProcess, *, pauses_s: Sequence[float] = (5.0, 20.0, 60.0)
    ) -> None:
        self._database = database
        self._process = process
        self._pauses_s = tuple(pauses_s)
        self._lock = threading.Lock()
        self._watches: dict[str, _Watch] = {}
        self._trouble: dict[str, str] = {}
        self._closed = False

    def start(self, run_id: str) -> bool:
        """Let a process work on this run. False where one of this launcher's does already, or it is closed.

        The process refuses by itself where somebody else's works on the run.
        """
        with self._lock:
            watch = self._watches.get(run_id)
            if self._closed or (watch is not None and not watch.pausing):
                return False
            if watch is not None:
                watch.hurry.set()
                return True
            self._watches[run_id] = watch = _Watch()
        threading.Thread(target=self._see_through, args=(run_id, watch), name=f"night-{run_id}", daemon=True).start()
        return True

    def resume(self, channel: str, *, try_unknown: bool = False) -> BatchRun | None:
        """Go on with the active run of a channel if nobody works on it. The run, where a process was started for it.

        With `try_unknown` also where that cannot be told from here: the process watches for signs of life by itself.
        Raises DatabaseUnavailable.
        """
        with self._database.read_uow() as work:
            run = work.batch_runs.active(channel)
        if run is None or not (_is_abandoned(run) or (try_unknown and not _is_alive(run))) or not self.start(run.id):
            return None
        _log.info("night.resumed", run=run.id, state=run.state.value, former_pid=run.pid)
        return run

    def trouble(self, run_id: str) -> str | None:
        """Why the last process that was started here for this run ended without success; None where none did."""
        return self._trouble.get(run_id)

    def close(self) -> None:
        """Start nothing any more. Nights that run go on."""
        with self._lock:
            self._closed = True
            for watch in self._watches.values():
                watch.hurry.set()

    def _see_through(self, run_id: str, watch: _Watch) -> None:
        try:
            for pause_s in (*self._pauses_s, None):
                status = self._run(run_id)
                if status == 0 or status in _TOLD_TO_STOP or pause_s is None:
                    return
                self._pause(watch, pause_s)
                if self._closed or not self._is_left_alone(run_id):
                    return
                _log.warning("night.restarted", run=run_id, status=status)
        finally:
            with self._lock:
                del self._watches[run_id]

    def _pause(self, watch: _Watch, seconds: float) -> None:
        with self._lock:
            watch.pausing = True
        watch.hurry.wait(seconds)
        with self._lock:
            watch.pausing = False
            watch.hurry.clear()

    def _run(self, run_id: str) -> int:
        """Start a night and wait for its end; the status that it ended with."""
        try:
            process = self._process.start(run_id)
        except OSError as error:
            self._trouble[run_id] = f"No process could be started for it: {error.strerror}."
            _log.error("night.not_started", run=run_id, reason=str(error))
            return _NOT_STARTED
        _log.info("night.launched", run=run_id, pid=process.pid)
        status = process.wait()
        self._note(run_id, status)
        _log.info("night.ended", run=run_id, pid=process.pid, status=status)
        return status

    def _note(self, run_id: str, status: int) -> None:
        if status == 0:
            self._trouble.pop(run_id, None)
            return
        words = self._process.last_words() or f"{_LOG} in the log folder may say why."
        self._trouble[run_id] = f"{_end_of(status)} {words}"

    def _is_left_alone(self, run_id: str) -> bool:
        """Whether the run is still to be worked on and nobody does."""
        try:
            with self._database.read_uow() as work:
                run = work.batch_runs.get(run_id)
        except DatabaseUnavailable as error:
            _log.warning("night.unknown", run=run_id, reason=str(error))
            return True  # the night itself waits for a database that is away
        return run.active and _is_abandoned(run)


class StartRun:
    """Request a run and let a process work on it at once. Blocks; may be called from many threads and processes."""

    def __init__(self, request: RequestRun, launcher: NightLauncher) -> None:
        self._request = request
        self._launcher = launcher

    def __call__(self, channel: str, requested_by: str) -> BatchRun:
        """The new run, or the active one where its process was gone. Raises RunInProgress and DatabaseUnavailable."""
        try:
            run = self._request(channel, requested_by)
        except RunInProgress:
            resumed = self._launcher.resume(channel)
            if resumed is None:
                raise
            return resumed
        self._launcher.start(run.id)
        return run


def _end_of(status: int) -> str:
    """How a process ended, in a sentence."""
    if status >= 0:
        return f"Its process ended with status {status}."
    names = {number.value: number.name for number in signal.Signals}
    return f"Its process was ended by {names.get(-status, f'signal {-status}')}."


def _is_abandoned(run: BatchRun) -> bool:
    """Whether it is known that nobody works on it."""
    return run.owner is None or is_gone(run)


def _is_alive(run: BatchRun) -> bool:
    """Whether it is known that its process lives, which can be told on its own machine only."""
    return run.process is not None and run.pid is not None and mark_of(run.pid) == run.process
