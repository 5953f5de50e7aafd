"""Whose turn it is: a task of the server that one process at a time does, and that is due now and then."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Column, Connection, Table, insert, or_, select, update

from shoplens.db.tables import UtcDateTime, metadata, required, string

tasks: Final = Table(
    "moderation_tasks",  # moderation was the first feature with such tasks
    metadata,
    Column("name", string(32), primary_key=True),
    required("next_at", UtcDateTime()),
    Column("lease_until", UtcDateTime()),
)


class Turns:
    """The turns of all tasks, over a transaction that the caller opened."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def take(self, name: str, *, now: datetime, lease: timedelta) -> bool:
        """Whether this process does the task now: nobody else does, and it is due. The lease ends by itself."""
        free = or_(tasks.c.lease_until.is_(None), tasks.c.lease_until <= now)
        taken = update(tasks).where(tasks.c.name == name, tasks.c.next_at <= now, free).values(lease_until=now + lease)
        if self._tx.execute(taken).rowcount == 1:
            return True
        if self._tx.execute(select(tasks.c.name).where(tasks.c.name == name)).first() is not None:
            return False
        self._tx.execute(insert(tasks), {"name": name, "next_at": now, "lease_until": now + lease})
        return True

    def end(self, name: str, *, next_at: datetime) -> None:
        """The task is done until then."""
        ended = update(tasks).where(tasks.c.name == name)
        self._tx.execute(ended.values(next_at=next_at, lease_until=None))
