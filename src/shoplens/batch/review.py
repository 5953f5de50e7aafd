"""Look at runs and their items, and review items: correct or confirm labels, and retry quarantined items."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from shoplens.batch.entities import COMPLETED, BatchItem, BatchRun, ItemFilter, ItemState, RunCounts, corrected_key
from shoplens.batch.files import finish_move
from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import BlobNotFound, ImageGone, ImageNotKept, ItemNotReady, RequestInvalid, SampleError
from shoplens.predictions.entities import Feedback, FeedbackValue, PredictionRecord
from shoplens.predictions.image_store import ImageFile, ImageSize, ImageStore
from shoplens.predictions.records import MAX_LABEL
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.storage import Store

MAX_PAGE: Final = 200
_ATTEMPTS: Final = 5
_NAMED_LABELS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """A run with its counts, for lists. Duplicates are those that arrived between the previous run and this one."""

    run: BatchRun
    counts: RunCounts


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """The current state of one run.

    `counts` covers the run's own items, and the duplicates and refused files that arrived since the previous run.
    `labels` counts items by state and label. `left` is the number of items that are not completed. `rate_per_s` is the
    average of the whole run, None before the first item; `seconds_left` follows from it. `last_item_ago_s` is None
    before the first item.
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
            return [RunSummary(run=run, counts=_counts(tx, run)) for run in found]

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

    def item(self, item_id: str) -> BatchItem:
        """Raises ItemNotFound."""
        with self._database.reading() as tx:
            return ItemRepository(tx).get(item_id)

    def next_to_review(self, item: BatchItem) -> BatchItem | None:
        """The item of the same run that needs review and follows `item` in the gallery, else the first one."""
        if item.run_id is None:
            return None
        wanted = ItemFilter(run_id=item.run_id, state=ItemState.NEEDS_REVIEW)
        found = self.items(wanted, limit=1, before=item.seq).items or self.items(wanted, limit=2).items
        return next((each for each in found if each.id != item.id), None)

    def duplicates(self, item: BatchItem, *, limit: int = 50) -> list[BatchItem]:
        """Later arrivals of the same photo, oldest first."""
        with self._database.reading() as tx:
            return ItemRepository(tx).duplicates_of(item, limit)

    def of_record(self, record: PredictionRecord) -> BatchItem | None:
        """The item that a record belongs to; None for records of other channels."""
        with self._database.reading() as tx:
            return ItemRepository(tx).by_prediction(record.id)

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
            counts=_counts(tx, run),
            labels=ItemRepository(tx).count_labels(run.id),
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


def _counts(tx: Connection, run: BatchRun) -> RunCounts:
    return RunCounts(by_state=ItemRepository(tx).count_states(ItemRepository(tx).range_of(run)))


def open_photo(database: Database, images: ImageStore, item_id: str, size: ImageSize) -> ImageFile:
    """The photo of an item, also while it is moved; of a duplicate, the photo of the item that it repeats.

    Raises ItemNotFound and ImageNotKept.
    """

    def read(wanted: str) -> BatchItem:
        with database.reading() as tx:
            return ItemRepository(tx).get(wanted)

    item = read(item_id)
    if item.duplicate_of is not None:
        item = read(item.duplicate_of)
    # No run could decode it, perhaps because of its size or content: do not try again for each visitor.
    undecoded = item.state is ItemState.QUARANTINED or (item.state is ItemState.DONE and item.prediction_id is None)
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
            except SampleError as error:
                raise ImageNotKept(f"The photo of the item {item.id} cannot be shown: {error}") from error
        item = read(item.id)
    raise ImageNotKept(f"The photo of the item {item.id} is no longer in the store.")


def _open_saved(images: ImageStore, item: BatchItem) -> ImageFile:
    """The thumbnail that the run saved."""
    if item.thumbnail_key is None:
        raise ImageNotKept(f"There is no preview of the item {item.id}.")
    try:
        return images.open(item.thumbnail_key, item.sha256, ImageSize.ORIGINAL)
    except BlobNotFound:
        raise ImageNotKept(f"The photo of the item {item.id} is no longer in the store.") from None


