"""Review batch items: correct or confirm the label, and queue quarantined items for another try."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

from shoplens.batch.entities import COMPLETED, BatchItem, ItemState, corrected_key
from shoplens.batch.files import finish_move
from shoplens.batch.repository import ItemRepository, RunRepository
from shoplens.db import Database
from shoplens.db.ids import make_id
from shoplens.errors import ImageGone, ItemNotReady, RequestInvalid
from shoplens.predictions.entities import Feedback, FeedbackValue
from shoplens.predictions.records import MAX_LABEL
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.storage import Store

_ATTEMPTS: Final = 5
_NAMED_LABELS: Final = 30


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
            item = items.lock(item_id)
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
                item = ItemRepository(tx).lock(item_id)
                _require_completed(item)
                chosen = _predicted(item) if label is None else label
                # The same label given twice is one correction, as when a button is pressed twice.
                given = item.state is ItemState.DONE and item.corrected_at is not None and item.label == chosen
                written = given or item.target_key is None
                if not given and written:
                    now = self._clock()
                    place = _place(item, chosen)
                    target = None if place == item.key else place
                    ItemRepository(tx).correct(item.id, label=chosen, target_key=target, now=now)
                    if item.prediction_id is not None:
                        FeedbackRepository(tx).add(_feedback(item, item.prediction_id, chosen, now))
                        if place is not None:
                            PredictionRepository(tx).move_image(item.prediction_id, place)
            if written:
                return finish_move(self._database, self._store, item_id)
        raise ItemNotReady(f"The photo of the item {item_id} is being moved. Try again in a moment.")


def _require_completed(item: BatchItem) -> None:
    if item.state is ItemState.DUPLICATE:
        raise ItemNotReady(f"The item {item.id} is a duplicate. Label the item {item.duplicate_of} instead.")
    if item.state not in COMPLETED:
        raise ItemNotReady(f"The item {item.id} is {item.state.value}. It can be labelled after a run completed it.")


def _predicted(item: BatchItem) -> str:
    if item.predicted is None:
        raise ItemNotReady(f"There is no prediction for the item {item.id}. Choose a label instead.")
    return item.predicted


def _place(item: BatchItem, label: str) -> str | None:
    """The key where its photo belongs now; None if the photo is gone."""
    if item.key is None or item.failure_code == ImageGone.code:
        return None
    return corrected_key(label, item.key)


def _feedback(item: BatchItem, prediction_id: str, label: str, now: datetime) -> Feedback:
    return Feedback(
        id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
        created_at=now,
        prediction_id=prediction_id,
        verdict=FeedbackValue.RIGHT if label == item.predicted else FeedbackValue.WRONG,
        label=label,
    )
