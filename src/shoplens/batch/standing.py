"""How returns stand: the active run or the last one, its counts, and whether its owner is alive. Reads only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from shoplens.batch.entities import BatchRun, ItemState, RunCounts
from shoplens.batch.ownership import is_gone
from shoplens.db import Database


class OwnerState(StrEnum):
    """What can be told of the process that a run belongs to. `silent`: no sign of life for longer than it may be."""

    NOBODY = "nobody"
    ALIVE = "alive"
    SILENT = "silent"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`waiting` counts all items that wait, whichever run will take them. Times are in seconds and never negative.

    `seconds_per_item` is the mean time that the run's photos took to decode and classify, on one thread.
    """

    waiting: int
    run: BatchRun | None = None
    counts: RunCounts = field(default_factory=lambda: RunCounts(by_state={}))
    owner: OwnerState = OwnerState.NOBODY
    last_item_ago_s: float | None = None
    last_sign_ago_s: float | None = None
    per_second: float | None = None
    seconds_per_item: float | None = None

    @property
    def left(self) -> int:
        """Items that the run has yet to settle."""
        if self.run is None or not self.run.active:
            return 0
        return max(0, self.run.planned - self.counts.settled)

    @property
    def seconds_left(self) -> float | None:
        """At the mean speed of the run so far."""
        return self.left / self.per_second if self.per_second else None


class ShowBatch:
    """Blocks. Reads by index ranges of what waits and of one run, however many runs there were before."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime], takeover_s: float) -> None:
        self._database = database
        self._clock = clock
        self._takeover_s = takeover_s

    def __call__(self, channel: str) -> Standing:
        """Raises DatabaseUnavailable."""
        with self._database.read_uow() as work:
            waiting = work.batch_items.count_waiting(channel)
            run = work.batch_runs.active(channel) or next(iter(work.batch_runs.page(channel, limit=1)), None)
            if run is None:
                return Standing(waiting=waiting)
            counts = RunCounts(by_state=work.batch_items.count_states(run.id))
            photos, work_ms = work.batch_items.work_ms(run.id)
        return self._standing(run, waiting, counts, work_ms / photos / 1e3 if photos else None)

    def _standing(self, run: BatchRun, waiting: int, counts: RunCounts, seconds_per_item: float | None) -> Standing:
        now = self._clock()
        took_s = _between(run.started_at, run.last_item_at)
        return Standing(
            waiting=waiting,
            run=run,
            counts=counts,
            owner=owner_of(run, now=now, takeover_s=self._takeover_s),
            last_item_ago_s=_between(run.last_item_at, now),
            last_sign_ago_s=_between(run.heartbeat_at, now),
            per_second=counts.settled / took_s if took_s else None,
            seconds_per_item=seconds_per_item,
        )


def owner_of(run: BatchRun, *, now: datetime, takeover_s: float) -> OwnerState:
    """For people to see: a takeover is never decided by these times."""
    if run.owner is None or not run.active:
        return OwnerState.NOBODY
    if is_gone(run):
        return OwnerState.GONE
    silent_s = _between(run.heartbeat_at, now) or 0.0
    return OwnerState.SILENT if silent_s > takeover_s else OwnerState.ALIVE


def as_json(standing: Standing) -> dict[str, object]:
    """For programs; every state is named, also those without items."""
    run = standing.run
    facts: dict[str, object] = {"waiting": standing.waiting, "run": None}
    if run is None:
        return facts
    facts["run"] = {
        "id": run.id,
        "state": run.state.value,
        "requested_by": run.requested_by,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "last_item_at": run.last_item_at,
        "model": None if run.model is None else str(run.model),
        "planned": run.planned,
        "counts": {state.value: standing.counts[state] for state in ItemState if state is not ItemState.DUPLICATE},
        "left": standing.left,
        "per_second": standing.per_second,
        "seconds_left": standing.seconds_left,
        "seconds_per_item": standing.seconds_per_item,
        "last_item_ago_s": standing.last_item_ago_s,
        "last_sign_ago_s": standing.last_sign_ago_s,
        "stalled": run.stalled,
        "owner": {"state": standing.owner.value, "host": run.host, "pid": run.pid},
        "failure": run.failure,
        "report_key": run.report_key,
    }
    return facts


def _between(since: datetime | None, until: datetime | None) -> float | None:
    """Clocks jump; nothing was finished in the future."""
    return None if since is None or until is None else max(0.0, (until - since).total_seconds())
