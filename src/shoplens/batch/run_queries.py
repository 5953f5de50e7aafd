"""The repository of runs: request one, take it over, give signs of life, end it. Whoever lost a run is told so here."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from shoplens.batch.entities import BatchRun, RunOwner, RunState
from shoplens.batch.tables import batch_runs as runs
from shoplens.bundles.manifest import ModelRef
from shoplens.errors import RunLost, RunNotFound


class RunReader:
    """Read runs. Raises DatabaseUnavailable through the unit of work that owns it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, run_id: str) -> BatchRun:
        """Raises RunNotFound."""
        row = self._connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
        if row is None:
            raise RunNotFound(f"There is no run {run_id!r}.")
        return run_from_row(row)

    def active(self, channel: str) -> BatchRun | None:
        """The active run of a channel, if there is one."""
        row = self._connection.execute(select(runs).where(runs.c.channel == channel, runs.c.active == 1)).one_or_none()
        return None if row is None else run_from_row(row)

    def page(
        self, channel: str, *, limit: int, before: str | None = None, state: RunState | None = None
    ) -> list[BatchRun]:
        """At most `limit` runs, newest first, older than the run with the id `before`."""
        found = select(runs).where(runs.c.channel == channel).order_by(runs.c.id.desc()).limit(limit)
        if before is not None:
            found = found.where(runs.c.id < before)
        if state is not None:
            found = found.where(runs.c.state == state.value)
        return [run_from_row(row) for row in self._connection.execute(found)]


class RunRepository(RunReader):
    """Read and change runs. What only the owner may do raises RunLost when another process took the run over."""

    def add(self, run: BatchRun) -> None:
        """Request a run. Raises RecordRefused (through the unit of work) while another one is active."""
        self._connection.execute(
            insert(runs).values(
                id=run.id, channel=run.channel,
                created_at=run.created_at, requested_by=run.requested_by, state=run.state.value,
                active=1 if run.active else None, bound=run.bound, planned=run.planned, heartbeat=0, stalled=False,
            )
        )  # fmt: skip

    def take_over(self, run: BatchRun, me: RunOwner, *, now: datetime) -> None:
        """Become the owner of `run`, which was read as it is given here. Raises RunLost if it changed since."""
        unchanged = (
            runs.c.id == run.id,
            runs.c.active == 1,
            runs.c.owner.is_(None) if run.owner is None else runs.c.owner == run.owner,
            runs.c.heartbeat == run.heartbeat,
        )
        taken = update(runs).where(*unchanged).values(
            owner=me.id, host=me.host, pid=me.pid, process=me.process, heartbeat=runs.c.heartbeat + 1,
            heartbeat_at=now, stalled=False, state=RunState.RUNNING.value, started_at=run.started_at or now,
        )  # fmt: skip
        self._require(self._connection.execute(taken).rowcount, run.id)

    def describe(
        self, run_id: str, *, owner: str, model: ModelRef, policy_version: str, planned: int, bound: int
    ) -> None:
        """Say what decides in this run, and how much there is to do. Raises RunLost."""
        self._owned(
            run_id, owner, model_name=model.name, model_version=model.version, policy_version=policy_version,
            planned=planned, bound=bound,
        )  # fmt: skip

    def beat(self, run_id: str, *, owner: str, now: datetime, finished_item: bool, stalled: bool = False) -> None:
        """A sign of life; among results it also proves that they may be written. Raises RunLost."""
        progress: dict[str, Any] = {"last_item_at": now} if finished_item else {}
        self._owned(run_id, owner, heartbeat=runs.c.heartbeat + 1, heartbeat_at=now, stalled=stalled, **progress)

    def finish(self, run_id: str, *, owner: str, now: datetime, report_key: str | None) -> None:
        """It is through. Raises RunLost."""
        self._owned(
            run_id, owner, state=RunState.FINISHED.value, active=None, finished_at=now, report_key=report_key,
            stalled=False, failure=None,
        )  # fmt: skip

    def set_report(self, run_id: str, report_key: str) -> None:
        """The report of an ended run was written anew."""
        self._connection.execute(update(runs).where(runs.c.id == run_id).values(report_key=report_key))

    def interrupt(self, run_id: str, *, owner: str, reason: str | None) -> None:
        """Stop working on it, so that the next process can go on at once; it stays active. Raises RunLost."""
        self._owned(run_id, owner, owner=None, host=None, pid=None, process=None, failure=reason)

    def _owned(self, run_id: str, held_by: str, **values: Any) -> None:
        mine = update(runs).where(runs.c.id == run_id, runs.c.owner == held_by, runs.c.active == 1)
        self._require(self._connection.execute(mine.values(**values)).rowcount, run_id)

    @staticmethod
    def _require(changed: int, run_id: str) -> None:
        if changed != 1:
            raise RunLost(f"The run {run_id} is no longer this process's to work on.")


def run_from_row(row: Row[Any]) -> BatchRun:
    """One row as a value."""
    model = ModelRef(name=row.model_name, version=row.model_version) if row.model_name else None
    return BatchRun(
        id=row.id,
        channel=row.channel,
        created_at=row.created_at,
        requested_by=row.requested_by,
        state=RunState(row.state),
        bound=row.bound,
        planned=row.planned,
        model=model,
        policy_version=row.policy_version,
        owner=row.owner,
        host=row.host,
        pid=row.pid,
        process=row.process,
        heartbeat=row.heartbeat,
        started_at=row.started_at,
        heartbeat_at=row.heartbeat_at,
        last_item_at=row.last_item_at,
        finished_at=row.finished_at,
        stalled=row.stalled,
        failure=row.failure,
        report_key=row.report_key,
    )
