"""A model worker: takes jobs from the queue, online ones first, and answers them with an engine in this process.

It takes no more than it can start soon, so that other workers get the rest, and drops jobs whose deadline has passed.
It claims the jobs of workers without a heartbeat. A photo on which worker after worker died is refused and quarantined.
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
from msgspec.structs import replace

from shoplens.errors import ImageDecoderFailed, NotStarted, QueueUnavailable, ShoplensError, Unavailable
from shoplens.serving.engine import ClassifyResult, Engine, ServedModel
from shoplens.serving.redis import messages
from shoplens.serving.redis.broker import HEARTBEAT_S, PRIORITIES, Broker, Delivery
from shoplens.serving.redis.messages import Envelope, Heartbeat, Job, Reply
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.tracing import Attributes, resume

_BLOCK_MS: Final = 500
_IDLE_MS: Final = 1_000
"""How long an entry must have been with its owner before it is claimed, so that two workers never claim it at once."""
_CLAIMED_AT_ONCE: Final = 32
_MAX_ATTEMPTS: Final = 3
_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 2.0
_CLOCK_S: Final = 5.0
_MESSAGING: Final = {"messaging.system": "redis", "messaging.operation.type": "process"}
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLimits:
    """`capacity` photos at a time, in work or taken; `drain_s` is how long stopping may take."""

    capacity: int
    drain_s: float


class Worker:
    """Run it once, on one event loop. `stop` may be called from a signal handler of that loop.

    `models` gives what the engine serves now, by the names under which jobs ask for it; the names stay the same.
    """

    def __init__(
        self,
        engine: Engine,
        broker: Broker,
        *,
        models: Callable[[], Mapping[str, ServedModel]],
        limits: WorkerLimits,
        metrics: Metrics,
    ) -> None:
        self._engine = engine
        self._broker = broker
        self._limits = limits
        self._metrics = metrics
        self._heartbeat = Heartbeat(
            worker_id=f"{socket.gethostname()}-{os.getpid()}-{os.urandom(3).hex()}",
            host=socket.gethostname(),
            pid=os.getpid(),
            models=dict(models()),
        )
        self._models = models
        self._streams = {each: [broker.stream(model, each) for model in models()] for each in PRIORITIES}
        self._clock = _RedisClock()
        self._jobs: set[asyncio.Task[None]] = set()
        self._freed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._leaving = False
        self._fault: str | None = "The worker has not reached the queue yet."

    @property
    def fault(self) -> str | None:
        """Why it cannot work now; None while it can."""
        return self._fault

    def stop(self) -> None:
        """Take no more jobs, and end when those taken are answered."""
        self._stopping.set()
        self._freed.set()

    async def run(self) -> None:
        """Work until `stop`. Jobs that are not answered within `drain_s` after it are left for others to claim."""
        loops = [asyncio.create_task(self._send_heartbeats()), asyncio.create_task(self._claim_jobs())]
        try:
            await self._take_jobs()
        finally:
            if self._jobs:
                await asyncio.wait(self._jobs, timeout=self._limits.drain_s)
            self._leaving = True  # a cancellation alone may be lost in the client library while it connects
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            with suppress(QueueUnavailable):
                await self._broker.leave(self._heartbeat.worker_id)
            for task in self._jobs:
                task.cancel()
            await asyncio.gather(*self._jobs, return_exceptions=True)
            await self._broker.close()

    async def _take_jobs(self) -> None:
        """Take jobs until `stop`, and try again with growing pauses while the queue is away."""
        pause_s = _PAUSE_S
        while not self._stopping.is_set():
            try:
                await self._clock.synchronise(self._broker.now_ms)
                free = self._limits.capacity - len(self._jobs)
                if free > 0:
                    for delivery in await self._next_deliveries(free):
                        self._start(delivery)
                else:
                    self._freed.clear()
                    await self._freed.wait()
                self._fault, pause_s = None, _PAUSE_S
            except QueueUnavailable as error:
                if self._fault != str(error):
                    _log.warning("worker.queue_lost", reason=str(error))
                self._fault = str(error)
                self._clock.reset()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._stopping.wait()
                pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def _next_deliveries(self, free: int) -> list[Delivery]:
        """About `free` online jobs at once; batch jobs only while no online job waits."""
        online, batch = self._streams["online"], self._streams["batch"]
        count = max(1, free // max(1, len(online)))  # of each stream
        worker_id = self._heartbeat.worker_id
        taken = await self._broker.take(online, worker_id, count=count, block_ms=None)
        return taken or await self._broker.take([*online, *batch], worker_id, count=count, block_ms=_BLOCK_MS)

    def _start(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._process(delivery))
        self._jobs.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._jobs.discard(task)
            self._freed.set()
            if not task.cancelled() and task.exception() is not None:
                _log.error("worker.job_failed", exc_info=task.exception())

        task.add_done_callback(ended)

    async def _process(self, delivery: Delivery) -> None:
        """Answer one job. An entry that is no job at all is quarantined, since nobody can be answered."""
        try:
            envelope = messages.decode_envelope(delivery.fields)
        except messages.DecodeError as error:
            await self._quarantine(delivery, str(error))
            with suppress(QueueUnavailable):
                size = len(delivery.fields.get(b"image", b""))
                await self._broker.discard(delivery.stream, delivery.entry, image_bytes=size)
            return
        outcome = await self._classify(delivery, envelope)
        reply = messages.encode_reply(Reply(job_id=envelope.job_id, outcome=outcome))
        while True:
            try:
                answered = await self._broker.finish(
                    delivery.stream,
                    delivery.entry,
                    image_bytes=len(envelope.image),
                    reply_to=envelope.reply_to,
                    reply=reply,
                )
            except QueueUnavailable:
                if self._clock.seconds_until(envelope.deadline_ms) <= 0:
                    return
                await asyncio.sleep(_PAUSE_S)
            else:
                if answered:
                    self._metrics.jobs_answered.inc()
                return

    async def _classify(self, delivery: Delivery, envelope: Envelope) -> ClassifyResult | ShoplensError:
        """The result, or the error that the client gets in its place. All that is logged has the id of the request."""
        if envelope.version != messages.VERSION:
            return messages.wrong_version(envelope.version)
        left_s = self._clock.seconds_until(envelope.deadline_ms)
        if left_s <= 0:
            self._metrics.jobs_expired.inc()
            return NotStarted("The deadline of this request passed while it waited for a worker.")
        try:
            job = messages.decode_job(envelope.job)
            if job.request_id is not None:
                structlog.contextvars.bind_contextvars(request_id=job.request_id)  # of this job's own task
            if delivery.attempt > _MAX_ATTEMPTS:
                await self._quarantine(delivery, "workers died on it")
                return ImageDecoderFailed(f"{delivery.attempt - 1} workers died while they processed this photo.")
            about: Attributes = {**_MESSAGING, "shoplens.model": job.model, "shoplens.attempt": delivery.attempt}
            waited_s = -self._clock.seconds_until(delivery.added_ms)
            with resume("process job", job.traceparent, waited_s=waited_s, attributes=about) as block:
                outcome = await self._answered(job, envelope, left_s=left_s, attempt=delivery.attempt)
                if isinstance(outcome, ShoplensError):
                    block.note({}, error=outcome.code)
                return outcome
        except messages.DecodeError as error:
            await self._quarantine(delivery, str(error))
            return ShoplensError("The worker could not read this job.")

    async def _answered(
        self, job: Job, envelope: Envelope, *, left_s: float, attempt: int
    ) -> ClassifyResult | ShoplensError:
        """Raises DecodeError for photos that do not fit the job."""
        try:
            result = await self._engine.classify(job.request(envelope.image, timeout_s=left_s))
        except ShoplensError as error:
            _log.info("worker.photo_failed", model=job.model, code=error.code)
            return error
        ms = round((result.pixels_s + result.inference_s) * 1e3, 2)
        _log.info("worker.photo_classified", model=job.model, attempt=attempt, ms=ms)
        return result

    async def _quarantine(self, delivery: Delivery, reason: str) -> None:
        _log.warning("worker.quarantined", stream=delivery.stream, entry=delivery.entry.decode(), reason=reason)
        self._metrics.jobs_quarantined.inc()
        with suppress(QueueUnavailable):
            await self._broker.quarantine(delivery, reason)

    async def _send_heartbeats(self) -> None:
        while not self._leaving:
            with suppress(Unavailable):
                await self._engine.check()
                await self._broker.beat(replace(self._heartbeat, models=dict(self._models())))
            await asyncio.sleep(HEARTBEAT_S)

    async def _claim_jobs(self) -> None:
        """Take over the jobs of workers that have died, until `stop`."""
        while not self._stopping.is_set():
            await asyncio.sleep(HEARTBEAT_S)
            try:
                await self._claim_once()
            except QueueUnavailable:
                continue  # `_take_jobs` reports it
            except Exception:  # noqa: BLE001 - whatever it was, the next attempt must come
                _log.exception("worker.claim_failed")

    async def _claim_once(self) -> None:
        alive = {worker.worker_id for worker in await self._broker.workers()}
        mine = self._heartbeat.worker_id
        if mine not in alive:
            return  # Redis has just come back, or this process was frozen: wait for the heartbeats of the others
        for stream in (stream for streams in self._streams.values() for stream in streams):
            for owner, pending in (await self._broker.owners(stream)).items():
                if owner in alive:
                    continue
                if not pending:
                    await self._broker.forget_worker(stream, owner)
                    continue
                claimed = await self._broker.claim(stream, owner, mine, count=_CLAIMED_AT_ONCE, idle_ms=_IDLE_MS)
                self._metrics.jobs_claimed.inc(len(claimed))
                if claimed:
                    _log.warning("worker.claimed", stream=stream, owner=owner, jobs=len(claimed))
                for delivery in claimed:
                    self._start(delivery)


class _RedisClock:
    """Redis' time from this machine's monotonic clock, so that no wall clock has to be right and no job asks for it."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None
        self._asked_at = 0.0

    async def synchronise(self, now_ms: Callable[[], Awaitable[int]]) -> None:
        """Compare both clocks every few seconds. Raises QueueUnavailable."""
        now = time.monotonic()
        if self._ahead_ms is not None and now - self._asked_at < _CLOCK_S:
            return
        theirs = await now_ms()
        self._ahead_ms = theirs - 1000 * (now + time.monotonic()) / 2
        self._asked_at = now

    def reset(self) -> None:
        """Compare again soon: another server may have another clock."""
        self._ahead_ms = None

    def seconds_until(self, deadline_ms: int) -> float:
        """Seconds left, below 0 when it has passed; 1.0 while the clocks could not be compared."""
        if self._ahead_ms is None:
            return 1.0
        return (deadline_ms - self._ahead_ms) / 1000 - time.monotonic()
