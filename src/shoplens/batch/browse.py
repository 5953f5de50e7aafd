"""Look at runs, their items and the photos of items. Thumbnails are stored when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from shoplens.batch.entities import BatchItem, BatchRun, ItemFilter, ItemState, RunCounts
from shoplens.batch.looks import LookRepository
from shoplens.batch.repository import ItemRepository
from shoplens.batch.review_repository import ReviewRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.errors import BlobNotFound, ImageChanged, ImageNotKept, SampleError
from shoplens.predictions.entities import Answer
from shoplens.predictions.image_store import ImageFile, ImageSize, ImageStore
from shoplens.predictions.repository import PredictionRepository

MAX_PAGE: Final = 200
_NEXT: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run with its counts, for lists."""

    run: BatchRun
    counts: RunCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """The current state of one run.

    `labels` counts items by state and label, `answers` those that people reviewed. `left` is the number of items that
    are not completed. `rate_per_s` is the average of the whole run, None before the first item; `seconds_left` follows
    from it. `last_item_ago_s` is None before the first item.
    """

    run: BatchRun
    counts: RunCounts
    labels: Mapping[tuple[ItemState, str], int]
    answers: Mapping[Answer, int]
    left: int
    rate_per_s: float | None
    seconds_left: float | None
    last_item_ago_s: float | None

    @property
    def settled(self) -> int:
        """The number of planned items that are completed."""
        return max(0, self.run.planned - self.left)

    @property
    def progress(self) -> float:
        """From 0 to 1; a finished run has 1 whatever was planned."""
        if not self.run.active:
            return 1.0
        return min(1.0, self.settled / self.run.planned) if self.run.planned else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemPage:
    """Items, newest first. `older` and `newer` are cursors (values of `seq`), None at the ends."""

    items: list[BatchItem]
    older: int | None
    newer: int | None


