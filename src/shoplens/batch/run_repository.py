"""Runs in the database, over a transaction that the caller opened.

Every method raises DatabaseUnavailable and RecordRefused through that transaction. A method that only the owner of a
run may call raises RunLost once another process has taken the run over.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from shoplens.batch.entities import BatchRun, RunOwner, RunState
from shoplens.batch.tables import batch_runs
from shoplens.bundles.manifest import ModelRef
from shoplens.errors import RunLost, RunNotFound

_runs: Final = batch_runs.c


class RunRepository:
    """The table `batch_runs`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def get(self, run_id: str) -> BatchRun:
        """Raises RunNotFound."""
        row = self._tx.execute(select(batch_runs).where(_runs.id == run_id)).one_or_none()
        if row is None:
            raise RunNotFound(f"There is no run {run_id!r}.")
        return _run(row)

    def some(self, run_ids: Collection[str]) -> list[BatchRun]:
        """Those of these runs that exist."""
        return [_run(row) for row in self._tx.execute(select(batch_runs).where(_runs.id.in_(run_ids)))]

    def active(self, channel: str) -> BatchRun | None:
        """The active run of a channel, if there is one."""
        row = self._tx.execute(select(batch_runs).where(_runs.channel == channel, _runs.active == 1)).one_or_none()
        return None if row is None else _run(row)

    def page(
        self, channel: str, *, limit: int, before: str | None = None, state: RunState | None = None
    ) -> list[BatchRun]:
        """At most `limit` runs, newest first, older than the run with the id `before`."""
        found = select(batch_runs).where(_runs.channel == channel).order_by(_runs.id.desc()).limit(limit)
        if before is not None:
            found = found.where(_runs.id < before)
        if state is not None:
            found = found.where(_runs.state == state.value)
        return [_run(row) for row in self._tx.execute(found)]

    def add(self, run: BatchRun) -> None:
        """Request a run. Raises RecordRefused while another one is active."""
        self._tx.execute(
            insert(batch_runs).values(
                id=run.id, channel=run.channel,
                created_at=run.created_at, requested_by=run.requested_by, state=run.state.value,
                active=1 if run.active else None, bound=run.bound, planned=run.planned, heartbeat=0, stalled=False,
            )
        )  # fmt: skip

    def take_over(self, run: BatchRun, me: RunOwner, *, now: datetime) -> None:
        """Become the owner of `run`, which was read as it is given here. Raises RunLost if it changed since."""
        unchanged = (
            _runs.id == run.id,
            _runs.active == 1,
            _runs.owner.is_(None) if run.owner is None else _runs.owner == run.owner,
            _runs.heartbeat == run.heartbeat,
        )
        taken = update(batch_runs).where(*unchanged).values(
            owner=me.id, host=me.host, pid=me.pid, process=me.process, heartbeat=_runs.heartbeat + 1,
            heartbeat_at=now, stalled=False, state=RunState.RUNNING.value, started_at=run.started_at or now,
        )  # fmt: skip
        self._require(self._tx.execute(taken).rowcount, run.id)

    def describe(
        self, run_id: str, *, owner: str, model: ModelRef, policy_version: str, planned: int, bound: int
    ) -> None:
        """Set the model, the policy and the size of the run. Raises RunLost."""
        self._owned(
            run_id, owner, model_name=model.name, model_version=model.version, policy_version=policy_version,
            planned=planned, bound=bound,
        )  # fmt: skip

    def beat(self, run_id: str, *, owner: str, now: datetime, finished_item: bool, stalled: bool = False) -> None:
        """Write a heartbeat; in the transaction of results it also proves the right to write them. Raises RunLost."""
        progress: dict[str, Any] = {"last_item_at": now} if finished_item else {}
        self._owned(run_id, owner, heartbeat=_runs.heartbeat + 1, heartbeat_at=now, stalled=stalled, **progress)

    def finish(self, run_id: str, *, owner: str, now: datetime, report_key: str | None) -> None:
        """Finish the run. Raises RunLost."""
        self._owned(
            run_id, owner, state=RunState.FINISHED.value, active=None, finished_at=now, report_key=report_key,
            stalled=False, failure=None,
        )  # fmt: skip

    def report_keys(self, limit: int) -> list[str]:
        """The keys of the newest reports."""
        stored = select(_runs.report_key).where(_runs.report_key.is_not(None)).order_by(_runs.id.desc()).limit(limit)
        return [str(key) for key in self._tx.execute(stored).scalars()]

    def set_report(self, run_id: str, report_key: str) -> None:
        """Note the key of a finished run's report."""
        self._tx.execute(update(batch_runs).where(_runs.id == run_id).values(report_key=report_key))

    def interrupt(self, run_id: str, *, owner: str, reason: str | None) -> None:
        """Give the run up, so that another process can resume it at once; it stays active. Raises RunLost."""
        self._owned(run_id, owner, owner=None, host=None, pid=None, process=None, failure=reason)

    def cancel(self, run_id: str, *, now: datetime, reason: str) -> bool:
        """End a run, whichever process owns it; that process then loses it. False for a run that is not active."""
        ended = update(batch_runs).where(_runs.id == run_id, _runs.active == 1).values(
            state=RunState.FINISHED.value, active=None, finished_at=now, stalled=False, owner=None, failure=reason,
        )  # fmt: skip
        return self._tx.execute(ended).rowcount == 1

    def discard(self, run_id: str, *, owner: str) -> None:
        """Remove a run that never began. Raises RunLost, and RecordRefused if it has items."""
        mine = delete(batch_runs).where(_runs.id == run_id, _runs.owner == owner, _runs.active == 1)
        self._require(self._tx.execute(mine).rowcount, run_id)

    def _owned(self, run_id: str, held_by: str, **values: Any) -> None:
        mine = update(batch_runs).where(_runs.id == run_id, _runs.owner == held_by, _runs.active == 1)
        self._require(self._tx.execute(mine.values(**values)).rowcount, run_id)

    @staticmethod
    def _require(changed: int, run_id: str) -> None:
        if changed != 1:
            raise RunLost(f"This process no longer owns the run {run_id}.")


_PLAIN_RUN: Final = tuple(field for field in BatchRun.__dataclass_fields__ if field not in ("model", "state"))


def _run(row: Row[Any]) -> BatchRun:
    columns = row._mapping  # noqa: SLF001  public, see Row
    return BatchRun(state=RunState(row.state), model=model_of(row), **{name: columns[name] for name in _PLAIN_RUN})


def model_of(row: Row[Any]) -> ModelRef | None:
    """The model that the columns `model_name` and `model_version` name."""
    return ModelRef(name=row.model_name, version=row.model_version) if row.model_name else None
