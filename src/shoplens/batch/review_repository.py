"""What people say of items in the database, and further attempts, over a transaction that the caller opened.

Every method raises DatabaseUnavailable and RecordRefused through that transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, update

from shoplens.batch.entities import HOPELESS, BatchItem, ItemFilter, ItemState, RunRange
from shoplens.batch.repository import ItemRepository, belongs, conditions_of, failure_code_of, item_of
from shoplens.batch.tables import batch_items, batch_looks
from shoplens.errors import ItemNotReady
from shoplens.predictions.entities import Answer

_items: Final = batch_items.c
_AFTER_ALL: Final = "\U0010ffff"


class ReviewRepository:
    """The part of the table `batch_items` that people change."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def of_predictions(self, prediction_ids: Sequence[str]) -> list[BatchItem]:
        """The items of these predictions, in no particular order."""
        found = select(batch_items).where(_items.prediction_id.in_(prediction_ids))
        return [item_of(row) for row in self._tx.execute(found)]

    def least_sure(
        self, wanted: ItemFilter, *, limit: int, surer_than: tuple[float, int] | None = None
    ) -> list[BatchItem]:
        """Items of a run that need review, those with the lowest score first; of equal scores the newest.

        With `surer_than`, the score and `seq` of an item: those that follow it, also when it was answered meanwhile.
        """
        found = select(batch_items).where(
            _items.run_id == wanted.run_id, *conditions_of(replace(wanted, state=ItemState.NEEDS_REVIEW))
        )
        if surer_than is not None:
            score, seq = surer_than
            found = found.where(or_(_items.score > score, and_(_items.score == score, _items.seq < seq)))
        rows = self._tx.execute(found.order_by(_items.score, _items.seq.desc()).limit(limit))
        return [item_of(row) for row in rows]

    def to_confirm(self, wanted: ItemFilter, *, completed_by: datetime, limit: int) -> list[BatchItem]:
        """Items of a filter that need review, have a prediction and were completed by then, oldest first; locked.

        Those whose photo is being moved are left out.
        """
        found = select(batch_items).where(*_to_confirm(wanted, completed_by), _items.target_key.is_(None))
        return [item_of(row) for row in self._tx.execute(found.order_by(_items.seq).limit(limit).with_for_update())]

    def count_to_confirm(self, wanted: ItemFilter, *, completed_by: datetime) -> int:
        """How many of them there are, with those whose photo is being moved."""
        return int(self._tx.scalar(select(func.count()).where(*_to_confirm(wanted, completed_by))) or 0)

    def confirmed_at(self, run_id: str, moment: datetime, by: str | None, *, limit: int) -> list[BatchItem]:
        """Items of a run that this browser confirmed at that moment, and that nobody changed since; locked."""
        theirs = (
            _items.run_id == run_id,
            _items.corrected_at == moment,
            _items.answered_by == by,
            _items.answer == Answer.CONFIRMED.value,
            _items.target_key.is_(None),
        )
        found = select(batch_items).where(*theirs).order_by(_items.seq).limit(limit).with_for_update()
        return [item_of(row) for row in self._tx.execute(found)]

    def count_to_review(self, channel: str) -> int:
        """How many items of a channel need review, in all of its runs."""
        waiting = (_items.channel == channel, _items.state == ItemState.NEEDS_REVIEW.value)
        return int(self._tx.scalar(select(func.count()).where(*waiting)) or 0)

    def review(self, changed: BatchItem, *, seen: BatchItem) -> None:
        """Write what a person's answer, or its withdrawal, changes in `seen`, which the caller has locked.

        Raises ItemNotReady while its photo is being moved: finish that move first.
        """
        values = {name: getattr(changed, name) for name in _REVIEWED}
        values |= {
            "state": changed.state.value,
            "answer": changed.answer.value if changed.answer else None,
            "reviewed_from": changed.reviewed_from.value if changed.reviewed_from else None,
            "revision": seen.revision + 1,
        }
        same = (_items.id == seen.id, _items.target_key.is_(None), _items.revision == seen.revision)
        if self._tx.execute(update(batch_items).where(*same).values(values)).rowcount != 1:
            raise ItemNotReady(f"The photo of the item {seen.id} is being moved. Try again in a moment.")
        self._tx.execute(delete(batch_looks).where(batch_looks.c.item_id == seen.id))

    def retry(self, item: BatchItem, new_id: str, *, in_place: bool) -> str:
        """Let a quarantined item wait for the next run; the id of the item that waits.

        In its run it stays as it is, and a new item with its photo waits. With `in_place` it waits itself: no run
        accounts for it yet. Its photo stays where it is. `hold_arrivals` first.
        """
        if in_place:
            self._tx.execute(update(batch_items).where(_items.id == item.id).values(AS_NEW))
            return item.id
        left = {"retried_as": new_id, "key": None, "revision": item.revision + 1}
        self._tx.execute(update(batch_items).where(_items.id == item.id).values(left))
        again = replace(
            item, id=new_id, state=ItemState.WAITING, attempts=0, run_id=None, finished_at=None, failure_code=None,
            failure=None, work_ms=None, revision=0,
        )  # fmt: skip
        ItemRepository(self._tx).add_many([again])
        same = (_items.channel == item.channel, _items.sha256 == item.sha256, _items.duplicate_of == item.id)
        self._tx.execute(update(batch_items).where(*same).values(duplicate_of=new_id))
        return new_id

    def retriable(self, channel: str, within: RunRange | None, *, limit: int) -> list[BatchItem]:
        """Quarantined items (of a run's table, if one is given) that another attempt can help, oldest first; locked."""
        broken = [_items.channel == channel, _items.state == ItemState.QUARANTINED.value, _items.retried_as.is_(None)]
        broken.append(failure_code_of.not_in(HOPELESS))
        if within is not None:
            broken.append(belongs(within))
        found = select(batch_items).where(*broken).order_by(_items.seq).limit(limit).with_for_update()
        return [item_of(row) for row in self._tx.execute(found)]

    def labelled(self, channel: str, *, after: str, limit: int) -> list[BatchItem]:
        """Items without a prediction of which a person said what they are, by id, from the one after `after` on."""
        said = (Answer.CONFIRMED.value, Answer.CORRECTED.value)
        theirs = (_items.answer.in_(said), _items.label.is_not(None), _items.prediction_id.is_(None))
        found = select(batch_items).where(_items.channel == channel, *theirs, _items.id > after)
        return [item_of(row) for row in self._tx.execute(found.order_by(_items.id).limit(limit))]

    def count_answers(self, run_id: str) -> dict[Answer, int]:
        """How many items of a run a person has answered, by answer."""
        found = select(_items.answer, func.count()).where(_items.run_id == run_id, _items.answer.is_not(None))
        return {Answer(answer): count for answer, count in self._tx.execute(found.group_by(_items.answer))}

    def count_proposed(self, run_id: str, limit: int) -> list[tuple[str, int]]:
        """The categories that people missed in a run, the most frequent first."""
        missed = (_items.run_id == run_id, _items.answer == Answer.NONE_OF_THESE.value, _items.proposed.is_not(None))
        found = select(_items.proposed, func.count()).where(*missed).group_by(_items.proposed)
        rows = self._tx.execute(found.order_by(func.count().desc(), _items.proposed).limit(limit))
        return [(proposed, count) for proposed, count in rows]


