"""A person's label in the row of an item, with a move that is still to be made."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from shoplens.batch.entities import ItemState
from shoplens.batch.repository import ItemRepository
from shoplens.batch.review_repository import ReviewRepository
from shoplens.predictions.entities import Answer


def relabel(tx: Connection, item_id: str, *, label: str, target_key: str | None, now: datetime) -> None:
    """Write it, as a review does before it moves the photo."""
    item = ItemRepository(tx).get(item_id)
    changed = replace(
        item, state=ItemState.DONE, label=label, target_key=target_key, corrected_at=now, answer=Answer.CORRECTED,
        reviewed_from=item.reviewed_from or item.state,
    )  # fmt: skip
    ReviewRepository(tx).review(changed, seen=item)