class ReviewService:
    """Each change is committed when its call returns. Methods block; several people may review during a run.

    `labels` are those of the model that each channel is served by.
    """

    def __init__(
        self, database: Database, store: Store, *, labels: Mapping[str, Sequence[str]], clock: Callable[[], datetime]
    ) -> None:
        self._database = database
        self._store = store
        self._labels = labels
        self._clock = clock

    def labels(self, channel: str) -> tuple[str, ...]:
        """The labels that an item can get, in alphabetical order: those of the model and of the last runs."""
        with self._database.reading() as tx:
            return tuple(sorted({*self._labels.get(channel, ()), *ItemRepository(tx).labels(channel)}))

    def label(self, item_id: str, label: str) -> BatchItem:
        """Set the label, whatever was predicted. The last label counts; setting the earlier one undoes a correction.

        Raises ItemNotFound, ItemNotReady for an item that no run has completed, and RequestInvalid for an unknown
        label.
        """
        with self._database.reading() as tx:
            channel = ItemRepository(tx).get(item_id).channel
        return self._write(item_id, self._known_label(channel, label))

    def confirm(self, item_id: str) -> BatchItem:
        """The predicted label is correct. Raises ItemNotFound, and ItemNotReady if nothing was predicted."""
        return self._write(item_id, None)

    def retry(self, item_id: str) -> BatchItem:
        """Queue a quarantined item for the next run. Raises ItemNotFound and ItemNotReady."""
        with self._database.transaction() as tx:
            items = ItemRepository(tx)
            item = items.get(item_id, lock=True)
            if item.state is not ItemState.QUARANTINED:
                raise ItemNotReady(f"The item {item_id} is {item.state.value}; only quarantined items can be retried.")
            items.retry(item_id)
            return items.get(item_id)

    def retry_all(self, channel: str, run_id: str | None = None) -> int:
        """Queue every quarantined item of a channel, or those of one run; returns how many. Raises RunNotFound."""
        with self._database.transaction() as tx:
            items = ItemRepository(tx)
            within = None if run_id is None else items.range_of(RunRepository(tx).get(run_id))
            return items.retry_quarantined(channel, within)

    def _known_label(self, channel: str, label: str) -> str:
        """The label as it is stored. Raises RequestInvalid with the labels that exist."""
        wanted = label.replace("\x00", "").strip()
        if wanted in self._labels.get(channel, ()):
            return wanted
        with self._database.reading() as tx:
            if wanted and len(wanted) <= MAX_LABEL and ItemRepository(tx).knows_label(channel, wanted):
                return wanted
        known = self.labels(channel)
        names = ", ".join(known[:_NAMED_LABELS]) + (", …" if len(known) > _NAMED_LABELS else "")
        raise RequestInvalid(f'"{wanted[:80]}" is not a category of this channel. Categories: {names or "none yet"}.')

    def _write(self, item_id: str, label: str | None) -> BatchItem:
        """Write the label (None: the predicted one), then move the photo. A move that is under way has to end first."""
        for _ in range(_ATTEMPTS):
            finish_move(self._database, self._store, item_id)
            with self._database.transaction() as tx:
                item = ItemRepository(tx).get(item_id, lock=True)
                chosen = _chosen_label(item, label)
                # The same label given twice is one correction, as when a button is pressed twice.
                given = item.state is ItemState.DONE and item.corrected_at is not None and item.label == chosen
                written = given or item.target_key is None
                if written and not given:
                    self._correct(tx, item, chosen)
            if written:
                return finish_move(self._database, self._store, item_id)
        raise ItemNotReady(f"The photo of the item {item_id} is being moved. Try again in a moment.")

    def _correct(self, tx: Connection, item: BatchItem, label: str) -> None:
        now = self._clock()
        gone = item.failure_code == ImageGone.code
        place = None if item.key is None or gone else corrected_key(label, item.key)
        target = None if place == item.key else place
        ItemRepository(tx).correct(item.id, label=label, target_key=target, now=now)
        if item.prediction_id is None:
            return
        feedback = Feedback(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
            created_at=now,
            prediction_id=item.prediction_id,
            verdict=FeedbackValue.RIGHT if label == item.predicted else FeedbackValue.WRONG,
            label=label,
        )
        FeedbackRepository(tx).add(feedback)
        if place is not None:
            PredictionRepository(tx).move_image(item.prediction_id, place)


def _chosen_label(item: BatchItem, label: str | None) -> str:
    """`label`, or the predicted one. Raises ItemNotReady for an item that cannot get it."""
    if item.state is ItemState.DUPLICATE:
        raise ItemNotReady(f"The item {item.id} is a duplicate. Label the item {item.duplicate_of} instead.")
    if item.state not in COMPLETED:
        raise ItemNotReady(f"The item {item.id} is {item.state.value}. It can be labelled after a run completed it.")
    if label is None and item.predicted is None:
        raise ItemNotReady(f"There is no prediction for the item {item.id}. Choose a label instead.")
    return label or item.predicted or ""
