"""Runs over photos and over products alike, for the commands that list, follow and cancel them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from sqlalchemy import Connection

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.advice import no_channel
from shoplens.batch.browse import rate_per_s
from shoplens.batch.entities import BatchRun, ItemState, RunCounts, RunState
from shoplens.batch.process import cancel_run, has_ended
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.catalogue.entities import CatalogueRun
from shoplens.catalogue.runs.repository import CatalogueRunRepository
from shoplens.db import Database
from shoplens.errors import RunNotFound
from shoplens.messages import marked
from shoplens.platform.parts import build_database, utc_now
from shoplens.settings import Settings

Kind = Literal["photos", "products"]
State = Literal["requested", "running", "interrupted", "finished", "cancelled"]

_NEWEST_PER_CHANNEL: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run over photos (`batch`) or products (`catalogue`).

    `done` of `planned` items are completed; `counts` says what became of them. `interrupted` is a run that no process
    works on; the next run of the channel goes on with it. `per_second` is the mean of the whole run.
    """

    id: str
    kind: Kind
    channel: str
    state: State
    requested_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    planned: int
    done: int
    counts: Mapping[str, int]
    per_second: float | None
    model: str | None
    pid: int | None
    host: str | None
    stalled: bool
    failure: str | None

    @property
    def active(self) -> bool:
        """Whether it is not over."""
        return self.state in ("requested", "running", "interrupted")

    @property
    def took_s(self) -> float | None:
        """From its start to its end, or until now; None before its start."""
        if self.started_at is None:
            return None
        return max(0.0, ((self.finished_at or utc_now()) - self.started_at).total_seconds())

    @property
    def left(self) -> int:
        """Items that it has not completed."""
        return max(0, self.planned - self.done)

    @property
    def seconds_left(self) -> float | None:
        """At its mean speed; None where that is not known, or it is over."""
        return self.left / self.per_second if self.active and self.per_second else None


class Runs:
    """All runs in a database. Methods block, and raise DatabaseUnavailable."""

    def __init__(self, database: Database, channels: frozenset[str]) -> None:
        self._database = database
        self._channels = channels

    def newest(self, channel: str | None = None, *, limit: int = 20, active: bool = False) -> list[Run]:
        """The newest runs first, of one channel or of all. Raises ChannelNotFound."""
        if channel is not None and channel not in self._channels:
            raise no_channel(channel, self._channels)
        most = min(limit, _NEWEST_PER_CHANNEL)
        found: list[Run] = []
        with self._database.reading() as tx:
            for name in sorted(self._channels) if channel is None else [channel]:
                photo_runs = RunRepository(tx).page(name, limit=most)
                found += [_of_photos(run, ItemRepository(tx).counts(run), self._own(tx, run)) for run in photo_runs]
                found += map(_of_products, CatalogueRunRepository(tx).newest(name, limit=most))
        found.sort(key=lambda run: run.id, reverse=True)
        return [run for run in found if run.active or not active][:limit]

    def get(self, run_id: str) -> Run:
        """Raises RunNotFound."""
        with self._database.reading() as tx:
            try:
                run = RunRepository(tx).get(run_id)
            except RunNotFound:
                return _of_products(CatalogueRunRepository(tx).get(run_id))
            return _of_photos(run, ItemRepository(tx).counts(run), self._own(tx, run))

    def cancel(self, run_id: str, *, by: Principal) -> Run:
        """End a run, also while a process works on it: that stops with its next commit. Raises RunNotFound.

        What is done stays. A run that is over stays as it is.
        """
        run = self.get(run_id)
        if not run.active:
            return run
        if run.kind == "photos":
            cancel_run(self._database, run_id, by.name, clock=utc_now)
        else:
            with self._database.transaction() as tx:
                CatalogueRunRepository(tx).cancel(run_id, by=by.name, now=utc_now())
        details = {"channel": run.channel}
        AuditLog(self._database, clock=utc_now).note(by, "run.cancelled", target=run_id, details=details)
        return self.get(run_id)

    @staticmethod
    def _own(tx: Connection, run: BatchRun) -> RunCounts:
        return RunCounts(by_state=ItemRepository(tx).count_own_states(run.id))


@contextmanager
def open_runs(settings: Settings) -> Iterator[Runs]:
    """All runs, for a command. Raises Misconfigured and DatabaseUnavailable."""
    with closing(build_database(settings)) as database:
        yield Runs(database, frozenset(settings.channels))


def _of_photos(run: BatchRun, counts: RunCounts, own: RunCounts) -> Run:
    state: State = "cancelled" if run.cancelled else "finished"
    if run.active:
        abandoned = run.state is RunState.RUNNING and (run.owner is None or has_ended(run))
        state = "interrupted" if abandoned else "running" if run.state is RunState.RUNNING else "requested"
    return Run(
        id=run.id,
        kind="photos",
        channel=run.channel,
        state=state,
        requested_by=run.requested_by,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        planned=run.planned,
        done=own.settled,
        counts={each.value: counts[each] for each in ItemState if counts[each]},
        per_second=rate_per_s(run, own.settled, utc_now()),
        model=None if run.model is None else str(run.model),
        pid=run.pid if run.active else None,
        host=run.host if run.active else None,
        stalled=run.stalled,
        failure=run.failure,
    )


def _of_products(run: CatalogueRun) -> Run:
    done = run.suggested + run.failed
    state: State = "cancelled" if run.cancelled_by else "finished"
    if run.active:
        abandoned = run.started_at is not None and (run.owner is None or has_ended(run))
        state = "interrupted" if abandoned else "running" if run.owner is not None else "requested"
    took_s = None
    if run.started_at is not None:
        took_s = ((run.finished_at or utc_now()) - run.started_at).total_seconds()
    return Run(
        id=run.id,
        kind="products",
        channel=run.channel,
        state=state,
        requested_by=run.requested_by,
        created_at=run.created_at,
        started_at=run.started_at,
        finished_at=run.finished_at,
        planned=run.planned,
        done=done,
        counts={name: count for name, count in (("suggested", run.suggested), ("failed", run.failed)) if count},
        per_second=done / took_s if done and took_s and took_s > 0 else None,
        model=run.model,
        pid=run.pid if run.active else None,
        host=run.host if run.active else None,
        stalled=False,
        failure=marked(f"Cancelled by {run.cancelled_by}.") if run.cancelled_by else run.failure,
    )
