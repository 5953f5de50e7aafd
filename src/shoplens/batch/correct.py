"""Take what a clerk says of a returned item: what it really is, that the guess was right, or that it be tried again."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from shoplens.batch.entities import COMPLETED, BatchItem, ItemState, corrected_key
from shoplens.batch.files import finish_move
from shoplens.db import Database
from shoplens.db.ids import make_id
from shoplens.db.uow import UnitOfWork
from shoplens.errors import ImageGone, ItemNotReady, RequestInvalid
from shoplens.predictions.entities import Feedback, FeedbackValue
from shoplens.predictions.records import MAX_LABEL
from shoplens.storage import Store

_ATTEMPTS: Final = 5
_NAMED_LABELS: Final = 30


class CorrectItems:
    """Every change is committed when the call returns. Blocks; several clerks may call at once, and the night may run.

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
        """What an item can be called, in alphabetical order: the model's labels, and those of the last runs."""
        with self._database.read_uow() as work:
            return tuple(sorted({*self._labels.get(channel, ()), *work.item_table.labels(channel)}))

    def correct(self, item_id: str, label: str) -> BatchItem:
        """It is a `label`, whatever was predicted. The last correction counts; the first guess is said to undo it.

        Raises ItemNotFound, ItemNotReady for an item that no run is through with, and RequestInvalid for an unknown
        label.
        """
        with self._database.read_uow() as work:
            channel = work.batch_items.get(item_id).channel
        wanted = self._known(channel, label)
        return self._settle(item_id, lambda _: wanted)

    def confirm(self, item_id: str) -> BatchItem:
        """The predicted label is right. Raises ItemNotFound, and ItemNotReady where nothing was predicted."""
        return self._settle(item_id, _predicted)

    def retry(self, item_id: str) -> BatchItem:
        """Let a quarantined item be tried again by the next run. Raises ItemNotFound and ItemNotReady."""
        with self._database.uow() as work:
            item = work.batch_items.lock(item_id)
            if item.state is not ItemState.QUARANTINED:
                raise ItemNotReady(f"The item {item_id} is {item.state.value}; only quarantined ones are tried again.")
            work.batch_items.retry(item_id)
            return work.batch_items.get(item_id)

    def retry_all(self, channel: str, run_id: str | None = None) -> int:
        """Let every quarantined item of a channel be tried again, or those of one run; how many. Raises RunNotFound."""
        with self._database.uow() as work:
            within = None if run_id is None else work.item_table.range_of(work.batch_runs.get(run_id))
            return work.item_table.retry_quarantined(channel, within)

    def _known(self, channel: str, label: str) -> str:
        """`label` as it is kept. Raises RequestInvalid, naming the labels there are."""
        wanted = label.replace("\x00", "").strip()
        if wanted in self._labels.get(channel, ()):
            return wanted
        with self._database.read_uow() as work:
            if wanted and len(wanted) <= MAX_LABEL and work.item_table.knows_label(channel, wanted):
                return wanted
        known = self.labels(channel)
        names = ", ".join(known[:_NAMED_LABELS]) + (", …" if len(known) > _NAMED_LABELS else "")
        raise RequestInvalid(f"{wanted[:80]!r} is no category here. There are: {names or 'none yet'}.")

    def _settle(self, item_id: str, choose: Callable[[BatchItem], str]) -> BatchItem:
        """Write it, then bring the photo along. A move that is under way has to end first: nobody knows where it is."""
        for _ in range(_ATTEMPTS):
            finish_move(self._database, self._store, item_id)
            if self._write(item_id, choose):
                return finish_move(self._database, self._store, item_id)
        raise ItemNotReady(f"The photo of the item {item_id} is just being moved. Try again in a moment.")

    def _write(self, item_id: str, choose: Callable[[BatchItem], str]) -> bool:
        """Whether it could be written: not while the photo is being moved."""
        with self._database.uow() as work:
            item = work.batch_items.lock(item_id)
            _require_settled(item)
            label = choose(item)
            if _said_already(item, label):
                return True
            if item.target_key is not None:
                return False
            self._apply(work, item, label)
            return True

    def _apply(self, work: UnitOfWork, item: BatchItem, label: str) -> None:
        now = self._clock()
        place = _place(item, label)
        work.batch_items.correct(item.id, label=label, target_key=None if place == item.key else place, now=now)
        if item.prediction_id is None:
            return
        work.feedback.add(_remark(item, item.prediction_id, label, now))
        if place is not None:
            work.predictions.move_image(item.prediction_id, place)


def _require_settled(item: BatchItem) -> None:
    if item.state is ItemState.DUPLICATE:
        raise ItemNotReady(f"The item {item.id} is a duplicate; correct the item {item.duplicate_of} instead.")
    if item.state not in COMPLETED:
        raise ItemNotReady(
            f"The item {item.id} is {item.state.value}; it can be corrected once a run is through with it."
        )


def _predicted(item: BatchItem) -> str:
    if item.predicted is None:
        raise ItemNotReady(f"Nothing was predicted for the item {item.id}; say what it is instead.")
    return item.predicted


def _said_already(item: BatchItem, label: str) -> bool:
    """The same said twice is one remark, as when a button is pressed twice."""
    return item.state is ItemState.DONE and item.corrected_at is not None and item.label == label


def _place(item: BatchItem, label: str) -> str | None:
    """Where its photo belongs now; None where there is no photo any more."""
    if item.key is None or item.failure_code == ImageGone.code:
        return None
    return corrected_key(label, item.key)


def _remark(item: BatchItem, prediction_id: str, label: str, now: datetime) -> Feedback:
    return Feedback(
        id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
        created_at=now,
        prediction_id=prediction_id,
        verdict=FeedbackValue.RIGHT if label == item.predicted else FeedbackValue.WRONG,
        label=label,
    )
