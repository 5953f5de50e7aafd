"""Group commit: rows from many threads, written in few transactions; each caller learns when its row is durable.

What arrives while one transaction runs goes into the next, so a single row is written at once and a flood of rows costs
one commit per group. A commit costs several times what a row does, so while many requests are being processed the
writer also pauses between commits. Callers never block: a full queue refuses.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sqlalchemy import Connection

from shoplens.db.database import Database
from shoplens.errors import DatabaseUnavailable, QueueFull, RecordRefused, ShoplensError
from shoplens.telemetry.tracing import Attributes, span

Row = TypeVar("Row")

_log: Final = logging.getLogger(__name__)
_MIN_RETRY_S: Final = 0.1
_PAUSE_S: Final = 0.02
_MANY_OTHERS: Final = 8


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Row]):
    """A row that waits, and the context of its caller: what is logged of the row has the request's id."""

    row: Row
    committed: Future[None]
    context: Context


class GroupWriter(Generic[Row]):
    """One thread that commits rows of one kind for this process. Thread-safe.

    `write` adds a group within the transaction. At most `queue_limit` rows wait, at most `max_group` share a commit.
    `table` is what traces call the rows.
    """

    def __init__(
        self,
        database: Database,
        write: Callable[[Connection, Sequence[Row]], None],
        *,
        table: str = "rows",
        queue_limit: int = 2_048,
        max_group: int = 256,
    ) -> None:
        self._traced_as = f"INSERT {table}", {"db.system.name": database.system, "db.operation.name": "INSERT"}
        self._database = database
        self._write = write
        self._queue_limit = queue_limit
        self._max_group = max_group
        self._queue: deque[_Entry[Row]] = deque()
        self._changed = threading.Condition()
        self._others = 0
        self._closing = threading.Event()
        self._group_s = _MIN_RETRY_S
        self._thread = threading.Thread(target=self._run, name="shoplens-group-writer", daemon=True)
        self._thread.start()

    def submit(self, row: Row, *, others: int = 0) -> Future[None]:
        """Write `row` soon. The future is resolved when it is committed; it fails with RecordRefused or
        DatabaseUnavailable. A row whose future is cancelled is written all the same.

        `others` is how many more requests are being processed now: their rows will follow, so it may pay to wait.

        Raises QueueFull at once when too many rows wait, and DatabaseUnavailable after `close`.
        """
        committed: Future[None] = Future()
        with self._changed:
            if self._closing.is_set():
                raise DatabaseUnavailable("The database is being closed; no more records are accepted.")
            if len(self._queue) >= self._queue_limit:
                groups = len(self._queue) / self._max_group + 1
                raise QueueFull(
                    "Too many records wait to be written; try again.",
                    retry_after_s=max(_MIN_RETRY_S, groups * self._group_s),
                )
            self._queue.append(_Entry(row, committed, copy_context()))
            self._others = others
            self._changed.notify()
        return committed

    async def store(self, row: Row, *, others: int = 0, about: Attributes | None = None) -> None:
        """`submit` and wait until the row is committed; traces show the wait, with what they shall say `about` it.

        Raises what `submit` and its future raise.
        """
        name, attributes = self._traced_as
        with span(name, {**attributes, **(about or {})}, kind="client"):
            await asyncio.wrap_future(self.submit(row, others=others))

    def queued(self) -> int:
        """How many rows wait now."""
        return len(self._queue)

    def close(self) -> None:
        """Write what waits, then stop. Later rows are refused."""
        with self._changed:
            self._closing.set()
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing.is_set())
                group = [self._queue.popleft() for _ in range(min(len(self._queue), self._max_group))]
            if not group:
                return
            began = time.monotonic()
            self._commit(group)
            self._group_s = time.monotonic() - began
            if self._others >= _MANY_OTHERS:
                self._closing.wait(_PAUSE_S)

    def _commit(self, group: Sequence[_Entry[Row]]) -> None:
        """Catches everything: whatever happens to one group, the thread goes on."""
        error: ShoplensError | None = None
        try:
            with self._database.transaction() as tx:
                self._write(tx, [entry.row for entry in group])
        except DatabaseUnavailable as unavailable:
            error = unavailable
        except Exception as refused:  # noqa: BLE001  also a value that cannot be turned into a row
            if len(group) > 1:  # one row is bad: commit each alone, so that the others are stored
                for entry in group:
                    self._commit([entry])
                return
            group[0].context.run(_log.exception, "record.refused")
            error = RecordRefused(f"A record cannot be stored: {refused}.")
        for committed in (entry.committed for entry in group):
            if not committed.set_running_or_notify_cancel():
                continue
            if error is None:
                committed.set_result(None)
            else:
                committed.set_exception(error)
