"""Work in the background that outlives its process: whose it is, whether that process has ended, and threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

from shoplens.batch.process import has_ended, process_mark
from shoplens.catalogue.entities import BulkJob, ImportJob

Job = TypeVar("Job", ImportJob, BulkJob)

_SILENT: Final = timedelta(minutes=2)
"""After so long without a commit a process of another machine counts as ended."""
_CLOSE_TIMEOUT_S: Final = 20.0


def owned(job: Job, now: datetime) -> Job:
    """The job as this process works on it."""
    return replace(job, pid=os.getpid(), process=process_mark(os.getpid()), beat_at=now)


def is_abandoned(job: ImportJob | BulkJob, now: datetime) -> bool:
    """Whether the process that works on it has ended, or is on another machine and has committed nothing lately."""
    mine = process_mark(os.getpid())
    if job.process is not None and mine is not None and _machine_of(job.process) == _machine_of(mine):
        return has_ended(job)
    return job.beat_at is None or now - job.beat_at > _SILENT


def _machine_of(mark: str) -> str:
    """What `process_mark` says of the machine."""
    return mark.rpartition("/")[0]


class JobThreads:
    """The threads of jobs; `stopping` asks them to end after what they are committing. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._threads: dict[str, threading.Thread] = {}
        self.stopping: Final = threading.Event()

    def start(self, job: Job, work: Callable[[Job], object]) -> None:
        """Work on `job` in a thread of its own. `work` handles its own errors."""
        thread = threading.Thread(target=work, args=(job,), name=self._name, daemon=True)
        with self._lock:
            self._threads = {key: each for key, each in self._threads.items() if each.is_alive()}
            self._threads[job.id] = thread
        thread.start()

    def wait(self, job_id: str, timeout_s: float) -> None:
        """Until the work of this process on a job has ended, `timeout_s` at most."""
        with self._lock:
            thread = self._threads.get(job_id)
        if thread is not None:
            thread.join(timeout_s)

    def close(self) -> None:
        """Set `stopping`, and wait for the threads. Blocks."""
        self.stopping.set()
        for thread in list(self._threads.values()):
            thread.join(_CLOSE_TIMEOUT_S)
