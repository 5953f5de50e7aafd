"""Look at runs and returned items: how far a night is, what became of each photo, and the photos themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from shoplens.batch.entities import BatchItem, BatchRun, ItemFilter, ItemState, RunCounts
from shoplens.batch.item_photos import ItemPhotos
from shoplens.db import Database
from shoplens.db.uow import ReadWork
from shoplens.predictions.entities import PredictionRecord
from shoplens.predictions.image_store import ImageFile, ImageSize, ImageStore

MAX_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run with its counts, for lists. Duplicates are those that arrived between the run before and this one."""

    run: BatchRun
    counts: RunCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run as it stands.

    `counts` is of all that the run accounts for: its own items, and the duplicates and refused files that arrived
    since the run before. `labels` counts items by state and label. `left` is how many items it has yet to do.
    `rate_per_s` is over the whole run so far, None before the first item; `seconds_left` follows from it, None where
    nothing can be said; `last_item_ago_s` is None before the first item.
    """

    run: BatchRun
    counts: RunCounts
    labels: Mapping[tuple[ItemState, str], int]
    left: int
    rate_per_s: float | None
    seconds_left: float | None
    last_item_ago_s: float | None

    @property
    def settled(self) -> int:
        """How many of the planned items are behind it."""
        return max(0, self.run.planned - self.left)

    @property
    def progress(self) -> float:
        """From 0 to 1. A run that has ended is through, whatever was added to it or taken from it since."""
        if not self.run.active:
            return 1.0
        return min(1.0, self.settled / self.run.planned) if self.run.planned else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPage:
    """Items, newest first. `older` and `newer` are cursors (values of `seq`), None where nothing lies there."""

    items: list[BatchItem]
    older: int | None
    newer: int | None


class BrowseBatch:
    """Reads only, but for thumbnails, which are made once. All methods block."""

    def __init__(self, database: Database, shelf: ImageStore, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._photos = ItemPhotos(database, shelf)
        self._clock = clock

    def runs(self, channel: str, *, limit: int = 30, before: str | None = None) -> list[RunSummary]:
        """At most `limit` runs, newest first, older than the run with the id `before`."""
        with self._database.read_uow() as work:
            found = work.batch_runs.page(channel, limit=min(limit, MAX_PAGE), before=before)
            return [RunSummary(run=run, counts=_counts(work, run)) for run in found]

    def run(self, run_id: str) -> RunView:
        """Raises RunNotFound."""
        with self._database.read_uow() as work:
            return self._view(work, work.batch_runs.get(run_id))

    def active(self, channel: str) -> RunView | None:
        """The run that is to be worked on, if there is one."""
        with self._database.read_uow() as work:
            run = work.batch_runs.active(channel)
            return None if run is None else self._view(work, run)

    def latest(self, channel: str) -> BatchRun | None:
        """The newest run, active or not."""
        with self._database.read_uow() as work:
            return next(iter(work.batch_runs.page(channel, limit=1)), None)

    def waiting(self, channel: str) -> int:
        """How many items wait for a run."""
        with self._database.read_uow() as work:
            return work.batch_items.count_waiting(channel)

    def items(
        self, wanted: ItemFilter, *, limit: int = 50, before: int | None = None, after: int | None = None
    ) -> ItemPage:
        """Up to `limit` items that arrived before `before`, or the ones just after `after`.

        With a run, those that it accounts for, as in `RunView.counts`. Raises RunNotFound.
        """
        limit = min(limit, MAX_PAGE)
        with self._database.read_uow() as work:
            found = _page(work, wanted, limit + 1, before, after)
        more = len(found) > limit
        items = (found[-limit:] if after is not None else found[:limit]) if more else found
        has_older = bool(items) and (more or after is not None)
        has_newer = bool(items) and (more if after is not None else before is not None)
        return ItemPage(
            items=items,
            older=items[-1].seq if has_older else None,
            newer=items[0].seq if has_newer else None,
        )

    def item(self, item_id: str) -> BatchItem:
        """Raises ItemNotFound."""
        with self._database.read_uow() as work:
            return work.batch_items.get(item_id)

    def duplicates(self, item: BatchItem, *, limit: int = 50) -> list[BatchItem]:
        """Later arrivals of the same photo, oldest first."""
        with self._database.read_uow() as work:
            return work.item_table.duplicates_of(item, limit)

    def of_record(self, record: PredictionRecord) -> BatchItem | None:
        """The item that a record was made for; None for records of other channels."""
        with self._database.read_uow() as work:
            return work.item_table.by_prediction(record.id)

    def photo(self, item_id: str, size: ImageSize) -> ImageFile:
        """The photo of an item, wherever it is just now. Raises ItemNotFound and ImageNotKept."""
        return self._photos(item_id, size)

    def _view(self, work: ReadWork, run: BatchRun) -> RunView:
        own = work.batch_items.count_states(run.id)
        left = own.get(ItemState.PROCESSING, 0) + (
            work.batch_items.count_waiting(run.channel, bound=run.bound) if run.active else 0
        )
        rate = rate_per_s(run, RunCounts(by_state=own).settled, self._clock())
        return RunView(
            run=run,
            counts=_counts(work, run),
            labels=work.batch_items.count_labels(run.id),
            left=left,
            rate_per_s=rate,
            seconds_left=left / rate if run.active and rate else None,
            last_item_ago_s=None if run.last_item_at is None else _seconds(run.last_item_at, self._clock()),
        )


def rate_per_s(run: BatchRun, settled: int, now: datetime) -> float | None:
    """Items per second from the run's start to now, or to its last item once it is over; None where it has no time."""
    ended = (run.last_item_at or run.finished_at) if not run.active else now
    if run.started_at is None or ended is None or not settled:
        return None
    took_s = _seconds(run.started_at, ended)
    return settled / took_s if took_s else None


def _seconds(since: datetime, until: datetime) -> float:
    """Never negative, although clocks of several machines may disagree."""
    return max(0.0, (until - since).total_seconds())


def _page(work: ReadWork, wanted: ItemFilter, limit: int, before: int | None, after: int | None) -> list[BatchItem]:
    own = work.batch_items.page(wanted, limit=limit, before=before, after=after)
    if wanted.run_id is None:
        return own
    within = work.item_table.range_of(work.batch_runs.get(wanted.run_id))
    others = work.batch_items.page(
        replace(wanted, channel=within.channel, run_id=None),
        limit=limit,
        before=before,
        after=after,
        of_no_run=(within.beyond, within.bound),
    )
    both = sorted([*own, *others], key=lambda item: item.seq, reverse=True)
    return both[:limit] if after is None else both[-limit:]


def _counts(work: ReadWork, run: BatchRun) -> RunCounts:
    return RunCounts(by_state=work.item_table.count_states(work.item_table.range_of(run)))
