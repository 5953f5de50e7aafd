"""Review items: answer, withdraw an answer, try quarantined files again, or delete them.

Every answer is one change of the row with its feedback in one transaction, and then a move of the photo that can be
repeated (`files.py`). So a crash leaves either nothing or a move that the next start finishes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from shoplens.batch.entities import COMPLETED, BatchItem, ItemFilter, ItemState, reviewed_key
from shoplens.batch.files import finish_move, finish_moves
from shoplens.batch.repository import ItemRepository
from shoplens.batch.review_repository import ReviewRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import ImageGone, ItemChanged, ItemNotReady, RequestInvalid
from shoplens.messages import marked
from shoplens.predictions.entities import Answer, Feedback, FeedbackValue
from shoplens.predictions.feedback import MAX_LABEL, NewFeedback, clean_text, give, withdraw
from shoplens.predictions.image_store import view_key
from shoplens.predictions.repository import PredictionRepository
from shoplens.storage import Store

NONE_OF_THESE: Final = "none of these"
"""The folder of photos that are none of the categories. It is never a label."""

MOST_CONFIRMED: Final = 2_000
"""How many items one call confirms at most, so that a request ends in time."""
_ONE_STEP: Final = 100
_ATTEMPTS: Final = 5
_NAMED_LABELS: Final = 30
_RETRIED_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemAnswer:
    """What a person says of an item.

    `label` is for CORRECTED, `proposed` for NONE_OF_THESE. `seen` is the revision of the item that they were shown;
    None if that is not known, then the last answer counts. `by` is the browser that they use.
    """

    answer: Answer
    label: str | None = None
    proposed: str | None = None
    comment: str | None = None
    seen: int | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfirmedTogether:
    """How many items one act confirmed. All have the same moment as the time of their answer."""

    items: int
    moment: datetime


class ReviewService:
    """Each change is committed when its call returns. Methods block; several people may review during a run.

    `labels` are those of the model that each channel is served by. Photos of the channels in `moderated` get no answer
    here: an answer would move a file that belongs to a row of moderation.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        *,
        labels: Mapping[str, Sequence[str]],
        clock: Callable[[], datetime],
        moderated: Collection[str] = (),
    ) -> None:
        self._database = database
        self._store = store
        self._labels = labels
        self._moderated = moderated
        self._clock = clock

    def labels(self, channel: str) -> tuple[str, ...]:
        """The labels that an item can get, in alphabetical order: those of the model and of the last runs."""
        with self._database.reading() as tx:
            return tuple(sorted({*self._labels.get(channel, ()), *ItemRepository(tx).labels(channel)}))

    # Answers

    def answer(self, item_id: str, given: ItemAnswer) -> BatchItem:
        """Store an answer and move the photo to its place.

        Raises ItemNotFound, ItemNotReady for an item that cannot get this answer, ItemChanged if somebody else changed
        it since `given.seen`, and RequestInvalid for an unknown label.
        """
        with self._database.reading() as tx:
            channel = ItemRepository(tx).get(item_id).channel
        if given.label is not None:
            given = replace(given, label=self._known_label(channel, given.label))
        given = replace(given, proposed=clean_text(given.proposed, "proposed category", MAX_LABEL))
        return self._change(item_id, lambda tx, item: self._answered(tx, item, given))[0]

    def label(self, item_id: str, label: str, *, seen: int | None = None, by: str | None = None) -> BatchItem:
        """Set the label, whatever was predicted. Raises as `answer` does."""
        return self.answer(item_id, ItemAnswer(answer=Answer.CORRECTED, label=label, seen=seen, by=by))

    def confirm(self, item_id: str, *, seen: int | None = None, by: str | None = None) -> BatchItem:
        """The predicted label is correct. Raises as `answer` does."""
        return self.answer(item_id, ItemAnswer(answer=Answer.CONFIRMED, seen=seen, by=by))

    def reopen(self, item_id: str, *, seen: int | None = None, by: str | None = None) -> BatchItem:
        """Withdraw what people said of an item: its state, its place and its label are again as the run left them.

        Raises ItemNotFound, ItemNotReady if nobody answered or the photo was deleted, and ItemChanged.
        """
        return self._change(item_id, lambda tx, item: self._reopened(tx, item, seen=seen, by=by))[0]

    def settle(self, new: NewFeedback) -> Feedback | None:
        """What a person said of a record, also as the answer for the item that it belongs to.

        None if it belongs to none. A label that the channel does not have is proposed as a category. Raises as
        `answer` does.
        """
        with self._database.reading() as tx:
            item = ItemRepository(tx).by_prediction(new.prediction_id)
        if item is None or item.state not in COMPLETED:
            return None
        if new.verdict is FeedbackValue.WRONG and new.label is None:
            return self._change(item.id, lambda tx, now: self._doubted(tx, now, new))[1]
        given = self._as_answer(item.channel, new)

        def change(tx: Connection, now: BatchItem) -> tuple[BatchItem, Feedback | None]:
            changed, feedback = self._answered(tx, now, given, new=new)
            return changed, feedback or give(tx, new, now=self._clock())

        return self._change(item.id, change)[1]

    # Many at once

    def confirm_all(self, wanted: ItemFilter, *, completed_by: datetime, by: str | None) -> ConfirmedTogether:
        """Confirm what a filter of a run shows: items that need review and were completed by then.

        What others answered meanwhile is left as it is. Items are changed in steps of one transaction each, so a long
        act delays nobody; `withdraw_all` takes back what was done, also after a crash between two steps. At most
        `MOST_CONFIRMED` items; call it again for the rest. Raises RunNotFound.
        """
        moment = self._clock()
        done = 0
        while done < MOST_CONFIRMED:
            with self._database.transaction() as tx:
                run = RunRepository(tx).get(wanted.run_id or "")
                self._require_reviewed_here(run.channel)
                step = ReviewRepository(tx).to_confirm(wanted, completed_by=completed_by, limit=_ONE_STEP)
                for item in step:
                    given = ItemAnswer(answer=Answer.CONFIRMED, by=by)
                    changed, _ = self._answered(tx, item, given, at=moment)
                    self._write(tx, item, changed)
            finish_moves(self._database, self._store, run.channel)
            done += len(step)
            if len(step) < _ONE_STEP:
                break
        return ConfirmedTogether(items=done, moment=moment)

    def count_to_confirm(self, wanted: ItemFilter, *, completed_by: datetime) -> int:
        """How many items `confirm_all` would confirm now."""
        with self._database.reading() as tx:
            return ReviewRepository(tx).count_to_confirm(wanted, completed_by=completed_by)

    def withdraw_all(self, run_id: str, moment: datetime, *, by: str | None) -> int:
        """Take back what `confirm_all` did at that moment in this browser, except what was changed since; how many."""
        done = 0
        while True:
            with self._database.transaction() as tx:
                run = RunRepository(tx).get(run_id)
                step = ReviewRepository(tx).confirmed_at(run_id, moment, by, limit=_ONE_STEP)
                for item in step:
                    reopened, _ = self._reopened(tx, item, seen=None, by=by)
                    self._write(tx, item, reopened)
            finish_moves(self._database, self._store, run.channel)
            done += len(step)
            if len(step) < _ONE_STEP:
                return done

    # Quarantined files

    def retry(self, item_id: str) -> BatchItem:
        """Queue a quarantined item for the next run. The item that waits: a new one, unless no run accounts for it yet.

        Raises ItemNotFound, and ItemNotReady where another attempt is impossible or cannot help.
        """
        finish_move(self._database, self._store, item_id)
        with self._database.transaction() as tx:
            ItemRepository(tx).hold_arrivals()
            item = ItemRepository(tx).get(item_id, lock=True)
            if item.retried_as is not None:
                raise ItemNotReady(f"The item {item_id} was queued again already, as {item.retried_as}.")
            if item.state is not ItemState.QUARANTINED:
                raise ItemNotReady(f"The item {item_id} is {item.state.value}; only quarantined items can be retried.")
            if not item.retriable:
                raise ItemNotReady(f"Trying again cannot help: {item.failure} Dismiss the file, or send another photo.")
            return ItemRepository(tx).get(self._queue_again(tx, item))

    def retry_all(self, channel: str, run_id: str | None = None) -> int:
        """Queue every quarantined item of a channel that another attempt can help, or those of one run; how many.

        Raises RunNotFound.
        """
        queued = 0
        while True:
            with self._database.transaction() as tx:
                ItemRepository(tx).hold_arrivals()
                within = None if run_id is None else ItemRepository(tx).range_of(RunRepository(tx).get(run_id))
                found = ReviewRepository(tx).retriable(channel, within, limit=_RETRIED_AT_ONCE)
                for item in found:
                    self._queue_again(tx, item)
            queued += len(found)
            if len(found) < _RETRIED_AT_ONCE:
                return queued

    def delete(self, item_id: str, *, by: str | None = None) -> BatchItem:
        """Dismiss a quarantined file and delete its photo from the store. What is known of it stays.

        The photo goes first: after a crash the item is still quarantined and can be deleted again. Raises ItemNotFound,
        and ItemNotReady for an item that is not quarantined.
        """
        finish_move(self._database, self._store, item_id)
        with self._database.transaction() as tx:
            item = ItemRepository(tx).get(item_id, lock=True)
            was_quarantined = ItemState.QUARANTINED in (item.state, item.reviewed_from)
            if item.retried_as is not None or not was_quarantined or item.state is ItemState.DONE:
                raise ItemNotReady(f"The item {item_id} is {item.state.value}; only quarantined files can be deleted.")
            for key in (item.key, item.thumbnail_key, view_key(item.sha256)):
                if key is not None:
                    self._store.delete(key)
            dismissed = replace(
                item, state=ItemState.DISMISSED, answer=Answer.NOT_USABLE, corrected_at=self._clock(), answered_by=by,
                reviewed_from=ItemState.QUARANTINED, key=None, thumbnail_key=None,
            )  # fmt: skip
            ReviewRepository(tx).review(dismissed, seen=item)
            return ItemRepository(tx).get(item_id)

    # How a change is made

    def _change(
        self, item_id: str, change: Callable[[Connection, BatchItem], tuple[BatchItem, Feedback | None]]
    ) -> tuple[BatchItem, Feedback | None]:
        """Write what `change` makes of the locked item, then move its photo. A move that is under way has to end first.

        An item that `change` returns as it is, is not written.
        """
        for _ in range(_ATTEMPTS):
            finish_move(self._database, self._store, item_id)
            with self._database.transaction() as tx:
                item = ItemRepository(tx).get(item_id, lock=True)
                self._require_reviewed_here(item.channel)
                if item.target_key is not None:
                    continue
                changed, feedback = change(tx, item)
                if changed is not item:
                    self._write(tx, item, changed)
            return finish_move(self._database, self._store, item_id), feedback
        raise ItemNotReady(f"The photo of the item {item_id} is being moved. Try again in a moment.")

    def _require_reviewed_here(self, channel: str) -> None:
        if channel in self._moderated:
            raise ItemNotReady(f"People decide photos of the channel {channel} on the page Moderation.")

    def _write(self, tx: Connection, item: BatchItem, changed: BatchItem) -> None:
        """The row, with the place that follows from its state."""
        gone = item.failure_code == ImageGone.code or item.photo_deleted_at is not None
        folder = NONE_OF_THESE if changed.answer is Answer.NONE_OF_THESE else changed.label
        place = None if item.key is None or gone else reviewed_key(changed.state, folder, item.key)
        ReviewRepository(tx).review(replace(changed, target_key=None if place == item.key else place), seen=item)
        if item.prediction_id is not None and place is not None:
            PredictionRepository(tx).move_image(item.prediction_id, place)

    def _answered(
        self,
        tx: Connection,
        item: BatchItem,
        given: ItemAnswer,
        *,
        new: NewFeedback | None = None,
        at: datetime | None = None,
    ) -> tuple[BatchItem, Feedback | None]:
        """The item with an answer, given now or as one of many that have the moment `at`."""
        answer, label = _checked(item, given)
        # The same answer given twice is one answer, as when a button is pressed twice.
        if (item.answer, item.label, item.proposed) == (answer, label, given.proposed):
            return item, None
        _require_unchanged(item, given.seen, given.by)
        now = at or self._clock()
        changed = replace(
            item,
            state=ItemState.DISMISSED if answer is Answer.NOT_USABLE else ItemState.DONE,
            label=label,
            answer=answer,
            proposed=given.proposed,
            corrected_at=now,
            answered_by=given.by,
            reviewed_from=item.reviewed_from or item.state,
        )
        if item.prediction_id is None:
            return changed, None
        new = new or NewFeedback(prediction_id=item.prediction_id, verdict=answer.verdict, comment=given.comment)
        is_label = answer in (Answer.CONFIRMED, Answer.CORRECTED)
        new = replace(new, verdict=answer.verdict, label=label if is_label else None, proposed=given.proposed)
        return changed, give(tx, new, now=now)

    def _reopened(
        self, tx: Connection, item: BatchItem, *, seen: int | None, by: str | None
    ) -> tuple[BatchItem, Feedback | None]:
        if item.reviewed_from is None:
            raise ItemNotReady(f"Nobody has reviewed the item {item.id}, so there is nothing to withdraw.")
        if item.photo_deleted_at is not None or (item.key is None and item.failure_code != ImageGone.code):
            raise ItemNotReady(f"The photo of the item {item.id} was deleted, so it cannot be reviewed again.")
        _require_unchanged(item, seen, by)
        if item.prediction_id is not None:
            withdraw(tx, item.prediction_id, now=self._clock())
        return _as_left(item), None

    def _doubted(self, tx: Connection, item: BatchItem, new: NewFeedback) -> tuple[BatchItem, Feedback | None]:
        """Somebody says that the prediction is wrong, but not what is right: the item needs review."""
        feedback = give(tx, new, now=self._clock())
        reviewable = item.state is ItemState.DONE and item.photo_deleted_at is None
        if not reviewable or item.answer not in (None, Answer.CONFIRMED):
            return item, feedback
        return replace(_as_left(item), state=ItemState.NEEDS_REVIEW), feedback

    def _as_answer(self, channel: str, new: NewFeedback) -> ItemAnswer:
        match new.verdict:
            case FeedbackValue.RIGHT:
                return ItemAnswer(answer=Answer.CONFIRMED, comment=new.comment, by=new.by)
            case FeedbackValue.NONE:
                return ItemAnswer(answer=Answer.NONE_OF_THESE, proposed=new.proposed, comment=new.comment, by=new.by)
            case FeedbackValue.UNUSABLE:
                return ItemAnswer(answer=Answer.NOT_USABLE, comment=new.comment, by=new.by)
        try:
            label = self._known_label(channel, new.label or "")
        except RequestInvalid:
            missed = new.proposed or new.label
            return ItemAnswer(answer=Answer.NONE_OF_THESE, proposed=missed, comment=new.comment, by=new.by)
        return ItemAnswer(answer=Answer.CORRECTED, label=label, comment=new.comment, by=new.by)

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

    def _queue_again(self, tx: Connection, item: BatchItem) -> str:
        """Only a run accounts for what arrived before its bound; later items can wait themselves."""
        latest = next(iter(RunRepository(tx).page(item.channel, limit=1)), None)
        in_place = item.run_id is None and (latest is None or item.seq > latest.bound)
        new_id = make_id(int(self._clock().timestamp() * 1000), os.urandom(10))
        return ReviewRepository(tx).retry(item, new_id, in_place=in_place)


