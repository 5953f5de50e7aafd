"""The engine whose models are elsewhere: puts photos into the queue and waits for the workers' answers.

It keeps every photo until it is answered. A worker that dies loses nothing, since its jobs are claimed by another; when
Redis itself loses its data, what was not answered is put into the queue once more.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog

from shoplens.errors import (
    DeadlineExceeded,
    EngineStopped,
    ModelNotFound,
    NoWorker,
    QueueFull,
    QueueUnavailable,
    ShoplensError,
    WireMismatch,
)
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, ServedModel
from shoplens.serving.redis import wire
from shoplens.serving.redis.fleet import Announcement, Fleet
from shoplens.serving.redis.queue import PRIORITIES, Bounds, JobQueue
from shoplens.telemetry.metrics import Metrics

_TOGETHER: Final = 64
_BLOCK_S: Final = 1.0
_LOOK_EVERY_S: Final = 1.0
_MISSED_S: Final = 10.0
"""How long after the last worker was seen jobs are still taken: it may just be restarting."""
_PAUSE_S: Final = 0.2
_log: Final = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiting:
    """A job that was put into the queue. `entry` is where it lies there."""

    job: ClassifyRequest
    stream: str
    give_up_at: float
    arrived: asyncio.Future[ClassifyResult]
    entry: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """The queue and the fleet, both over one pool of connections."""

    queue: JobQueue
    fleet: Fleet


class RedisEngine:
    """For one event loop: that of its first call. `labels` are what each model can answer, by its installed bundle."""

    def __init__(
        self,
        connections: Callable[[], Connections],
        *,
        labels: Mapping[str, tuple[str, ...]],
        bounds: Bounds,
        metrics: Metrics,
        seen: tuple[Announcement, ...] = (),
    ) -> None:
        self._connections = connections
        self._labels = dict(labels)
        self._bounds = bounds
        self._metrics = metrics
        self._fleet = seen
        self._seen_at = dict.fromkeys(self._labels, time.monotonic())
        self._client_id = os.urandom(8).hex()
        self._waiting: dict[str, _Waiting] = {}
        self._open: Connections | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._away: ShoplensError | None = None

    async def classify(self, job: ClassifyRequest) -> ClassifyResult:
        """See Engine."""
        self._require_model(job.model)
        queue = self._opened().queue
        began = time.monotonic()
        waiting = _Waiting(
            job=job,
            stream=queue.stream(job.model, job.priority),
            give_up_at=began + job.timeout_s,
            arrived=asyncio.get_running_loop().create_future(),
        )
        job_id = os.urandom(12).hex()
        self._waiting[job_id] = waiting
        try:
            async with asyncio.timeout(job.timeout_s):
                await self._add(queue, job_id, waiting)
                answer = await waiting.arrived
        except TimeoutError as error:
            raise DeadlineExceeded(f"There was no answer within {job.timeout_s:g} s.") from error
        finally:
            del self._waiting[job_id]
            if waiting.entry and (waiting.arrived.cancelled() or not waiting.arrived.done()):
                self._forget(queue, waiting)
        elapsed_s = time.monotonic() - began
        return replace(answer, queue_s=max(0.0, elapsed_s - answer.pixels_s - answer.inference_s))

    def served(self) -> tuple[ServedModel, ...]:
        """See Engine. One entry per version of a model of ours, with how many workers have it; they may have others."""
        found: dict[tuple[str, str], list[ServedModel]] = {}
        for worker in self._fleet:
            for each in (worker.models[name] for name in self._labels if name in worker.models):
                found.setdefault((each.ref.name, each.ref.version), []).append(each)
        return tuple(_together(same) for _, same in sorted(found.items()))

    def labels(self, model: str) -> tuple[str, ...]:
        """What this model can answer, in the order of its output. Raises ModelNotFound."""
        self._require_model(model)
        return self._labels[model]

    async def check(self) -> None:
        """See Engine."""
        if self._closing:
            raise EngineStopped("The engine is stopping.")
        opened = self._opened()
        self._note(await opened.fleet.alive())
        for model in self._labels:
            self._require_worker(model, patient_s=0.0)

    async def close(self) -> None:
        """See Engine. What is not answered yet fails with EngineStopped."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for each in list(self._waiting.values()):
            _settle(each, EngineStopped("The engine is stopping."))
        if self._open is not None:
            await self._open.queue.close()

    def _opened(self) -> Connections:
        """Connections belong to an event loop, so they are opened by the first call on it."""
        if self._closing:
            raise EngineStopped("The engine is stopping.")
        if self._open is None:
            self._open = self._connections()
            self._tasks = [asyncio.create_task(self._collect()), asyncio.create_task(self._look())]
        return self._open

    async def _add(self, queue: JobQueue, job_id: str, waiting: _Waiting) -> None:
        """Raises QueueFull, NoWorker, WireMismatch, and QueueUnavailable at once while Redis is known to be away."""
        if self._away is not None:
            raise self._away
        self._require_worker(waiting.job.model, patient_s=_MISSED_S)
        waiting.entry = await queue.add(
            waiting.stream,
            job_id,
            to=queue.answers(self._client_id),
            body=wire.job_body(waiting.job),
            image=waiting.job.image,
            timeout_s=waiting.give_up_at - time.monotonic(),
            bounds=self._bounds,
        )

    def _forget(self, queue: JobQueue, waiting: _Waiting) -> None:
        """Take back what nobody waits for any more, so that no worker works on it."""
        if self._closing:
            return
        size = len(waiting.job.image)

        async def forget() -> None:
            with suppress(QueueUnavailable):
                await queue.forget(waiting.stream, waiting.entry, byte_count=size)

        task = asyncio.get_running_loop().create_task(forget())
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def _collect(self) -> None:
        """Bring answers to those who wait for them, as long as the engine lives."""
        queue = self._opened().queue
        to = queue.answers(self._client_id)
        while not self._closing:  # a cancellation alone may be lost in the client library while it connects
            try:
                frames = await queue.collect(to, count=_TOGETHER, block_s=_BLOCK_S)
                if self._away is not None:
                    await self._back(queue)
            except QueueUnavailable as error:
                self._lost(error)
                await asyncio.sleep(_PAUSE_S)
                continue
            for frame in frames:
                self._deliver(frame)

    def _deliver(self, frame: bytes) -> None:
        try:
            reply = wire.reply_of(frame)
        except wire.Garbage as garbage:
            _log.warning("queue.garbage", reason=str(garbage))
            self._metrics.jobs_set_aside.inc()
            return
        if (waiting := self._waiting.get(reply.job_id)) is not None:
            _settle(waiting, reply.outcome)

    def _lost(self, error: ShoplensError) -> None:
        if self._away is None:
            _log.warning("queue.lost", reason=str(error), waiting=len(self._waiting))
        self._away = error

    async def _back(self, queue: JobQueue) -> None:
        """Redis answers again: what it does not hold any more is put into it once more."""
        self._away = None
        again = 0
        for job_id, waiting in list(self._waiting.items()):
            if waiting.arrived.done() or not waiting.entry or await queue.holds(waiting.stream, waiting.entry):
                continue
            again += 1
            try:
                await self._add(queue, job_id, waiting)
            except (QueueFull, NoWorker, WireMismatch) as error:
                _settle(waiting, error)
        _log.info("queue.back", waiting=len(self._waiting), put_again=again)

    async def _look(self) -> None:
        """Know who works and how much waits, as long as the engine lives."""
        opened = self._opened()
        while not self._closing:
            try:
                self._note(await opened.fleet.alive())
                await self._count(opened.queue)
            except QueueUnavailable as error:
                self._lost(error)
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _count(self, queue: JobQueue) -> None:
        for priority in PRIORITIES:
            lengths = await queue.lengths([queue.stream(model, priority) for model in self._labels])
            self._metrics.queue_jobs.labels(priority=priority).set(sum(lengths))

    def _note(self, fleet: tuple[Announcement, ...]) -> None:
        self._fleet = fleet
        self._metrics.workers.set(len(fleet))
        now = time.monotonic()
        self._seen_at |= dict.fromkeys((name for worker in fleet for name in worker.models), now)
        for each in self.served():
            self._metrics.model_info.labels(model=each.ref.name, version=each.ref.version).set(1)

    def _require_model(self, model: str) -> None:
        if model not in self._labels:
            raise ModelNotFound(f"No channel uses the model {model!r}; there are: {', '.join(sorted(self._labels))}.")

    def _require_worker(self, model: str, *, patient_s: float) -> None:
        """Somebody answers for this model, or did so a moment ago. Raises NoWorker, WireMismatch."""
        able = [worker for worker in self._fleet if model in worker.models]
        if any(worker.understood for worker in able):
            return
        if able:
            raise WireMismatch(
                f"All workers for {model} speak version {able[0].wire_version} of the messages, this process speaks "
                f"version {wire.VERSION}. Bring both to the same release."
            )
        if time.monotonic() - self._seen_at[model] >= patient_s:
            raise NoWorker(f"No worker answers for the model {model} now. Start one: `shoplens worker`.")


def _settle(waiting: _Waiting, outcome: ClassifyResult | ShoplensError) -> None:
    if waiting.arrived.done():
        return
    if isinstance(outcome, ShoplensError):
        waiting.arrived.set_exception(outcome)
    else:
        waiting.arrived.set_result(outcome)


def _together(same: list[ServedModel]) -> ServedModel:
    """One line for all workers that serve this version."""
    how = same[0].batching
    workers = "1 worker" if len(same) == 1 else f"{len(same)} workers"
    return replace(same[0], batching=f"{how} in {'each of ' if len(same) > 1 else ''}{workers}")
