"""What items say of people, and how it is removed, over a transaction that the caller opened."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, select, update

from shoplens.batch.entities import ItemState
from shoplens.batch.tables import batch_items

_items: Final = batch_items.c
_NAMES_NOBODY: Final = {"customer_ref": None, "review_ref": None, "order_ref": None}
_WITH_PHOTO: Final = (ItemState.WAITING.value, ItemState.QUARANTINED.value)


class ItemPeopleRepository:
    """References to customers, their orders and reviews."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def forget(self, item_ids: Collection[str]) -> None:
        """Remove them from items whose results say it themselves."""
        self._tx.execute(update(batch_items).where(_items.id.in_(item_ids)).values(_NAMES_NOBODY))

    def unprocessed(self, customer: str, *, limit: int) -> dict[str, list[str]]:
        """Items of a customer that wait or are in quarantine: the keys of their files by id."""
        columns = (_items.id, _items.key, _items.target_key, _items.thumbnail_key)
        mine = (_items.customer_ref == customer, _items.state.in_(_WITH_PHOTO))
        rows = self._tx.execute(select(*columns).where(*mine).limit(limit))
        return {row.id: [key for key in (row.key, row.target_key, row.thumbnail_key) if key] for row in rows}

    def dismiss(self, item_ids: Collection[str]) -> int:
        """Dismiss those of them that still wait or are in quarantine, without a photo; how many there were."""
        gone = {"state": ItemState.DISMISSED.value, "key": None, "target_key": None, "thumbnail_key": None}
        mine = (_items.id.in_(item_ids), _items.state.in_(_WITH_PHOTO))
        return self._tx.execute(update(batch_items).where(*mine).values({**gone, **_NAMES_NOBODY})).rowcount

    def forget_customer(self, customer: str) -> None:
        """Remove the references from all other items of a customer, such as duplicates."""
        self._tx.execute(update(batch_items).where(_items.customer_ref == customer).values(_NAMES_NOBODY))
