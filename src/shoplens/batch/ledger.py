"""The transactions of a night. Each proves that the run is still this process's own; a stranger writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from shoplens.batch.entities import BatchItem, BatchRun, ItemState
from shoplens.batch.moves import Moved, note
from shoplens.batch.runs import Clock
from shoplens.batch.verdicts import Verdict, failed
from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database
from shoplens.db.uow import UnitOfWork
from shoplens.errors import DatabaseUnavailable, RecordRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one commit takes note of, and how many further items it shall lease."""

    verdicts: Sequence[Verdict] = ()
    moved: Moved = field(default_factory=Moved)
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """What came of a batch: the verdicts as they were written, and the items that are leased now."""

    verdicts: Sequence[Verdict]
    leased: Sequence[BatchItem]


class Ledger:
    """All methods block. `commit` is for one thread; `beat` may come from another. Each raises RunLost."""

    def __init__(
        self, database: Database, run: BatchRun, *, clock: Clock, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._run_id = run.id
        self._channel = run.channel
        self._owner = run.owner or ""
        self._bound = run.bound
        self._clock = clock
        self._monotonic = monotonic
        self._held: set[str] = set()
        self._in_doubt = False
        self.last_beat_at = monotonic()

    def begin(self, model: ModelRef, policy_version: str) -> tuple[BatchRun, dict[ItemState, int]]:
        """Say what decides, and take in all that waits by now. The run, and where its items stand already."""
        with self._database.uow() as work:
            before = work.batch_items.count_states(self._run_id)
            work.batch_items.hold_arrivals()
            bound = work.batch_items.last_seq()
            planned = work.batch_items.count_waiting(self._channel, bound=bound)
            planned += sum(count for state, count in before.items() if state is not ItemState.WAITING)
            work.batch_runs.describe(
                self._run_id,
                owner=self._owner,
                model=model,
                policy_version=policy_version,
                planned=planned,
                bound=bound,
            )
            run = work.batch_runs.get(self._run_id)
        self._bound = bound
        return run, before

    def commit(self, batch: Batch) -> Committed:
        """Write a batch: all or nothing, but for rows that the database refuses; those items fail by themselves.

        Raises DatabaseUnavailable; the same batch may then be given again, whatever became of the first attempt.
        """
        try:
            written = self._write(batch)
        except RecordRefused as error:
            return self._one_by_one(batch, error)
        except DatabaseUnavailable:
            self._in_doubt = True
            raise
        self._in_doubt = False
        self._held.difference_update(verdict.item.id for verdict in batch.verdicts)
        self._held.update(item.id for item in written.leased)
        self.last_beat_at = self._monotonic()
        return written

    def beat(self, *, stalled: bool) -> None:
        """A sign of life. Raises DatabaseUnavailable."""
        with self._database.uow() as work:
            work.batch_runs.beat(
                self._run_id, owner=self._owner, now=self._clock(), finished_item=False, stalled=stalled
            )
        self.last_beat_at = self._monotonic()

    def finish(self, report_key: str | None) -> BatchRun:
        """The run is through. Raises DatabaseUnavailable."""
        with self._database.uow() as work:
            work.batch_runs.finish(self._run_id, owner=self._owner, now=self._clock(), report_key=report_key)
            return work.batch_runs.get(self._run_id)

    def interrupt(self, reason: str | None) -> BatchRun:
        """Give back what is leased and leave the run to the next process. Raises DatabaseUnavailable."""
        with self._database.uow() as work:
            work.batch_runs.interrupt(self._run_id, owner=self._owner, reason=reason)
            work.batch_items.release(self._owner)
            return work.batch_runs.get(self._run_id)

    def _write(self, batch: Batch) -> Committed:
        with self._database.uow() as work:
            work.batch_runs.beat(self._run_id, owner=self._owner, now=self._clock(), finished_item=bool(batch.verdicts))
            verdicts = self._unwritten(work, batch.verdicts) if self._in_doubt else batch.verdicts
            work.predictions.add_many(each.record for each in verdicts if each.record is not None)
            work.batch_items.settle((each.settlement for each in verdicts), owner=self._owner)
            note(work, batch.moved)
            leased = self._lease(work, batch.lease) if batch.lease else []
        return Committed(verdicts=batch.verdicts, leased=leased)

    def _lease(self, work: UnitOfWork, limit: int) -> list[BatchItem]:
        return work.batch_items.lease(
            self._channel, owner=self._owner, run_id=self._run_id, bound=self._bound, limit=limit
        )

    def _unwritten(self, work: UnitOfWork, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """A commit whose answer was lost may have taken effect: leave out what it wrote, give back what it leased."""
        work.batch_items.release(self._owner, keep=self._held)
        mine = work.batch_items.leased_by(self._owner)
        return [verdict for verdict in verdicts if verdict.item.id in mine]

    def _one_by_one(self, batch: Batch, error: RecordRefused) -> Committed:
        """Find the row that does not fit: its item fails for good, and its neighbours do not share its fate."""
        if len(batch.verdicts) <= 1:
            return self._refused(batch, error)
        self.commit(Batch(moved=batch.moved))
        parts = [self.commit(Batch(verdicts=[verdict])) for verdict in batch.verdicts]
        leased = self.commit(Batch(lease=batch.lease)).leased
        return Committed(verdicts=[each for part in parts for each in part.verdicts], leased=leased)

    def _refused(self, batch: Batch, error: RecordRefused) -> Committed:
        if not batch.verdicts or batch.verdicts[0].record is None:
            raise error
        item = batch.verdicts[0].item
        verdict = failed(item, error, max_attempts=item.attempts + 1, now=self._clock())
        return self.commit(Batch(verdicts=[verdict], moved=batch.moved, lease=batch.lease))
