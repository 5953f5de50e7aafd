"""Group commit: rows from many threads, written in few transactions; each caller learns when its row is durable.

What arrives while one transaction runs goes into the next, so a single row is written at once and a flood of rows costs
one commit per group. A commit costs several times what a row does, so while many requests are being processed the
writer also pauses between commits. Callers never block: a full queue refuses.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Final, Generic, TypeVar

from sqlalchemy import Connection

from shoplens.db.database import Database
from shoplens.errors import DatabaseUnavailable, QueueFull, RecordRefused, ShoplensError

Row = TypeVar("Row")
Done = Callable[[ShoplensError | None], None]
"""Called once, in the writer's thread: with None when the row is committed. Must be quick and not raise."""

_log: Final = logging.getLogger(__name__)
_MIN_RETRY_S: Final = 0.1
_PAUSE_S: Final = 0.02
_MANY_OTHERS: Final = 8


class GroupWriter(Generic[Row]):
    """One thread that commits rows of one kind for this process. Thread-safe.

    `write` adds a group within the transaction. At most `queue_limit` rows wait, at most `max_group` share a commit.
    """

    def __init__(
        self,
        database: Database,
        write: Callable[[Connection, Sequence[Row]], None],
        *,
        queue_limit: int = 2_048,
        max_group: int = 256,
    ) -> None:
        self._database = database
        self._write = write
        self._queue_limit = queue_limit
        self._max_group = max_group
        self._queue: deque[tuple[Row, Done]] = deque()
        self._changed = threading.Condition()
        self._others = 0
        self._closing = threading.Event()
        self._group_s = _MIN_RETRY_S
        self._thread = threading.Thread(target=self._run, name="shoplens-group-writer", daemon=True)
        self._thread.start()

    def submit(self, row: Row) -> Future[None]:
        """A future that is resolved when the row is committed. Raises and fails as `enqueue` does."""
        future: Future[None] = Future()

        def complete(error: ShoplensError | None) -> None:
            if not future.set_running_or_notify_cancel():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self.enqueue(row, complete)
        return future

    def enqueue(self, row: Row, done: Done, *, others: int = 0) -> None:
        """Write `row` soon, then call `done` with None, RecordRefused or DatabaseUnavailable.

        `others` is how many more requests are being processed now: their rows will follow, so it may pay to wait.

        Raises QueueFull at once when too many rows wait and DatabaseUnavailable after `close`; `done` is not called
        then.
        """
        with self._changed:
            if self._closing.is_set():
                raise DatabaseUnavailable("The database is being closed; no more records are accepted.")
            if len(self._queue) >= self._queue_limit:
                groups = len(self._queue) / self._max_group + 1
                raise QueueFull(
                    "Too many records wait to be written; try again.",
                    retry_after_s=max(_MIN_RETRY_S, groups * self._group_s),
                )
            self._queue.append((row, done))
            self._others = others
            self._changed.notify()

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

    def _commit(self, group: Sequence[tuple[Row, Done]]) -> None:
        """Catches everything: whatever happens to one group, the thread goes on."""
        error: ShoplensError | None = None
        try:
            with self._database.transaction() as tx:
                self._write(tx, [row for row, _ in group])
        except DatabaseUnavailable as unavailable:
            error = unavailable
        except Exception as refused:  # noqa: BLE001  also a value that cannot be turned into a row
            if len(group) > 1:  # one row is bad: commit each alone, so that the others are stored
                for entry in group:
                    self._commit([entry])
                return
            _log.exception("record.refused")
            error = RecordRefused(f"A record cannot be stored: {refused}.")
        for _, done in group:
            try:
                done(error)
            except Exception:  # noqa: BLE001  a caller's fault must not stop the thread
                _log.exception("record.callback_failed")
