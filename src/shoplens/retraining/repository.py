"""Retrainings and labels in question in the database, over a transaction that the caller opened.

Every method raises DatabaseUnavailable and RecordRefused through that transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, delete, func, insert, select, update

from shoplens.batch.entities import RunOwner
from shoplens.db.tables import from_row, to_row
from shoplens.errors import RunLost
from shoplens.retraining.entities import CANCELLED, OPEN, RetrainingRun, RetrainingState, Stage, Suspect
from shoplens.retraining.errors import RetrainingNotFound, SuspectNotFound
from shoplens.retraining.tables import retraining_runs, retraining_suspects

_runs: Final = retraining_runs.c
_suspects: Final = retraining_suspects.c


class RetrainingRepository:
    """The table `retraining_runs`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, run: RetrainingRun) -> None:
        """Raises RecordRefused where the model has an active retraining already."""
        self._tx.execute(insert(retraining_runs), _row(run))

    def get(self, run_id: str) -> RetrainingRun:
        """Raises RetrainingNotFound."""
        row = self._tx.execute(select(retraining_runs).where(_runs.id == run_id)).one_or_none()
        if row is None:
            raise RetrainingNotFound(f"There is no retraining {run_id[:80]!r}.")
        return from_row(RetrainingRun, row)

    def active(self, model: str) -> RetrainingRun | None:
        """The one that runs, or was interrupted."""
        row = self._tx.execute(
            select(retraining_runs).where(_runs.model == model, _runs.active.is_not(None))
        ).one_or_none()
        return None if row is None else from_row(RetrainingRun, row)

    def open(self, model: str | None = None) -> list[RetrainingRun]:
        """Those whose model is the challenger, newest first."""
        found = select(retraining_runs).where(_runs.state.in_([state.value for state in OPEN]))
        if model is not None:
            found = found.where(_runs.model == model)
        return [from_row(RetrainingRun, row) for row in self._tx.execute(found.order_by(_runs.id.desc()))]

    def all(self, channel: str | None = None, *, limit: int) -> list[RetrainingRun]:
        """Newest first."""
        found = select(retraining_runs) if channel is None else select(retraining_runs).where(_runs.channel == channel)
        rows = self._tx.execute(found.order_by(_runs.id.desc()).limit(limit))
        return [from_row(RetrainingRun, row) for row in rows]

    def candidates(self, model: str) -> list[str]:
        """Every version that was ever made of a model."""
        return list(self._tx.scalars(select(_runs.candidate).where(_runs.model == model)))

    def take_over(self, seen: RetrainingRun, me: RunOwner, *, now: datetime) -> None:
        """Make `me` the owner. Raises RunLost where another process was faster."""
        same = (_runs.id == seen.id, _runs.active.is_not(None), _runs.owner == seen.owner)
        values = {"owner": me.id, "host": me.host, "pid": me.pid, "process": me.process, "heartbeat_at": now}
        self._require(update(retraining_runs).where(*same, _runs.heartbeat == seen.heartbeat).values(values), seen.id)

    def beat(self, run_id: str, owner: str, *, now: datetime) -> None:
        """Raises RunLost where another process took it over, or it ended."""
        mine = (_runs.id == run_id, _runs.owner == owner, _runs.active.is_not(None))
        values = {"heartbeat": _runs.heartbeat + 1, "heartbeat_at": now}
        self._require(update(retraining_runs).where(*mine).values(values), run_id)

    def advance(self, run: RetrainingRun) -> None:
        """Write the progress of an active run that this process owns. Raises RunLost as `beat` does."""
        mine = (_runs.id == run.id, _runs.owner == run.owner, _runs.active.is_not(None))
        values = {name: value for name, value in _row(run).items() if name not in _BEATS}
        self._require(update(retraining_runs).where(*mine).values(values), run.id)

    def cancel(self, seen: RetrainingRun, *, now: datetime, reason: str) -> bool:
        """End an active run, whoever works on it; False if its stage or owner is not that of `seen` any more."""
        values = {"state": RetrainingState.FAILED.value, "stage": Stage.DONE.value, "active": None,
                  "finished_at": now, "failure_code": CANCELLED, "failure": reason}  # fmt: skip
        same = (_runs.id == seen.id, _runs.active.is_not(None), _runs.stage == seen.stage.value)
        change = update(retraining_runs).where(*same, _runs.owner == seen.owner).values(values)
        return self._tx.execute(change).rowcount == 1

    def decide(self, changed: RetrainingRun, *, seen: RetrainingRun) -> bool:
        """Write the end of a run whose state is still that of `seen`; False if it is not."""
        same = (_runs.id == seen.id, _runs.state == seen.state.value)
        return self._tx.execute(update(retraining_runs).where(*same).values(_row(changed))).rowcount == 1

    def _require(self, change: Any, run_id: str) -> None:
        if self._tx.execute(change).rowcount != 1:
            raise RunLost(f"The retraining {run_id} was cancelled, or another process took it over.")


