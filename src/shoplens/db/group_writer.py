"""Write predictions from many threads in few commits: records in, each one's `done` called once its row is durable.

Whatever has gathered while one commit ran goes into the next, so a lone record is written at once and a flood costs
one commit per group. A commit costs several times what a row does, so while many requests are in work the writer also
pauses between commits: that costs them a few milliseconds and the machine much less. Callers are never blocked: a full
queue refuses.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from shoplens.db.database import Database
from shoplens.errors import DatabaseUnavailable, QueueFull, RecordRefused, ShoplensError
from shoplens.predictions.entities import PredictionRecord

Done = Callable[[ShoplensError | None], None]
"""Called once, in the writer's thread, with None when the row is committed. Must be quick and not raise."""

_log: Final = logging.getLogger(__name__)
_LEAST_RETRY_S: Final = 0.1
_ENOUGH_OTHERS: Final = 8


class GroupWriter:
    """One thread that owns all writing of predictions in this process. Thread-safe.

    At most `queue_limit` records wait and at most `max_group` share a commit. While at least eight other requests are
    in work (`enqueue` is told how many), commits start at least `spacing_s` seconds apart.
    """

    def __init__(
        self, database: Database, *, queue_limit: int = 2_048, max_group: int = 256, spacing_s: float = 0.01
    ) -> None:
        self._database = database
        self._queue_limit = queue_limit
        self._max_group = max_group
        self._spacing_s = spacing_s
        self._queue: deque[tuple[PredictionRecord, Done]] = deque()
        self._changed = threading.Condition()
        self._others = 0
        self._waiting = False
        self._closing = False
        self._group_s = _LEAST_RETRY_S
        self._thread = threading.Thread(target=self._run, name="shoplens-group-writer", daemon=True)
        self._thread.start()

    def submit(self, record: PredictionRecord, *, others: int = 0) -> Future[None]:
        """A future that is resolved when the row is committed. Raises and fails as `enqueue` does."""
        future: Future[None] = Future()

        def settle(error: ShoplensError | None) -> None:
            if not future.set_running_or_notify_cancel():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

        self.enqueue(record, settle, others=others)
        return future

    def enqueue(self, record: PredictionRecord, done: Done, *, others: int = 0) -> None:
        """Write `record` soon and then call `done`: with None, RecordRefused or DatabaseUnavailable.

        `others` is how many further requests are in work now: their records will follow, so waiting for them may pay.

        Raises QueueFull at once when too many wait, DatabaseUnavailable after `close`; `done` is then not called.
        """
        with self._changed:
            if self._closing:
                raise DatabaseUnavailable("The database is being closed; no more records are taken.")
            if len(self._queue) >= self._queue_limit:
                raise QueueFull("Too many records wait to be written; try again.", retry_after_s=self._drain_s())
            self._queue.append((record, done))
            self._others = others
            if self._waiting:
                self._changed.notify()

    def queued(self) -> int:
        """How many records wait now."""
        return len(self._queue)

    def close(self) -> None:
        """Write what waits, then stop. Later records are refused."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while self._wait_for_work():
            began = time.monotonic()
            self._write_group(self._take_group())
            self._group_s = time.monotonic() - began
            if self._others >= _ENOUGH_OTHERS and not self._closing:
                time.sleep(max(0.0, self._spacing_s - self._group_s))

    def _wait_for_work(self) -> bool:
        """False when there is none left and none will come."""
        with self._changed:
            self._waiting = True
            self._changed.wait_for(lambda: self._queue or self._closing)
            self._waiting = False
            return bool(self._queue)

    def _take_group(self) -> list[tuple[PredictionRecord, Done]]:
        with self._changed:
            return [self._queue.popleft() for _ in range(min(len(self._queue), self._max_group))]

    def _write_group(self, group: list[tuple[PredictionRecord, Done]]) -> None:
        error = self._write([record for record, _ in group])
        if isinstance(error, RecordRefused) and len(group) > 1:
            # One of them is bad: each alone, so that its neighbours do not share its fate.
            for entry in group:
                self._write_group([entry])
            return
        for _, done in group:
            _call(done, error)

    def _write(self, records: list[PredictionRecord]) -> ShoplensError | None:
        """The error instead of an exception: whatever happens to one group, the loop goes on."""
        try:
            with self._database.uow() as work:
                work.predictions.add_many(records)
        except DatabaseUnavailable as error:
            return error
        except Exception as error:  # noqa: BLE001  a record that cannot even be turned into a row
            _log.exception("record.refused")
            return RecordRefused(f"A record cannot be stored: {error}.")
        return None

    def _drain_s(self) -> float:
        """About how long the waiting records take, in seconds."""
        groups = len(self._queue) / self._max_group
        return max(_LEAST_RETRY_S, (groups + 1) * max(self._group_s, self._spacing_s))


def _call(done: Done, error: ShoplensError | None) -> None:
    try:
        done(error)
    except Exception:  # noqa: BLE001  a caller's fault must not stop everybody's writing
        _log.exception("record.callback_failed")
