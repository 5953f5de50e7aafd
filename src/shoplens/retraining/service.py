"""Retrainings for people: which there were, what they found, their yes or no, and the end of one that is at work."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shoplens.accounts.entities import Principal
from shoplens.batch.process import process_ended
from shoplens.db import Database
from shoplens.errors import BlobNotFound
from shoplens.messages import marked
from shoplens.retraining.entities import RetrainingRun, Stage
from shoplens.retraining.errors import RetrainingNotFound, RetrainingNotOpen, RetrainingRunning
from shoplens.retraining.promotion import Promotion
from shoplens.retraining.report import ChangedSample, Report, read_report
from shoplens.retraining.repository import RetrainingRepository
from shoplens.storage import Store

MAX_RUNS: Final = 200
_SILENT: Final = timedelta(minutes=2)
"""A process shows every few seconds that it is alive; one on another machine is known by that alone."""
_TRIES: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as people see it. `interrupted`: its process ended or is silent, and the next start continues it."""

    run: RetrainingRun
    interrupted: bool


class RetrainingService:
    """All methods block. They raise DatabaseUnavailable, StorageUnavailable and Unavailable of the registry."""

    def __init__(
        self, database: Database, store: Store, promotion: Promotion, *, clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._store = store
        self._promotion = promotion
        self._clock = clock

    def all(self, channel: str | None = None, *, limit: int = MAX_RUNS) -> list[RunView]:
        """Newest first, at most `MAX_RUNS`."""
        with self._database.reading() as tx:
            return [self._view(run) for run in RetrainingRepository(tx).all(channel, limit=min(limit, MAX_RUNS))]

    def get(self, run_id: str) -> RunView:
        """Raises RetrainingNotFound."""
        with self._database.reading() as tx:
            return self._view(RetrainingRepository(tx).get(run_id))

    def report(self, run_id: str) -> Report | None:
        """What it found; None before the gate. Raises RetrainingNotFound."""
        key = self.get(run_id).run.report_key
        if key is None:
            return None
        try:
            return read_report(self._store, key)
        except BlobNotFound:
            return None

    def example(self, run_id: str, sha256: str) -> ChangedSample:
        """A sample of the report by the hash of its photo. Raises RetrainingNotFound."""
        report = self.report(run_id)
        for sample in (*report.became_right, *report.became_wrong) if report else ():
            if sample.sha256 == sha256:
                return sample
        raise RetrainingNotFound(f"The report of the retraining {run_id[:80]!r} shows no such photo.")

    def approve(self, run_id: str, *, by: Principal, why: str) -> RunView:
        """Make its model champion. Raises RetrainingNotFound, RetrainingNotOpen and RetrainingOutdated."""
        return self._view(self._promotion.approve(run_id, by=by, why=why or f"Approved by {by.name}."))

    def reject(self, run_id: str, *, by: Principal, why: str) -> RunView:
        """Its model does not become champion. Raises RetrainingNotFound, RetrainingNotOpen and AliasChanged."""
        return self._view(self._promotion.reject(run_id, by=by, why=why or f"Rejected by {by.name}."))

    def cancel(self, run_id: str, *, by: Principal) -> RunView:
        """End one that is at work: its process ends at its next step, and publishes nothing.

        Raises RetrainingNotFound, and RetrainingNotOpen for one that has ended or is publishing its model.
        """
        for _ in range(_TRIES):
            with self._database.transaction() as tx:
                runs = RetrainingRepository(tx)
                run = runs.get(run_id)
                if not run.active:
                    raise RetrainingNotOpen(f"The retraining {run_id} has ended already.")
                if run.stage is Stage.PUBLISHING:
                    raise RetrainingNotOpen(
                        f"The retraining {run_id} is publishing its model. Wait until it has ended, then reject it."
                    )
                reason = marked(f"Cancelled by {by.name}.")
                if runs.cancel(run, now=self._clock(), reason=reason):
                    return self._view(runs.get(run_id))
        raise RetrainingRunning(f"The retraining {run_id} changes at this moment. Try again.")

    def _view(self, run: RetrainingRun) -> RunView:
        return RunView(run=run, interrupted=is_interrupted(run, self._clock()))


def is_interrupted(run: RetrainingRun, now: datetime) -> bool:
    """Whether nobody seems to work on an active retraining. A takeover is never decided by these times."""
    silent = now - (run.heartbeat_at or run.created_at) > _SILENT
    return run.active and (silent or process_ended(run.pid, run.process))