_REVIEWED: Final = (
    "label", "key", "target_key", "thumbnail_key", "corrected_at", "proposed", "answered_by",
)  # fmt: skip
AS_NEW: Final[dict[str, Any]] = {
    "state": ItemState.WAITING.value,
    "attempts": 0,
    "run_id": None,
    "lease_owner": None,
    "finished_at": None,
    "failure_code": None,
    "failure": None,
    "revision": _items.revision + 1,
}
"""The values of an item that waits as a new one."""


def _to_confirm(wanted: ItemFilter, completed_by: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        _items.run_id == wanted.run_id,
        *conditions_of(replace(wanted, state=ItemState.NEEDS_REVIEW)),
        _items.predicted.is_not(None),
        _items.finished_at <= completed_by,
    )


def find_references(tx: Connection, beginning: str, limit: int) -> list[str]:
    """The ids of at most `limit` predictions of items whose order or item number begins so, in no particular order.

    Numbers are compared as they were written, and in upper and lower case.
    """
    found: list[str] = []
    for text in dict.fromkeys((beginning, beginning.upper(), beginning.lower())):
        for column in (_items.order_ref, _items.item_ref):
            inside = (column >= text, column < text + _AFTER_ALL, _items.prediction_id.is_not(None))
            found += tx.scalars(select(_items.prediction_id).where(*inside).limit(limit))
    return found


def owned_predictions(tx: Connection, prediction_ids: Sequence[str]) -> set[str]:
    """Those of the predictions that belong to items: they go with their items only."""
    found = select(_items.prediction_id).where(_items.prediction_id.in_(prediction_ids))
    return {str(each) for each in tx.scalars(found)}