def _checked(item: BatchItem, given: ItemAnswer) -> tuple[Answer, str | None]:
    """The answer and the label that follows from it. Raises ItemNotReady for an item that cannot get it."""
    if item.state is ItemState.DUPLICATE:
        raise ItemNotReady(f"The item {item.id} is a duplicate. Review the item {item.duplicate_of} instead.")
    if item.retried_as is not None:
        raise ItemNotReady(f"The item {item.id} was queued again. Review the item {item.retried_as} instead.")
    if item.state not in COMPLETED:
        raise ItemNotReady(f"The item {item.id} is {item.state.value}. It can be reviewed after a run completed it.")
    if given.answer in (Answer.NONE_OF_THESE, Answer.NOT_USABLE):
        return given.answer, None
    if given.label is None and item.predicted is None:
        raise ItemNotReady(f"There is no prediction for the item {item.id}. Choose a label instead.")
    label = given.label or item.predicted
    return (Answer.CONFIRMED if label == item.predicted else Answer.CORRECTED), label


def _require_unchanged(item: BatchItem, seen: int | None, by: str | None) -> None:
    """Raises ItemChanged if it is not the revision that the person was shown."""
    if seen is None or seen == item.revision:
        return
    is_own = by is not None and by == item.answered_by
    who = marked("It was answered in this browser") if is_own else marked("Somebody else answered it")
    raise ItemChanged(f"{who} meanwhile: {_words(item)}. Look at it again.")


def _words(item: BatchItem) -> str:
    match item.answer:
        case None:
            return item.state.value.replace("_", " ")
        case Answer.CONFIRMED:
            return marked(f'confirmed, "{item.label}"')
        case Answer.CORRECTED:
            return marked(f'corrected, "{item.label}"')
        case _:
            return item.answer.value.replace("_", " ")


def _as_left(item: BatchItem) -> BatchItem:
    """The item as it was before anybody answered."""
    return replace(
        item, state=item.reviewed_from or item.state, label=item.predicted, answer=None, proposed=None,
        corrected_at=None, answered_by=None, reviewed_from=None,
    )  # fmt: skip