class BrowseService:
    """Only reads, but stores thumbnails when they are first asked for. All methods block."""

    def __init__(self, database: Database, images: ImageStore, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._images = images
        self._clock = clock

    def runs(self, channel: str, *, limit: int = 30, before: str | None = None) -> list[RunSummary]:
        """At most `limit` runs, newest first, older than the run with the id `before`."""
        with self._database.reading() as tx:
            found = RunRepository(tx).page(channel, limit=min(limit, MAX_PAGE), before=before)
            return [RunSummary(run=run, counts=ItemRepository(tx).counts(run)) for run in found]

    def run(self, run_id: str) -> RunView:
        """Raises RunNotFound."""
        with self._database.reading() as tx:
            return self._view(tx, RunRepository(tx).get(run_id))

    def active(self, channel: str) -> RunView | None:
        """The requested or running run, if there is one."""
        with self._database.reading() as tx:
            run = RunRepository(tx).active(channel)
            return None if run is None else self._view(tx, run)

    def latest(self, channel: str) -> BatchRun | None:
        """The newest run, active or not."""
        with self._database.reading() as tx:
            return next(iter(RunRepository(tx).page(channel, limit=1)), None)

    def waiting(self, channel: str) -> int:
        """The number of items that wait for a run."""
        with self._database.reading() as tx:
            return ItemRepository(tx).count_waiting(channel)

    def items(
        self, wanted: ItemFilter, *, limit: int = 50, before: int | None = None, after: int | None = None
    ) -> ItemPage:
        """Up to `limit` items that arrived before `before`, or those just after `after`.

        With a run: the items that `RunView.counts` covers. Raises RunNotFound.
        """
        limit = min(limit, MAX_PAGE)
        with self._database.reading() as tx:
            found = _page(tx, wanted, limit + 1, before, after)
        more = len(found) > limit
        items = (found[-limit:] if after is not None else found[:limit]) if more else found
        has_older = bool(items) and (more or after is not None)
        has_newer = bool(items) and (more if after is not None else before is not None)
        return ItemPage(
            items=items, older=items[-1].seq if has_older else None, newer=items[0].seq if has_newer else None
        )

    def least_sure(
        self, wanted: ItemFilter, *, limit: int, surer_than: tuple[float, int] | None = None
    ) -> tuple[list[BatchItem], tuple[float, int] | None]:
        """Items of a run that need review, those with the lowest score first, and after which the next page begins."""
        with self._database.reading() as tx:
            found = ReviewRepository(tx).least_sure(wanted, limit=limit + 1, surer_than=surer_than)
        last = found[limit - 1] if len(found) > limit else None
        return found[:limit], None if last is None or last.score is None else (last.score, last.seq)

    def to_review(self, channel: str) -> tuple[int, str | None]:
        """How many items of a channel need review, and the newest run that has such items."""
        with self._database.reading() as tx:
            wanted = ItemFilter(channel=channel, state=ItemState.NEEDS_REVIEW)
            newest = ItemRepository(tx).page(wanted, limit=1)
            return ReviewRepository(tx).count_to_review(channel), newest[0].run_id if newest else None

    def guesses(self, items: Sequence[BatchItem]) -> dict[str, tuple[str, ...]]:
        """The labels that came second and third, by the id of the item."""
        with self._database.reading() as tx:
            scores = PredictionRepository(tx).scores([item.prediction_id for item in items if item.prediction_id])
        return {item.id: tuple(each.label for each in scores.get(item.prediction_id or "", ())[1:3]) for item in items}

    def item(self, item_id: str) -> BatchItem:
        """Raises ItemNotFound."""
        with self._database.reading() as tx:
            return ItemRepository(tx).get(item_id)

    def next_to_review(self, item: BatchItem, *, browser: str | None = None) -> BatchItem | None:
        """The item of the same run that needs review and follows `item` in the gallery, else the first one.

        For `browser` what nobody else looks at comes first, and what was skipped there last.
        """
        if item.run_id is None:
            return None
        wanted = ItemFilter(run_id=item.run_id, state=ItemState.NEEDS_REVIEW, browser=browser)
        after = self.items(wanted, limit=_NEXT, before=item.seq).items
        found = [each for each in (*after, *self.items(wanted, limit=_NEXT).items) if each.id != item.id]
        if browser is not None:
            with self._database.reading() as tx:
                held = LookRepository(tx).held([each.id for each in found], browser=browser, now=self._clock())
            found.sort(key=lambda each: each.id in held)
            found += self.items(replace(wanted, skipped=True), limit=2).items
        return next((each for each in found if each.id != item.id), None)

    def count_skipped(self, run_id: str, browser: str) -> int:
        """How many items of a run that need review were skipped in this browser; counts no further than a page."""
        wanted = ItemFilter(run_id=run_id, state=ItemState.NEEDS_REVIEW, browser=browser, skipped=True)
        return len(self.items(wanted, limit=MAX_PAGE).items)

    def duplicates(self, item: BatchItem, *, limit: int = 50) -> list[BatchItem]:
        """Later arrivals of the same photo, oldest first."""
        with self._database.reading() as tx:
            return ItemRepository(tx).duplicates_of(item, limit)

    def of_records(self, record_ids: Sequence[str]) -> dict[str, BatchItem]:
        """The items that records belong to, by the id of the record; those of other channels are left out."""
        with self._database.reading() as tx:
            found = ReviewRepository(tx).of_predictions(record_ids)
        return {item.prediction_id: item for item in found if item.prediction_id is not None}

    def photo(self, item_id: str, size: ImageSize) -> ImageFile:
        """The photo of an item. Raises ItemNotFound and ImageNotKept."""
        return open_photo(self._database, self._images, item_id, size)

    def _view(self, tx: Connection, run: BatchRun) -> RunView:
        own = ItemRepository(tx).count_own_states(run.id)
        left = own.get(ItemState.PROCESSING, 0) + (
            ItemRepository(tx).count_waiting(run.channel, bound=run.bound) if run.active else 0
        )
        rate = rate_per_s(run, RunCounts(by_state=own).settled, self._clock())
        return RunView(
            run=run,
            counts=ItemRepository(tx).counts(run),
            labels=ItemRepository(tx).count_labels(run.id),
            answers=ReviewRepository(tx).count_answers(run.id),
            left=left,
            rate_per_s=rate,
            seconds_left=left / rate if run.active and rate else None,
            last_item_ago_s=None if run.last_item_at is None else _seconds(run.last_item_at, self._clock()),
        )


def rate_per_s(run: BatchRun, settled: int, now: datetime) -> float | None:
    """Items per second from the start to now, or to the last item of a finished run; None before the first item."""
    ended = (run.last_item_at or run.finished_at) if not run.active else now
    if run.started_at is None or ended is None or not settled:
        return None
    took_s = _seconds(run.started_at, ended)
    return settled / took_s if took_s else None


def _seconds(since: datetime, until: datetime) -> float:
    """Never negative: the clocks of several machines may differ."""
    return max(0.0, (until - since).total_seconds())


def _page(tx: Connection, wanted: ItemFilter, limit: int, before: int | None, after: int | None) -> list[BatchItem]:
    own = ItemRepository(tx).page(wanted, limit=limit, before=before, after=after)
    if wanted.run_id is None:
        return own
    within = ItemRepository(tx).range_of(RunRepository(tx).get(wanted.run_id))
    others = ItemRepository(tx).page(
        replace(wanted, channel=within.channel, run_id=None),
        limit=limit,
        before=before,
        after=after,
        of_no_run=(within.beyond, within.bound),
    )
    both = sorted([*own, *others], key=lambda item: item.seq, reverse=True)
    return both[:limit] if after is None else both[-limit:]


def open_photo(database: Database, images: ImageStore, item_id: str, size: ImageSize) -> ImageFile:
    """The photo of an item, also while it is moved; of a duplicate or a retried item, that of the item that has it.

    Raises ItemNotFound and ImageNotKept.
    """

    def read(wanted: str) -> BatchItem:
        with database.reading() as tx:
            return ItemRepository(tx).get(wanted)

    item = read(item_id)
    while item.retried_as or item.duplicate_of:
        item = read(item.retried_as or item.duplicate_of or "")
    _require_kept(item)
    # No run could decode it, perhaps because of its size or content: do not try again for each visitor.
    settled = item.state in (ItemState.DONE, ItemState.DISMISSED)
    undecoded = item.state is ItemState.QUARANTINED or (settled and item.prediction_id is None)
    if size is not ImageSize.ORIGINAL and (item.thumbnail_key is not None or undecoded):
        return _open_saved(images, item)
    # It may be moved after its row was read, so a second attempt reads the row again.
    for _ in range(2):
        for key in (item.key, item.target_key):
            if key is None:
                continue
            try:
                return images.open(key, item.sha256, size)
            except BlobNotFound:
                continue
            except ImageChanged:
                raise
            except SampleError as error:
                raise ImageNotKept(f"The photo of the item {item.id} cannot be shown: {error}") from error
        item = read(item.id)
    raise ImageNotKept(f"The photo of the item {item.id} is no longer in the store.")


def _require_kept(item: BatchItem) -> None:
    if item.photo_deleted_at is not None:
        raise ImageNotKept(
            f"The photo of the item {item.id} was deleted by retention on {item.photo_deleted_at:%Y-%m-%d}."
        )


def _open_saved(images: ImageStore, item: BatchItem) -> ImageFile:
    """The thumbnail that the run saved."""
    if item.thumbnail_key is None:
        raise ImageNotKept(f"There is no preview of the item {item.id}.")
    try:
        return images.open_copy(item.thumbnail_key)
    except BlobNotFound:
        raise ImageNotKept(f"The photo of the item {item.id} is no longer in the store.") from None
