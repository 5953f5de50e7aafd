"""A run that this process owns: lease its items, write their results, and show that the process is alive.

The part of a run that talks to the database; `runner` decides when. Each method confirms the ownership in the
transaction in which it writes, so a process that lost the run changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from shoplens.batch.entities import BatchItem, BatchRun, Clock, ItemState
from shoplens.batch.executors import ProcessedItem, ResultBuilder
from shoplens.batch.files import Moved, note_moves
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database
from shoplens.errors import DatabaseUnavailable, RecordRefused
from shoplens.predictions.repository import PredictionRepository


class OwnedRun:
    """A run and the items that are leased to this process.

    All methods block, and may be called from several threads. Each raises RunLost and DatabaseUnavailable.
    """

    def __init__(
        self,
        database: Database,
        run: BatchRun,
        *,
        results: ResultBuilder,
        clock: Clock,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self.run = run
        self._owner = run.owner or ""
        self._results = results
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._held: set[str] = set()
        self._lease_in_doubt = False
        self._commit_in_doubt = False
        self._over = False
        self.heartbeat_at = monotonic()
        """When the last heartbeat was written, by the monotonic clock."""

    def begin(self, model: ModelRef, policy_version: str) -> dict[ItemState, int]:
        """Note what decides, and extend the run to all items that wait now. The states of the items it had before."""
        with self._database.transaction() as tx:
            before = ItemRepository(tx).count_own_states(self.run.id)
            ItemRepository(tx).hold_arrivals()
            bound = ItemRepository(tx).last_seq()
            planned = ItemRepository(tx).count_waiting(self.run.channel, bound=bound)
            planned += sum(count for state, count in before.items() if state is not ItemState.WAITING)
            RunRepository(tx).describe(
                self.run.id, owner=self._owner, model=model, policy_version=policy_version, planned=planned, bound=bound
            )
            self.run = RunRepository(tx).get(self.run.id)
        return before

    def lease(self, limit: int) -> list[BatchItem]:
        """Up to `limit` waiting items, which are this process's until they are committed or released."""
        with self._lock:
            try:
                with self._database.transaction() as tx:
                    self._beat(tx, finished_item=False)
                    if self._lease_in_doubt:  # the answer to a commit was lost: what it leased is not known here
                        ItemRepository(tx).release(self.run.channel, self._owner, keep=self._held)
                    leased = ItemRepository(tx).lease(
                        self.run.channel, owner=self._owner, run_id=self.run.id, bound=self.run.bound, limit=limit
                    )
            except DatabaseUnavailable:
                self._lease_in_doubt = True
                raise
            self._lease_in_doubt = False
            self._held.update(item.id for item in leased)
            self.heartbeat_at = self._monotonic()
            return leased

    def commit(self, processed: Sequence[ProcessedItem], moved: Moved) -> Sequence[ProcessedItem]:
        """Write results and finished moves: all or nothing, but an item whose row the database refuses fails alone.

        What was written. After DatabaseUnavailable the same call may be repeated, even if the first took effect.
        """
        with self._lock:
            try:
                self._write(processed, moved)
            except RecordRefused as error:
                refused = error
            else:
                return processed
        if len(processed) > 1:
            self.commit((), moved)
            return [written for each in processed for written in self.commit([each], Moved())]
        if not processed or (processed[0].record is None and processed[0].also is None):
            raise refused
        return self.commit([self._results.failed(processed[0].item, refused, final=True)], moved)

    def beat(self, *, stalled: bool) -> None:
        """Write a heartbeat. Does nothing once this process has ended the run or given it up."""
        with self._lock:
            if self._over:
                return
            with self._database.transaction() as tx:
                RunRepository(tx).beat(
                    self.run.id, owner=self._owner, now=self._clock(), finished_item=False, stalled=stalled
                )
        self.heartbeat_at = self._monotonic()

    def finish(self, report_key: str | None, also: Callable[[Connection], None] = lambda _: None) -> BatchRun:
        """End the run, and write `also` in the same transaction."""
        with self._lock:
            with self._database.transaction() as tx:
                RunRepository(tx).finish(self.run.id, owner=self._owner, now=self._clock(), report_key=report_key)
                also(tx)
                finished = RunRepository(tx).get(self.run.id)
            self._over = True
        return finished

    def interrupt(self, reason: str | None) -> BatchRun:
        """Release what is leased, and leave the run to the next process."""
        with self._lock:
            with self._database.transaction() as tx:
                RunRepository(tx).interrupt(self.run.id, owner=self._owner, reason=reason)
                ItemRepository(tx).release(self.run.channel, self._owner)
                released = RunRepository(tx).get(self.run.id)
            self._over = True
        return released

    def discard(self) -> BatchRun:
        """Remove the run, which never began."""
        with self._lock, self._database.transaction() as tx:
            RunRepository(tx).discard(self.run.id, owner=self._owner)
        return self.run

    def _write(self, processed: Sequence[ProcessedItem], moved: Moved) -> None:
        try:
            with self._database.transaction() as tx:
                self._beat(tx, finished_item=bool(processed))
                if self._commit_in_doubt:  # an attempt whose answer was lost may have taken effect
                    mine = ItemRepository(tx).leased_by(self.run.channel, self._owner)
                    processed = [each for each in processed if each.item.id in mine]
                PredictionRepository(tx).add_many(each.record for each in processed if each.record is not None)
                ItemRepository(tx).complete((each.result for each in processed), owner=self._owner)
                for each in processed:
                    if each.also is not None:
                        each.also(tx)
                note_moves(tx, moved)
        except RecordRefused:
            raise
        except DatabaseUnavailable:
            self._commit_in_doubt = True
            raise
        self._commit_in_doubt = False
        self._held.difference_update(each.item.id for each in processed)
        self.heartbeat_at = self._monotonic()

    def _beat(self, tx: Connection, *, finished_item: bool) -> None:
        RunRepository(tx).beat(self.run.id, owner=self._owner, now=self._clock(), finished_item=finished_item)
