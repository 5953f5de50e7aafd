"""Accept very many suggestions, or take that back: a job in the background, some hundred products per transaction.

What a transaction decides and how far the job is are committed together. So a job that is killed goes on where it was,
in the next process, and decides on each product once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from shoplens.accounts.entities import Principal
from shoplens.catalogue.bulk.repository import BulkRepository
from shoplens.catalogue.decisions import Author, decided, decision_on, restored, suggested_category
from shoplens.catalogue.entities import BulkJob, CategoryDecisionKind, ProductState
from shoplens.catalogue.errors import BulkNotFound, BulkRunning, DecisionNotLast
from shoplens.catalogue.job_process import JobThreads, is_abandoned, owned
from shoplens.catalogue.repository import DecisionRepository, ProductFilter, ProductOrder, ProductRepository
from shoplens.catalogue.tree.categories import Tree
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import DatabaseUnavailable, RecordRefused, RequestInvalid, ShoplensError
from shoplens.telemetry.logs import get_logger

OnProgress = Callable[[BulkJob], None]

_AT_ONCE: Final = 500
_PAUSE_S: Final = 0.02
"""Between two transactions, so that other writers get their turn on SQLite."""
_RETRY_S: Final = 2.0
_log: Final = get_logger(__name__)


class BulkService:
    """Bulk acceptances of all channels; one at a time in each. Methods block and may be called from many threads.

    `tree_of` gives the live tree of a channel. Close it at the end.
    """

    def __init__(self, database: Database, *, tree_of: Callable[[str], Tree], clock: Callable[[], datetime]) -> None:
        self._database = database
        self._tree_of = tree_of
        self._clock = clock
        self._threads = JobThreads("catalogue-bulk")

    def count(self, wanted: ProductFilter) -> int:
        """How many products an acceptance would look at now."""
        with self._database.reading() as tx:
            return ProductRepository(tx).count(_acceptable(wanted))

    def start(self, wanted: ProductFilter, *, by: Principal) -> BulkJob:
        """Accept the best suggestion of every product that matches and is not decided, in the background.

        `wanted` needs a `min_score`. Suggestions that come later are left out. Raises RequestInvalid, and BulkRunning
        while another one of the channel is at work.
        """
        job = self._begin(self._acceptance(wanted, by))
        self._threads.start(job, self._work)
        return job

    def run(self, wanted: ProductFilter, *, by: Principal, on_progress: OnProgress = lambda _: None) -> BulkJob:
        """The same in this thread; goes on with the same acceptance if its process has ended. Raises as `start`."""
        return self._all(self._begun(self._acceptance(wanted, by)), on_progress)

    def undo(self, bulk_id: str, *, by: Principal) -> BulkJob:
        """Take an acceptance back in the background, but for products on which somebody decided since.

        Raises BulkNotFound, BulkRunning, and DecisionNotLast where nothing of it stands, or somebody else made it.
        """
        job = self._begin(self._taking_back(bulk_id, by))
        self._threads.start(job, self._work)
        return job

    def take_back(self, bulk_id: str, *, by: Principal, on_progress: OnProgress = lambda _: None) -> BulkJob:
        """The same in this thread; goes on with what was interrupted. Raises as `undo`."""
        return self._all(self._begun(self._taking_back(bulk_id, by)), on_progress)

    def cancel(self, bulk_id: str, *, by: Principal) -> BulkJob:
        """Leave out what is not done yet; what is done stays. Raises BulkNotFound. One that has ended stays so."""
        with self._database.transaction() as tx:
            job = BulkRepository(tx).get(bulk_id, lock=True)
            if job.finished_at is None:
                job = replace(job, active=None, finished_at=self._clock(), cancelled_by=by.name)
                BulkRepository(tx).update(job)
        return job

    def get(self, bulk_id: str) -> BulkJob:
        """Raises BulkNotFound."""
        with self._database.reading() as tx:
            return BulkRepository(tx).get(bulk_id)

    def newest(self, channel: str, *, limit: int = 20) -> list[BulkJob]:
        """The newest of a channel first."""
        with self._database.reading() as tx:
            return BulkRepository(tx).newest(channel, limit=limit)

    def standing(self, bulk_id: str) -> int:
        """How many decisions of an acceptance stand."""
        with self._database.reading() as tx:
            return DecisionRepository(tx).count_bulk(bulk_id)

    def wait(self, job: BulkJob, timeout_s: float) -> BulkJob:
        """The job when it has ended here, or as far as it is after `timeout_s`."""
        self._threads.wait(job.id, timeout_s)
        return self.get(job.id)

    def resume(self) -> int:
        """Go on with what processes left that have ended; how many. Raises DatabaseUnavailable."""
        with self._database.reading() as tx:
            left = BulkRepository(tx).unfinished()
        mine = [claimed for job in left if (claimed := self._claimed(job)) is not None]
        for job in mine:
            _log.info("catalogue.bulk_resumed", id=job.id, done=job.done)
            self._threads.start(job, self._work)
        return len(mine)

    def stop(self) -> None:
        """Let the work end after its current transaction; the next start goes on with it."""
        self._threads.stopping.set()

    def close(self) -> None:
        """`stop`, and wait for what is in the background. Blocks."""
        self._threads.close()

    def _acceptance(self, wanted: ProductFilter, by: Principal) -> BulkJob:
        if wanted.min_score is None:
            raise RequestInvalid("Name the least score from which on suggestions are accepted.")
        return self._job(wanted.channel, by, planned=self.count(wanted), wanted=_as_json(wanted))

    def _taking_back(self, bulk_id: str, by: Principal) -> BulkJob:
        accepted = self.get(bulk_id)
        if accepted.by != by.id:
            raise DecisionNotLast(f"{accepted.by_name} accepted these products, and may undo it.")
        with self._database.reading() as tx:
            planned = DecisionRepository(tx).count_bulk(bulk_id)
        if accepted.undoes is not None or not planned:
            raise DecisionNotLast("Nothing of this bulk acceptance stands any more.")
        return replace(self._job(accepted.channel, by, planned=planned, wanted={}), undoes=bulk_id)

    def _job(self, channel: str, by: Principal, *, planned: int, wanted: Mapping[str, Any]) -> BulkJob:
        now = self._clock()
        return BulkJob(
            id=new_id(now), channel=channel, created_at=now, by=by.id, by_name=by.name, wanted=wanted, planned=planned
        )

    def _begun(self, new: BulkJob) -> BulkJob:
        """The job that is at work where it is the same and its process has ended, else `new`. Raises BulkRunning."""
        with self._database.reading() as tx:
            before = BulkRepository(tx).active(new.channel)
        if before is not None and (before.undoes, before.wanted) == (new.undoes, new.wanted):
            return self._claimed(before) or self._begin(new)
        return self._begin(new)

    def _begin(self, new: BulkJob) -> BulkJob:
        job = owned(new, self._clock())
        try:
            with self._database.transaction() as tx:
                BulkRepository(tx).add(job)
        except RecordRefused as error:
            raise BulkRunning(
                f"Another bulk acceptance of the channel {new.channel} is at work. Wait for it, or cancel it."
            ) from error
        return job

    def _claimed(self, before: BulkJob) -> BulkJob | None:
        """The job as this process owns it now; None if another one does."""
        now = self._clock()
        if not is_abandoned(before, now):
            return None
        mine = owned(before, now)
        with self._database.transaction() as tx:
            return mine if BulkRepository(tx).claim(mine, before) else None

    def _work(self, job: BulkJob) -> None:
        try:
            self._all(job)
        except ShoplensError as error:
            _log.warning("catalogue.bulk_failed", id=job.id, code=error.code, reason=str(error))
            self._note(job, error.public)
        except Exception:  # noqa: BLE001  a thread has nobody to raise to; the job says so
            _log.exception("catalogue.bulk_crashed", id=job.id)
            self._note(job, "It ended because of a fault in the program. The log has the details.")

    def _all(self, job: BulkJob, on_progress: OnProgress = lambda _: None) -> BulkJob:
        """Work until the job has ended, this process is asked to stop, or another one took the job."""
        while job.finished_at is None and not self._threads.stopping.is_set():
            try:
                current = self._some(job)
            except DatabaseUnavailable as error:
                _log.warning("catalogue.bulk_waits", id=job.id, reason=str(error))
                self._threads.stopping.wait(_RETRY_S)
                continue
            if current.process != job.process:
                return current
            job = current
            on_progress(job)
            self._threads.stopping.wait(_PAUSE_S)
        return job

    def _some(self, job: BulkJob) -> BulkJob:
        """One transaction of work; the job after it."""
        with self._database.transaction() as tx:
            current = BulkRepository(tx).get(job.id, lock=True)
            if current.finished_at is not None or current.process != job.process:
                return current
            now = self._clock()
            after = self._accept(tx, current, now) if current.undoes is None else self._take_back(tx, current, now)
            if after.finished_at is not None:
                after = replace(after, active=None)
            BulkRepository(tx).update(replace(after, beat_at=now))
        return after

    def _accept(self, tx: Connection, job: BulkJob, now: datetime) -> BulkJob:
        wanted, tree = _acceptable(_from_json(job)), self._tree_of(job.channel)
        repository = ProductRepository(tx)
        page = repository.page(wanted, order=ProductOrder.ID, limit=_AT_ONCE, after=job.cursor or None)
        seen = {each.id: each.revision for each in page}
        author = Author(id=job.by, name=job.by_name)
        changed, made = [], []
        for product in repository.lock_many(seen).values():
            category = suggested_category(product)
            late = product.suggested_at is not None and product.suggested_at > job.created_at
            if product.revision != seen[product.id] or late or category is None or category not in tree:
                continue
            changed.append(decided(product, CategoryDecisionKind.ACCEPTED, category, by=author, now=now))
            made.append(
                decision_on(
                    product, CategoryDecisionKind.ACCEPTED, by=author, now=now, category=category, bulk_id=job.id
                )
            )
        repository.replace_decided(changed)
        DecisionRepository(tx).add_many(made)
        return replace(
            job,
            done=job.done + len(made),
            cursor=page[-1].id if page else job.cursor,
            finished_at=now if len(page) < _AT_ONCE else None,
        )

    def _take_back(self, tx: Connection, job: BulkJob, now: datetime) -> BulkJob:
        decisions = DecisionRepository(tx)
        found = decisions.of_bulk(job.undoes or "", limit=_AT_ONCE)
        ids = {each.product_id for _, each in found}
        products, last = ProductRepository(tx).lock_many(ids), decisions.last_numbers(ids)
        standing = [each for number, each in found if last.get(each.product_id) == number]
        mine = [(products[each.product_id], each) for each in standing if each.product_id in products]
        author = Author(id=job.by, name=job.by_name)
        ProductRepository(tx).replace_decided([restored(product, each, now=now) for product, each in mine])
        decisions.add_many(
            decision_on(product, CategoryDecisionKind.UNDONE, by=author, now=now, category=each.before)
            for product, each in mine
        )
        decisions.mark_undone([number for number, _ in found], now)
        return replace(job, done=job.done + len(mine), finished_at=now if len(found) < _AT_ONCE else None)

    def _note(self, job: BulkJob, error: str) -> None:
        """End a job that failed: a person sees why, and starts it again."""
        try:
            with self._database.transaction() as tx:
                latest = BulkRepository(tx).get(job.id, lock=True)
                BulkRepository(tx).update(replace(latest, active=None, error=error, finished_at=self._clock()))
        except (BulkNotFound, DatabaseUnavailable) as problem:
            _log.warning("catalogue.bulk_not_ended", id=job.id, reason=str(problem))


def _acceptable(wanted: ProductFilter) -> ProductFilter:
    # A suggestion that was accepted unseen would say nothing in its random check.
    return replace(wanted, state=ProductState.SUGGESTED, without_checks=True)


def _as_json(wanted: ProductFilter) -> dict[str, Any]:
    own = ("channel", "state", "without_checks")
    values = {each.name: getattr(wanted, each.name) for each in fields(wanted) if each.name not in own}
    if wanted.categories is not None:
        values["categories"] = sorted(wanted.categories)
    return {name: value for name, value in values.items() if value is not None}


def _from_json(job: BulkJob) -> ProductFilter:
    values = dict(job.wanted)
    if "categories" in values:
        values["categories"] = frozenset(values["categories"])
    return ProductFilter(channel=job.channel, **values)
