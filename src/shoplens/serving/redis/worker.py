"""A model worker: takes jobs out of the queue, live ones first, lets an engine in this process answer, and answers.

It takes no more than it can work on soon, so that others get the rest, and drops what has expired. Jobs of a worker
that gives no sign of life are claimed. A job on which workers died again and again is answered with an error, and set
aside.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from shoplens.errors import DeadlineExceeded, ImageDecoderFailed, QueueUnavailable, ShoplensError, Unavailable
from shoplens.serving.engine import ClassifyResult, Engine, ServedModel
from shoplens.serving.redis import wire
from shoplens.serving.redis.engine import Connections
from shoplens.serving.redis.fleet import ANNOUNCED_EVERY_S, Announcement
from shoplens.serving.redis.queue import PRIORITIES, Taken
from shoplens.telemetry.metrics import Metrics

_BLOCK_MS: Final = 500
_IDLE_MS: Final = 1_000
"""How long an entry must have been with its owner before it is claimed, so that two never claim it at once."""
_CLAIMED_TOGETHER: Final = 32
_MOST_DELIVERIES: Final = 3
_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 2.0
_CLOCK_EVERY_S: Final = 5.0
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRules:
    """`capacity` photos at a time, in work or about to be; `drain_s` is how long the end may take."""

    capacity: int
    drain_s: float


class Worker:
    """Run it once, on one event loop. `stop` may be called from a signal handler of that loop."""

    def __init__(
        self,
        engine: Engine,
        connections: Callable[[], Connections],
        *,
        models: Mapping[str, ServedModel],
        rules: WorkerRules,
        metrics: Metrics,
    ) -> None:
        opened = connections()
        self._engine = engine
        self._queue = opened.queue
        self._fleet = opened.fleet
        self._rules = rules
        self._metrics = metrics
        self._mine = Announcement(
            worker_id=f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}",
            host=socket.gethostname(),
            pid=os.getpid(),
            models=dict(models),
        )
        self._streams = {each: [self._queue.stream(model, each) for model in models] for each in PRIORITIES}
        self._clock = _RedisClock()
        self._jobs: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._leaving = False
        self._fault: str | None = "The worker has not reached the queue yet."

    @property
    def fault(self) -> str | None:
        """Why it cannot work just now; None while it can."""
        return self._fault

    def stop(self) -> None:
        """Take nothing more, and end when what was taken is answered."""
        self._stopping.set()
        self._freed.set()

    async def run(self) -> None:
        """Until `stop`. What is not answered within `drain_s` then is left for others to claim."""
        beside = [asyncio.create_task(self._announce()), asyncio.create_task(self._claim())]
        try:
            await self._take_until_stopped()
        finally:
            if self._jobs:
                await asyncio.wait(self._jobs, timeout=self._rules.drain_s)
            self._leaving = True  # a cancellation alone may be lost in the client library while it connects
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self._leave()

    async def _take_until_stopped(self) -> None:
        pause_s = _PAUSE_S
        while not self._stopping.is_set():
            try:
                await self._clock.keep(self._queue.now_ms)
                await self._take_some()
                self._fault, pause_s = None, _PAUSE_S
            except QueueUnavailable as error:
                if self._fault != str(error):
                    _log.warning("worker.queue_lost", reason=str(error))
                self._fault = str(error)
                self._clock.forget()
                await self._pause(pause_s)
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def _take_some(self) -> None:
        """Live jobs at once; night jobs only where no live one is there, and few of them, so that live ones get in."""
        free = self._rules.capacity - len(self._jobs)
        if free <= 0:
            self._freed.clear()
            await self._freed.wait()
            return
        live = self._streams["online"]
        taken = await self._queue.take(live, self._mine.worker_id, count=_each(free, live), block_ms=None)
        if not taken:
            both = [*live, *self._streams["batch"]]
            taken = await self._queue.take(both, self._mine.worker_id, count=_each(free, live), block_ms=_BLOCK_MS)
        for each in taken:
            self._begin(each)

    def _begin(self, taken: Taken) -> None:
        task = asyncio.create_task(self._work(taken))
        self._jobs.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._jobs.discard(task)
        self._freed.set()
        if not task.cancelled() and task.exception() is not None:
            _log.error("worker.job_failed", exc_info=task.exception())

    async def _work(self, taken: Taken) -> None:
        try:
            envelope = wire.envelope_of(taken.fields)
        except wire.Garbage as garbage:
            await self._set_aside(taken, str(garbage))
            return
        if (outcome := await self._outcome(taken, envelope)) is not None:
            await self._answer(taken, envelope, outcome)

    async def _outcome(self, taken: Taken, envelope: wire.Envelope) -> ClassifyResult | ShoplensError | None:
        """What came out; None for what goes back to others."""
        if envelope.version != wire.VERSION:
            return wire.refusal(envelope).outcome
        left_s = self._clock.seconds_until(envelope.by_ms)
        if left_s <= 0:
            self._metrics.jobs_expired.inc()
            return DeadlineExceeded("The time for this request passed while it waited for a worker.")
        if taken.deliveries > _MOST_DELIVERIES:
            await self._note_aside(taken, "workers died on it")
            return ImageDecoderFailed(f"{taken.deliveries - 1} workers ended while they worked on this photo.")
        try:
            return await self._engine.classify(wire.job_of(envelope, timeout_s=left_s))
        except wire.Garbage as garbage:
            await self._note_aside(taken, str(garbage))
            return ShoplensError("The job could not be understood by the worker.")
        except ShoplensError as error:
            return error

    async def _answer(self, taken: Taken, envelope: wire.Envelope, outcome: ClassifyResult | ShoplensError) -> None:
        """Again and again while the queue is away, as long as somebody may wait for it."""
        answer = wire.reply_bytes(wire.Reply(job_id=envelope.job_id, outcome=outcome))
        while True:
            try:
                answered = await self._queue.finish(
                    taken.stream, taken.entry, byte_count=envelope.byte_count, to=envelope.to, answer=answer
                )
            except QueueUnavailable:
                if self._clock.seconds_until(envelope.by_ms) <= 0:
                    return
                await asyncio.sleep(_PAUSE_S)
            else:
                if answered:
                    self._metrics.jobs_answered.inc()
                return

    async def _set_aside(self, taken: Taken, reason: str) -> None:
        """No job at all: kept for whoever looks into it, counted, and removed; nobody can be answered."""
        size = len(taken.fields.get(b"image", b""))
        await self._note_aside(taken, reason)
        with suppress(QueueUnavailable):
            await self._queue.forget(taken.stream, taken.entry, byte_count=size)

    async def _note_aside(self, taken: Taken, reason: str) -> None:
        _log.warning("worker.set_aside", stream=taken.stream, entry=taken.entry.decode(), reason=reason)
        self._metrics.jobs_set_aside.inc()
        with suppress(QueueUnavailable):
            await self._queue.set_aside(taken, reason)

    async def _announce(self) -> None:
        while not self._leaving:
            with suppress(Unavailable):
                await self._engine.check()
                await self._fleet.announce(self._mine)
            await asyncio.sleep(ANNOUNCED_EVERY_S)

    async def _claim(self) -> None:
        """Look for jobs whose worker is not there any more."""
        while not self._stopping.is_set():
            await asyncio.sleep(ANNOUNCED_EVERY_S)
            try:
                await self._claim_some()
            except QueueUnavailable:
                continue  # the loop that takes jobs tells it
            except Exception:  # noqa: BLE001 - whatever it was, the jobs of the dead must not wait for ever
                _log.exception("worker.claim_failed")

    async def _claim_some(self) -> None:
        alive = {worker.worker_id for worker in await self._fleet.alive()}
        if self._mine.worker_id not in alive:
            return  # Redis has just come back, or this process has slept: everybody shall speak first
        for stream in (stream for streams in self._streams.values() for stream in streams):
            for owner, pending in (await self._queue.owners(stream)).items():
                if owner in alive:
                    continue
                if pending:
                    await self._claim_from(stream, owner)
                else:
                    await self._queue.leave(stream, owner)

    async def _claim_from(self, stream: str, owner: str) -> None:
        claimed = await self._queue.claim(
            stream, owner, self._mine.worker_id, count=_CLAIMED_TOGETHER, idle_ms=_IDLE_MS
        )
        self._metrics.jobs_claimed.inc(len(claimed))
        if claimed:
            _log.warning("worker.claimed", stream=stream, owner=owner, jobs=len(claimed))
        for each in claimed:
            self._begin(each)

    async def _leave(self) -> None:
        """Others may have what was not answered in time."""
        with suppress(QueueUnavailable):
            await self._fleet.leave(self._mine.worker_id)
        for task in list(self._jobs):
            task.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self._queue.close()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()


class _RedisClock:
    """Redis' time from this machine's monotonic clock: neither clock need be right, and none is asked per job."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None
        self._asked_at = 0.0

    async def keep(self, ask: Callable[[], Awaitable[int]]) -> None:
        """Compare both clocks now and then. Raises QueueUnavailable."""
        now = time.monotonic()
        if self._ahead_ms is not None and now - self._asked_at < _CLOCK_EVERY_S:
            return
        theirs = await ask()
        self._ahead_ms = theirs - 1000 * (now + time.monotonic()) / 2
        self._asked_at = now

    def forget(self) -> None:
        """Ask again soon: another server may have another clock."""
        self._ahead_ms = None

    def seconds_until(self, by_ms: int) -> float:
        """Seconds left, below 0 when it has passed; some, while the clocks could not be compared."""
        if self._ahead_ms is None:
            return 1.0
        return (by_ms - self._ahead_ms) / 1000 - time.monotonic()


def _each(free: int, streams: list[str]) -> int:
    """How many entries to take of each stream, so that about `free` come in all."""
    return max(1, free // max(1, len(streams)))
