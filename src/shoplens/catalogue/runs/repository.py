"""Runs over the catalogue in the database, over a transaction that the caller opened.

A method that only the owner of a run may call raises RunLost once another process has taken the run over.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, insert, select, update

from shoplens.batch.entities import RunOwner
from shoplens.catalogue.entities import CatalogueRun
from shoplens.catalogue.tables import runs
from shoplens.db.tables import from_row, to_row
from shoplens.errors import RunLost, RunNotFound

_runs: Final = runs.c


class CatalogueRunRepository:
    """The table `catalogue_runs`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, run: CatalogueRun) -> None:
        """Raises RecordRefused while the channel has an active run."""
        self._tx.execute(insert(runs), to_row(run))

    def get(self, run_id: str) -> CatalogueRun:
        """Raises RunNotFound."""
        row = self._tx.execute(select(runs).where(_runs.id == run_id)).one_or_none()
        if row is None:
            raise RunNotFound(f"There is no run {run_id!r}.")
        return from_row(CatalogueRun, row)

    def active(self, channel: str) -> CatalogueRun | None:
        """The run of a channel that is not finished."""
        row = self._tx.execute(select(runs).where(_runs.channel == channel, _runs.active == 1)).one_or_none()
        return None if row is None else from_row(CatalogueRun, row)

    def newest(self, channel: str, *, limit: int) -> list[CatalogueRun]:
        """The newest runs first."""
        query = select(runs).where(_runs.channel == channel).order_by(_runs.id.desc()).limit(limit)
        return [from_row(CatalogueRun, row) for row in self._tx.execute(query)]

    def take_over(self, run: CatalogueRun, me: RunOwner, *, now: datetime) -> None:
        """Become the owner of `run`, which was read as it is given here. Raises RunLost if it changed since."""
        unchanged = (
            _runs.id == run.id,
            _runs.active == 1,
            _runs.owner.is_(None) if run.owner is None else _runs.owner == run.owner,
            _runs.heartbeat == run.heartbeat,
        )
        taken = update(runs).where(*unchanged).values(
            owner=me.id, host=me.host, pid=me.pid, process=me.process, heartbeat=_runs.heartbeat + 1, heartbeat_at=now,
            started_at=run.started_at or now, failure=None,
        )  # fmt: skip
        _require(self._tx.execute(taken).rowcount, run.id)

    def describe(self, run_id: str, *, owner: str, model: str, tree: int, planned: int) -> None:
        """Set what the run works with, and how many products it has. Raises RunLost."""
        self._owned(run_id, owner, model=model, tree=tree, planned=planned)

    def beat(self, run_id: str, *, owner: str, now: datetime, suggested: int = 0, failed: int = 0) -> None:
        """A heartbeat with progress; in the transaction of results it proves the right to write. Raises RunLost."""
        self._owned(
            run_id, owner, heartbeat=_runs.heartbeat + 1, heartbeat_at=now, suggested=_runs.suggested + suggested,
            failed=_runs.failed + failed,
        )  # fmt: skip

    def finish(self, run_id: str, *, owner: str, now: datetime) -> None:
        """Raises RunLost."""
        self._owned(run_id, owner, active=None, finished_at=now, failure=None)

    def interrupt(self, run_id: str, *, owner: str, reason: str) -> None:
        """Give the run up, so that another process can go on at once. Raises RunLost."""
        self._owned(run_id, owner, owner=None, host=None, pid=None, process=None, failure=reason)

    def give_up(self, run: CatalogueRun, *, now: datetime, reason: str) -> None:
        """End a run that nobody works on before its end. Raises RunLost if somebody does meanwhile."""
        unchanged = _runs.id == run.id, _runs.active == 1, _runs.heartbeat == run.heartbeat
        ended = update(runs).where(*unchanged).values(active=None, finished_at=now, failure=reason, owner=None)
        _require(self._tx.execute(ended).rowcount, run.id)

    def cancel(self, run_id: str, *, by: str, now: datetime) -> None:
        """End a run before its end, although a process works on it; one that has ended stays so."""
        active = update(runs).where(_runs.id == run_id, _runs.active == 1)
        self._tx.execute(active.values(active=None, finished_at=now, cancelled_by=by, owner=None, failure=None))

    def _owned(self, run_id: str, held_by: str, **values: Any) -> None:
        mine = update(runs).where(_runs.id == run_id, _runs.owner == held_by, _runs.active == 1)
        _require(self._tx.execute(mine.values(**values)).rowcount, run_id)


def _require(changed: int, run_id: str) -> None:
    if changed != 1:
        raise RunLost(f"This process no longer owns the run {run_id}.")
