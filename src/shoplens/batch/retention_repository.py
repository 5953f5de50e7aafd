"""Photos of items that are older than they may become, over a transaction that the caller opened.

Every method raises DatabaseUnavailable through that transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, func, or_, select, update

from shoplens.batch.entities import HOPELESS, BatchItem, ItemState
from shoplens.batch.repository import ItemRepository, failure_code_of
from shoplens.batch.tables import SETTLED_PHOTO, batch_items, batch_runs
from shoplens.predictions.entities import Aged

_items: Final = batch_items.c
_SINCE: Final[ColumnElement[Any]] = func.coalesce(_items.corrected_at, _items.finished_at, _items.received_at)
_ENDED: Final = or_(
    _items.run_id.is_(None), _items.run_id.not_in(select(batch_runs.c.id).where(batch_runs.c.active == 1))
)
_WAITS: Final = (_items.state == ItemState.QUARANTINED.value) & failure_code_of.not_in(HOPELESS)


class ItemRetentionRepository:
    """The part of the table `batch_items` that retention changes."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def aged(self, channel: str, *, after: int, until: datetime, limit: int) -> list[tuple[int, Aged]]:
        """At most `limit` items that have a photo, need no review, belong to no active run and arrived before `until`,
        each with its `seq`, from the one after `after` on. Those whose photo is being moved are left out.

        The days of an item begin with the last answer of a person, else with its end in the run. A quarantined one that
        can be tried again waits for a person.
        """
        here = (_items.channel == channel, SETTLED_PHOTO, _items.seq > after, _items.received_at < until)
        found = select(
            _items.seq, _items.id, _items.received_at, _items.finished_at, _items.corrected_at,
            _WAITS.label("waits"),
        ).where(*here, _ENDED, _items.target_key.is_(None))  # fmt: skip
        return [
            (
                row.seq,
                Aged(
                    id=row.id,
                    made_at=row.received_at,
                    since=row.corrected_at or row.finished_at or row.received_at,
                    waits=bool(row.waits),
                ),
            )
            for row in self._tx.execute(found.order_by(_items.seq).limit(limit))
        ]

    def mark(self, item_ids: Sequence[str], *, before: datetime, now: datetime) -> list[BatchItem]:
        """Note that the photos of these items are being deleted, except of those that changed meanwhile; the others.

        Those that were marked before are among them.
        """
        due = (SETTLED_PHOTO, _ENDED, ~_WAITS, _items.target_key.is_(None), before > _SINCE)
        found = select(_items.id).where(_items.id.in_(item_ids), *due).order_by(_items.seq).with_for_update()
        marked = list(self._tx.scalars(found))
        fresh = (_items.id.in_(marked), _items.photo_deleted_at.is_(None))
        self._tx.execute(update(batch_items).where(*fresh).values(photo_deleted_at=now))
        return ItemRepository(self._tx).locked(marked)

    def drop(self, item_ids: Sequence[str]) -> int:
        """Forget the keys of photos that were deleted; how many there were."""
        gone = (_items.id.in_(item_ids), _items.photo_deleted_at.is_not(None), _items.key.is_not(None))
        return self._tx.execute(update(batch_items).where(*gone).values(key=None, thumbnail_key=None)).rowcount

    def count_to_review(self, channel: str, *, before: datetime, most: int) -> int:
        """How many items that are older than that need review, up to `most`."""
        waiting = (_items.channel == channel, _items.state == ItemState.NEEDS_REVIEW.value, _items.finished_at < before)
        found = select(_items.seq).where(*waiting).limit(most)
        return int(self._tx.scalar(select(func.count()).select_from(found.subquery())) or 0)
