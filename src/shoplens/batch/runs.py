"""Request a run of the waiting photos. Whoever requests it need not be the one who works on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from shoplens.batch.entities import BatchRun, RunState
from shoplens.db import Database
from shoplens.db.ids import make_id
from shoplens.errors import RecordRefused, RunInProgress

Clock = Callable[[], datetime]


class RequestRun:
    """Blocks; may be called from many threads and processes at once: one of them gets the run."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def __call__(self, channel: str, requested_by: str) -> BatchRun:
        """A run over everything that waits in `channel` now. Raises RunInProgress while another one is active there."""
        try:
            with self._database.uow() as work:
                work.batch_items.hold_arrivals()
                bound = work.batch_items.last_seq()
                run = self._run(
                    channel, requested_by, bound=bound, planned=work.batch_items.count_waiting(channel, bound=bound)
                )
                work.batch_runs.add(run)
        except RecordRefused as error:
            raise RunInProgress(f"A run of {channel} is active already; there is one at a time.") from error
        return run

    def _run(self, channel: str, requested_by: str, *, bound: int, planned: int) -> BatchRun:
        now = self._clock()
        return BatchRun(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)), channel=channel,
            created_at=now, requested_by=requested_by,
            state=RunState.REQUESTED, bound=bound, planned=planned,
        )  # fmt: skip
