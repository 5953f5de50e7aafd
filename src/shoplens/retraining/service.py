"""Retrainings for people: which there were, what they found, and their yes or no."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from shoplens.accounts.entities import Principal
from shoplens.batch.process import process_ended
from shoplens.db import Database
from shoplens.errors import BlobNotFound
from shoplens.messages import marked
from shoplens.retraining.entities import RetrainingRun, RetrainingState
from shoplens.retraining.errors import RetrainingNotFound, RetrainingNotOpen
from shoplens.retraining.promotion import Promotion
from shoplens.retraining.report import ChangedSample, Report, read_report
from shoplens.retraining.repository import RetrainingRepository
from shoplens.storage import Store

MAX_RUNS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """A run as people see it. `interrupted`: its process ended, and the next start continues it."""

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
            return [_view(run) for run in RetrainingRepository(tx).all(channel, limit=min(limit, MAX_RUNS))]

    def get(self, run_id: str) -> RunView:
        """Raises RetrainingNotFound."""
        with self._database.reading() as tx:
            return _view(RetrainingRepository(tx).get(run_id))

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
        return _view(self._promotion.approve(run_id, by=by, why=why or f"Approved by {by.name}."))

    def reject(self, run_id: str, *, by: Principal, why: str) -> RunView:
        """Its model does not become champion. Raises RetrainingNotFound, RetrainingNotOpen and AliasChanged."""
        return _view(self._promotion.reject(run_id, by=by, why=why or f"Rejected by {by.name}."))

    def cancel(self, run_id: str, *, by: Principal) -> RunView:
        """End one that is at work: its process stops within seconds, and nothing is published any more.

        Raises RetrainingNotFound, and RetrainingNotOpen for one that has ended.
        """
        with self._database.transaction() as tx:
            runs = RetrainingRepository(tx)
            run = runs.get(run_id)
            if not runs.cancel(run_id, now=self._clock(), reason=marked(f"Cancelled by {by.name}.")):
                raise RetrainingNotOpen(f"The retraining {run_id} has ended already.")
            return _view(runs.get(run_id))


def _view(run: RetrainingRun) -> RunView:
    return RunView(run=run, interrupted=run.state is RetrainingState.RUNNING and process_ended(run.pid, run.process))
