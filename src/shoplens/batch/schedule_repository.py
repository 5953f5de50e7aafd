"""What a plan is compared with: when a run last began, and since when items wait."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from shoplens.batch.entities import ItemState
from shoplens.batch.tables import batch_items, batch_runs


class ScheduleRepository:
    """Over a transaction that the caller opened."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def last_start(self, channel: str) -> datetime | None:
        """When the newest run of a channel was asked for."""
        newest = select(batch_runs.c.created_at).where(batch_runs.c.channel == channel)
        return self._tx.scalar(newest.order_by(batch_runs.c.id.desc()).limit(1))

    def waiting_since(self, channel: str) -> datetime | None:
        """When the first of the items arrived that wait for a run."""
        columns = batch_items.c
        waiting = select(columns.received_at).where(
            columns.channel == channel, columns.state == ItemState.WAITING.value
        )
        # In the order of an index, so that it takes no longer when a hundred thousand wait.
        return self._tx.scalar(waiting.order_by(columns.attempts, columns.seq).limit(1))
