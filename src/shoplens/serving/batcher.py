"""A bounded, fair queue in front of threads that run items alone or in batches, each until its deadline.

With `max_batch=1` every call gets one item, which is best on a CPU. With more it waits up to `max_wait_s` for a batch
to fill, which a GPU needs.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shoplens.errors import EngineStopped, NotStarted, QueueFull, ShoplensError
from shoplens.messages import marked
from shoplens.serving.engine import fault_of
from shoplens.serving.fair_queue import FairQueue
from shoplens.telemetry.logs import get_logger

Item = TypeVar("Item")
Result = TypeVar("Result")

_SMOOTHING = 0.1
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batching:
    """How many threads run batches of at most `max_batch`, and how many items may wait."""

    threads: int
    max_batch: int = 1
    max_wait_s: float = 0.0
    queue_limit: int = 128

    def __str__(self) -> str:
        threads = marked(f"{self.threads} threads") if self.threads > 1 else marked("1 thread")
        if self.max_batch == 1:
            return marked(f"single calls on {threads}")
        return marked(f"batches of up to {self.max_batch} within {self.max_wait_s * 1e3:g} ms on {threads}")


@dataclass(slots=True, kw_only=True, eq=False)
class PendingRequest(Generic[Item, Result]):
    """One accepted item. Its caller sets `abandoned` when it no longer waits, so that the item is skipped.

    `context` is that of its caller, for the thread that runs it: its lines have the request's id, its spans a parent.
    """

    item: Item
    deadline: float
    done: Callable[[Result | ShoplensError], None]
    enqueued_at: float
    client: str = ""
    waited_s: float = 0.0
    begun: bool = False
    abandoned: bool = False
    context: Context = field(default_factory=copy_context)


class Batcher(Generic[Item, Result]):
    """Runs `run` on its own threads. Every accepted item gets exactly one call of its `done`, whatever happens.

    `run` takes pending requests and returns one outcome for each, in order: None for one that it has put into another
    batcher with `enqueue`. If it raises on a batch of several, each is run again alone, so that a bad item fails by
    itself. `done` is called on a thread of the batcher and must be quick.
    """

    def __init__(
        self,
        run: Callable[[Sequence[PendingRequest[Item, Result]]], Sequence[Result | ShoplensError | None]],
        batching: Batching,
        *,
        name: str = "batcher",
    ) -> None:
        self.batching = batching
        self._run = run
        self._queue: FairQueue[PendingRequest[Item, Result]] = FairQueue()
        self._changed = threading.Condition()
        self._closing = False
        self._seconds_per_item = 0.01
        self._finished_at = time.monotonic()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name}-{index}", daemon=True)
            for index in range(batching.threads)
        ]
        for thread in self._threads:
            thread.start()

    def __len__(self) -> int:
        """Items that wait for a thread now."""
        return len(self._queue)

    @property
    def stopped(self) -> bool:
        """Whether new items are refused, or no thread is left to run them."""
        return self._closing or not any(thread.is_alive() for thread in self._threads)

    @property
    def stuck_s(self) -> float:
        """For how long items have waited while none was finished; 0 when none waits."""
        with self._changed:
            if not self._queue:
                return 0.0
            return time.monotonic() - max(self._finished_at, self._queue.oldest_at)

    def submit(
        self, item: Item, *, deadline: float, done: Callable[[Result | ShoplensError], None], client: str = ""
    ) -> PendingRequest[Item, Result]:
        """Accept `item`, to be started before `deadline` (monotonic seconds). Raises QueueFull and EngineStopped.

        Clients take turns. When the queue is full, the newest item of the client that has most of it gets QueueFull.
        """
        pending: PendingRequest[Item, Result] = PendingRequest(
            item=item, deadline=deadline, done=done, enqueued_at=time.monotonic(), client=client
        )
        self.enqueue(pending)
        return pending

    def enqueue(self, pending: PendingRequest[Item, Result]) -> None:
        """Accept an item, new or from another batcher, as `submit` does."""
        pending.begun = False
        displaced: PendingRequest[Item, Result] | None = None
        with self._changed:
            if self._closing:
                raise EngineStopped("The engine is stopping and accepts no more photos. Try again soon.")
            if len(self._queue) >= self.batching.queue_limit:
                displaced = self._queue.make_room(pending.client)
                if displaced is None:
                    raise self._full()
            self._queue.append(pending)
            self._changed.notify()
        if displaced is not None:
            self._finish(displaced, self._full())

    def _full(self) -> QueueFull:
        waiting = self.batching.queue_limit
        retry_after_s = max(0.1, waiting * self._seconds_per_item / self.batching.threads)
        return QueueFull(
            f"The queue is full ({waiting} photos wait). Try again in {retry_after_s:.1f} s.",
            retry_after_s=retry_after_s,
        )

    def close(self, *, drain_s: float) -> None:
        """Accept no more, finish what was accepted for up to `drain_s`, and fail the rest with EngineStopped."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        give_up_at = time.monotonic() + drain_s
        for thread in self._threads:
            thread.join(max(0.0, give_up_at - time.monotonic()))
        with self._changed:
            left = [self._queue.popleft() for _ in range(len(self._queue))]
        for pending in left:
            self._finish(pending, EngineStopped("The engine stopped before this photo was started."))

    def _work(self) -> None:
        """What each thread does until the batcher is closed and its queue is empty."""
        while batch := self._next_batch():
            started = time.monotonic()
            wanted = []
            for pending in batch:
                pending.waited_s = started - pending.enqueued_at
                if pending.abandoned or started > pending.deadline:
                    self._finish(pending, NotStarted("The deadline of this request passed in the queue."))
                else:
                    pending.begun = True
                    wanted.append(pending)
            if wanted:
                self._run_batch(wanted)
                seconds_per_item = (time.monotonic() - started) / len(wanted)
                self._seconds_per_item += _SMOOTHING * (seconds_per_item - self._seconds_per_item)
            self._finished_at = time.monotonic()

    def _next_batch(self) -> list[PendingRequest[Item, Result]]:
        """The next items, of each client in turn; empty only when closing and nothing is left."""
        with self._changed:
            while True:
                while not self._queue:
                    if self._closing:
                        return []
                    self._changed.wait()
                full_at = self._queue.oldest_at + self.batching.max_wait_s
                while 0 < len(self._queue) < self.batching.max_batch and not self._closing:
                    left_s = full_at - time.monotonic()
                    if left_s <= 0 or not self._changed.wait(left_s):
                        break
                if size := min(len(self._queue), self.batching.max_batch):  # another thread may have taken them
                    return [self._queue.popleft() for _ in range(size)]

    def _run_batch(self, batch: Sequence[PendingRequest[Item, Result]]) -> None:
        if len(batch) > 1:
            self._run_in_context(batch)
        else:  # a copy, since it may still be in use where the item came from
            batch[0].context.copy().run(self._run_in_context, batch)

    def _run_in_context(self, batch: Sequence[PendingRequest[Item, Result]]) -> None:
        outcomes: list[Result | ShoplensError | None]
        try:
            outcomes = [outcome for _, outcome in zip(batch, self._run(batch), strict=True)]
        except Exception as error:  # noqa: BLE001 - the thread must survive anything that an item does to it
            if len(batch) > 1:
                for pending in batch:
                    self._run_batch([pending])
                return
            if not isinstance(error, ShoplensError):
                _log.exception("batcher.item_failed")
            outcomes = [error if isinstance(error, ShoplensError) else fault_of(error)]
        for pending, outcome in zip(batch, outcomes, strict=True):
            if outcome is not None:
                self._finish(pending, outcome)

    def _finish(self, pending: PendingRequest[Item, Result], outcome: Result | ShoplensError) -> None:
        try:
            pending.done(outcome)
        except Exception:  # noqa: BLE001 - the caller's loop may be gone; the next item must still be served
            _log.exception("batcher.answer_lost")


def complete(future: asyncio.Future[Result] | Future[Result], outcome: Result | BaseException) -> None:
    """Give `future` its outcome, unless it has one or its caller has cancelled it. An exception is raised there.

    An asyncio future may only be completed on its own loop: see `complete_from_thread`.
    """
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


def complete_from_thread(future: asyncio.Future[Result], outcome: Result | BaseException) -> None:
    """The same from any thread. Does nothing when the loop is closed, since nobody can be waiting then."""
    with suppress(RuntimeError):
        future.get_loop().call_soon_threadsafe(complete, future, outcome)
