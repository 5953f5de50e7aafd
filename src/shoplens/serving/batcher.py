"""Bring work to worker threads: bounded by queue length, batch size, wait and each item's deadline.

With `max_batch=1` this is a queueing policy over single calls, which is the best that a CPU can do; with larger
batches it fills each call for up to `max_wait_s`, which is what a GPU needs.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog

from shoplens.errors import DeadlineExceeded, EngineStopped, QueueFull, ShoplensError

Item = TypeVar("Item")
Result = TypeVar("Result")

_SMOOTHING = 0.1
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """The bounds of a batcher."""

    threads: int
    max_batch: int = 1
    max_wait_s: float = 0.0
    queue_limit: int = 128

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        if self.max_batch == 1:
            return f"single calls on {threads}"
        return f"batches of up to {self.max_batch} within {self.max_wait_s * 1e3:g} ms on {threads}"


@dataclass(slots=True, kw_only=True, eq=False)
class PendingRequest(Generic[Item, Result]):
    """One item on its way. Its caller sets `abandoned` when it no longer waits, so that no work is wasted."""

    item: Item
    deadline: float
    done: Callable[[Result | ShoplensError], None]
    enqueued_at: float
    started_at: float = 0.0
    abandoned: bool = False

    @property
    def waited_s(self) -> float:
        """Seconds between being accepted and being started."""
        return self.started_at - self.enqueued_at


class Batcher(Generic[Item, Result]):
    """Runs `run` on its own threads. Every accepted item gets exactly one call of its `done`, whatever happens.

    `run` takes tickets and returns one outcome per ticket, in order. If it raises on a batch of several, each is
    run again alone, so that a bad item fails by itself. `done` is called from a worker thread and must be quick.
    """

    def __init__(
        self,
        run: Callable[[Sequence[PendingRequest[Item, Result]]], Sequence[Result | ShoplensError]],
        batching: Batching,
        *,
        name: str = "batcher",
    ) -> None:
        self.batching = batching
        self._run = run
        self._queue: deque[PendingRequest[Item, Result]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._seconds_per_item = 0.01
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(batching.threads)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Items that wait for a worker now."""
        return len(self._queue)

    @property
    def stopped(self) -> bool:
        """Whether new items are refused, or no worker is left to take them."""
        return self._closing or not any(thread.is_alive() for thread in self._threads)

    def submit(
        self, item: Item, *, deadline: float, done: Callable[[Result | ShoplensError], None]
    ) -> PendingRequest[Item, Result]:
        """Accept `item`, to be started before `deadline` (monotonic seconds). Raises QueueFull and EngineStopped."""
        ticket: PendingRequest[Item, Result] = PendingRequest(
            item=item, deadline=deadline, done=done, enqueued_at=time.monotonic()
        )
        with self._changed:
            if self._closing:
                raise EngineStopped("The engine is stopping and takes no more work. Try again soon.")
            if len(self._queue) >= self.batching.queue_limit:
                raise self._full()
            self._queue.append(ticket)
            self._changed.notify()
        return ticket

    def close(self, *, drain_s: float) -> None:
        """Take no more, finish what was accepted for up to `drain_s`, and fail the rest with EngineStopped."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        give_up_at = time.monotonic() + drain_s
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        with self._changed:
            left = list(self._queue)
            self._queue.clear()
        for ticket in left:
            self._finish(ticket, EngineStopped("The engine stopped before this item was started."))

    def _full(self) -> QueueFull:
        waiting = len(self._queue)
        retry_after_s = max(0.1, waiting * self._seconds_per_item / self.batching.threads)
        return QueueFull(
            f"The queue is full ({waiting} photos wait). Try again in {retry_after_s:.1f} s.",
            retry_after_s=retry_after_s,
        )

    def _work(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            for ticket in batch:
                ticket.started_at = started
            if live := [ticket for ticket in batch if self._is_live(ticket, started)]:
                self._serve(live)
                self._learn_pace((time.monotonic() - started) / len(live))

    def _next_batch(self) -> list[PendingRequest[Item, Result]]:
        """The next items, oldest first; empty only when closing and nothing is left."""
        with self._changed:
            while not self._queue:
                if self._closing:
                    return []
                self._changed.wait()
            self._fill()
            size = min(len(self._queue), self.batching.max_batch)
            return [self._queue.popleft() for _ in range(size)]

    def _fill(self) -> None:
        """Wait, for `max_wait_s` from when the oldest item came, until a whole batch has gathered."""
        full_at = self._queue[0].enqueued_at + self.batching.max_wait_s
        while 0 < len(self._queue) < self.batching.max_batch and not self._closing:
            left_s = full_at - time.monotonic()
            if left_s <= 0 or not self._changed.wait(left_s):
                return

    def _is_live(self, ticket: PendingRequest[Item, Result], now: float) -> bool:
        if ticket.abandoned or now > ticket.deadline:
            self._finish(ticket, DeadlineExceeded("The time for this request passed while it waited in the queue."))
            return False
        return True

    def _serve(self, batch: Sequence[PendingRequest[Item, Result]]) -> None:
        try:
            outcomes = self._run(batch)
        except Exception as error:  # noqa: BLE001 - a worker must outlive anything that an item does to it
            if len(batch) > 1:
                for ticket in batch:
                    self._serve([ticket])
                return
            outcomes = [_as_outcome(error)]
        for ticket, outcome in zip(batch, outcomes, strict=True):
            self._finish(ticket, outcome)

    def _finish(self, ticket: PendingRequest[Item, Result], outcome: Result | ShoplensError) -> None:
        try:
            ticket.done(outcome)
        except Exception:  # noqa: BLE001 - the caller's loop may be gone; the next item must still be served
            _log.exception("batcher.answer_lost")

    def _learn_pace(self, seconds_per_item: float) -> None:
        self._seconds_per_item += _SMOOTHING * (seconds_per_item - self._seconds_per_item)


def _as_outcome(error: Exception) -> ShoplensError:
    if isinstance(error, ShoplensError):
        return error
    _log.error("batcher.item_failed", exc_info=error)
    failure = ShoplensError("This item could not be processed because of a fault in the program.")
    failure.__cause__ = error
    return failure
