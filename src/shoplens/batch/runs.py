"""Request a run of the waiting photos. Whoever requests it need not be the one who works on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime

from shoplens.batch.entities import ReturnRun, RunState
from shoplens.db import Database
from shoplens.db.ids import make_id
from shoplens.errors import RecordRefused, RunInProgress

Clock = Callable[[], datetime]


class RequestRun:
    """Blocks; may be called from many threads and processes at once: one of them gets the run."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def __call__(self, requested_by: str) -> ReturnRun:
        """A run over everything that waits now. Raises RunInProgress while another one is active."""
        try:
            with self._database.uow() as work:
                work.return_items.hold_arrivals()
                bound = work.return_items.last_seq()
                run = self._run(requested_by, bound=bound, planned=work.return_items.count_waiting(bound=bound))
                work.return_runs.add(run)
        except RecordRefused as error:
            raise RunInProgress("A run is active already; there is one at a time.") from error
        return run

    def _run(self, requested_by: str, *, bound: int, planned: int) -> ReturnRun:
        now = self._clock()
        return ReturnRun(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)), created_at=now, requested_by=requested_by,
            state=RunState.REQUESTED, bound=bound, planned=planned,
        )  # fmt: skip