class SuspectRepository:
    """The table `retraining_suspects`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def replace_open(self, run: RetrainingRun, found: Sequence[Suspect]) -> None:
        """The labels in question of a channel; those of earlier runs that nobody answered go."""
        same = (_suspects.channel == run.channel, _suspects.outcome.is_(None))
        self._tx.execute(delete(retraining_suspects).where(*same))
        self._tx.execute(delete(retraining_suspects).where(_suspects.run_id == run.id))
        if found:
            self._tx.execute(insert(retraining_suspects), [to_row(each) for each in found])

    def kept(self, channel: str) -> set[tuple[str, str, str]]:
        """Source, sample and label of those that a person confirmed; they are not asked again."""
        found = select(_suspects.source, _suspects.sample_id, _suspects.label)
        rows = self._tx.execute(found.where(_suspects.channel == channel, _suspects.outcome == "kept"))
        return {(row.source, row.sample_id, row.label) for row in rows}

    def open(self, channel: str, *, limit: int, offset: int = 0) -> list[Suspect]:
        """Those that nobody answered, the most suspicious first."""
        found = select(retraining_suspects).where(_suspects.channel == channel, _suspects.outcome.is_(None))
        rows = self._tx.execute(found.order_by(_suspects.rank, _suspects.id).limit(limit).offset(offset))
        return [from_row(Suspect, row) for row in rows]

    def count_open(self) -> dict[str, int]:
        """By channel."""
        found = select(_suspects.channel, func.count()).where(_suspects.outcome.is_(None)).group_by(_suspects.channel)
        return {row[0]: row[1] for row in self._tx.execute(found)}

    def get(self, suspect_id: str) -> Suspect:
        """Raises SuspectNotFound."""
        row = self._tx.execute(select(retraining_suspects).where(_suspects.id == suspect_id)).one_or_none()
        if row is None:
            raise SuspectNotFound(f"There is no label in question {suspect_id[:80]!r}. Load the page again.")
        return from_row(Suspect, row)

    def settle(self, changed: Suspect) -> None:
        """Store what a person said."""
        values = {"outcome": changed.outcome, "decided_at": changed.decided_at, "decided_by": changed.decided_by}
        self._tx.execute(update(retraining_suspects).where(_suspects.id == changed.id).values(values))

    def forget(self, sample_ids: Collection[str]) -> None:
        """Remove those of erased samples."""
        self._tx.execute(delete(retraining_suspects).where(_suspects.sample_id.in_(sample_ids)))


_BEATS: Final = frozenset({"heartbeat", "heartbeat_at", "owner", "host", "pid", "process"})


def _row(run: RetrainingRun) -> dict[str, Any]:
    return {**to_row(run), "state": run.state.value, "stage": run.stage.value,
            "active": 1 if run.state is RetrainingState.RUNNING else None}  # fmt: skip
