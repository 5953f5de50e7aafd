"""Whose run is it? Claim the active run for this process, or learn that another one works on it. No clock decides.

A process shows that it lives by raising the run's `heartbeat`. Whoever finds a run that has an owner either knows that
this owner is dead, because it ran on this machine and is no longer there, or watches the number for a while by its own
monotonic clock. What the clocks on the wall say is never compared.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shoplens.batch.entities import BatchRun, Worker
from shoplens.batch.runs import Clock
from shoplens.db import Database
from shoplens.db.ids import make_id
from shoplens.errors import RunInProgress, RunLost

_ENDED: Final = ("Z", "X", "x")
"""States of a process that has ended and that only its parent has not yet asked about."""
_LOOKS_PER_WATCH: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How time passes for whoever watches; tests bring their own."""

    monotonic: Callable[[], float] = time.monotonic
    pause: Callable[[float], object] = time.sleep


def this_process(now_ms: int) -> Worker:
    """This process under a new id."""
    return Worker(
        id=make_id(now_ms, os.urandom(10)), host=socket.gethostname(), pid=os.getpid(), process=mark_of(os.getpid())
    )


def is_gone(run: BatchRun) -> bool:
    """Whether the owner of `run` is known to be dead. False also means: that cannot be told from here."""
    if run.process is None or run.pid is None:
        return False
    machine, _, _ = run.process.rpartition("/")
    return machine != "" and machine == _machine() and mark_of(run.pid) != run.process


def claim(
    database: Database, run: BatchRun, me: Worker, *, takeover_s: float, clock: Clock, waiting: Waiting | None = None
) -> BatchRun:
    """Make `run` this process's own; what others had leased waits again.

    An owner that is not known to be dead is watched for `takeover_s`. Raises RunInProgress as soon as it shows a sign
    of life, and when another newcomer was quicker.
    """
    if run.owner is not None and not is_gone(run):
        _watch(database, run, takeover_s, waiting or Waiting())
    try:
        with database.uow() as work:
            work.batch_runs.take_over(run, me, now=clock())
            work.batch_items.release_others(run.channel, me.id)
            return work.batch_runs.get(run.id)
    except RunLost as error:
        raise _in_progress(run) from error


def mark_of(pid: int) -> str | None:
    """What no later process with this number will have, on no machine; None where it cannot be told or is dead.

    The part before the last slash names the machine since it was switched on and the room in it in which numbers of
    processes hold (containers have their own).
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    machine = _machine()
    return None if fields[0] in _ENDED or not machine else f"{machine}/{fields[19]}"


def _machine() -> str:
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    return ""


def _watch(database: Database, run: BatchRun, takeover_s: float, waiting: Waiting) -> None:
    """Returns when the owner gave no sign of life for `takeover_s`, or died. Raises RunInProgress."""
    until = waiting.monotonic() + takeover_s
    while waiting.monotonic() < until and not is_gone(run):
        waiting.pause(takeover_s / _LOOKS_PER_WATCH)
        with database.read_uow() as work:
            now = work.batch_runs.get(run.id)
        if (now.owner, now.heartbeat) != (run.owner, run.heartbeat):
            raise _in_progress(now)


def _in_progress(run: BatchRun) -> RunInProgress:
    who = f"process {run.pid} on {run.host}" if run.pid else "another process"
    return RunInProgress(f"The run {run.id} is being worked on by {who}; there is one run at a time.")
