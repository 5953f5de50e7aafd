"""The engine of a web process whose models are in workers: puts photos into the queue and waits for the replies.

It keeps every photo until it is answered. The jobs of a worker that dies are claimed by another worker; when Redis
itself loses its data, the jobs that were not answered are added again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

import structlog

from shoplens.bundles.bundle import Bundle
from shoplens.bundles.manifest import SampleKind
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
from shoplens.messages import marked
from shoplens.serving.batcher import complete
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, ServedModel, require_input
from shoplens.serving.redis import messages
from shoplens.serving.redis.broker import PRIORITIES, Broker, QueueLimits
from shoplens.serving.redis.messages import Heartbeat
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.tracing import span, traceparent

_REPLIES_AT_ONCE: Final = 64
_BLOCK_S: Final = 1.0
_REFRESH_S: Final = 1.0
_PAUSE_S: Final = 0.2
_MESSAGING: Final = {"messaging.system": "redis", "messaging.operation.type": "send"}
_log: Final = get_logger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _PendingJob:
    """A request and where it lies in the queue; `job` and `entry` are empty until it is there."""

    request: ClassifyRequest
    stream: str
    deadline: float
    answer: asyncio.Future[ClassifyResult]
    job: bytes = b""
    entry: bytes = b""


class RedisEngine:
    """For one event loop: that of its first call.

    `bundles` are the installed ones by the name of the model; `workers` are those that were alive a moment ago.
    Requests are accepted until `restart_s` after the last worker was seen, since it may be restarting.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        bundles: Mapping[str, Bundle],
        limits: QueueLimits,
        metrics: Metrics,
        workers: tuple[Heartbeat, ...] = (),
        restart_s: float,
    ) -> None:
        self._broker = broker
        self._bundles = dict(bundles)
        self._limits = limits
        self._metrics = metrics
        self._workers = workers
        self._restart_s = restart_s
        self._seen_at = dict.fromkeys(self._bundles, time.monotonic())
        self._client_id = os.urandom(8).hex()
        self._pending: dict[str, _PendingJob] = {}
        self._loops: list[asyncio.Task[None]] = []
        self._discards: set[asyncio.Task[None]] = set()
        self._closing = False
        self._outage: ShoplensError | None = None

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """See Engine."""
        for model in request.models:
            require_input(self.bundle(model).manifest, photos=len(request.images), text=request.text)
        self._start()
        started = time.monotonic()
        request_id = structlog.contextvars.get_contextvars().get("request_id")
        pending = _PendingJob(
            request=request,
            stream=self._broker.stream(self._require_model(request.model), request.priority),
            deadline=started + request.timeout_s,
            answer=asyncio.get_running_loop().create_future(),
        )
        job_id = os.urandom(12).hex()
        self._pending[job_id] = pending
        try:
            async with asyncio.timeout(request.timeout_s):
                with span("send job", {**_MESSAGING, "shoplens.model": request.model}, kind="producer"):
                    pending.job = messages.encode_job(request, request_id=request_id, traceparent=traceparent())
                    await self._add(job_id, pending)
                result = await pending.answer
        except TimeoutError as error:
            raise DeadlineExceeded(f"There was no answer within {request.timeout_s:g} s.") from error
        finally:
            del self._pending[job_id]
            if pending.entry and (pending.answer.cancelled() or not pending.answer.done()):
                self._discard(pending)
        elapsed_s = time.monotonic() - started
        return replace(result, queue_s=max(0.0, elapsed_s - result.pixels_s - result.inference_s))

    def served(self) -> tuple[ServedModel, ...]:
        """See Engine. One entry for each version of a model, which says how many workers have it."""
        found: dict[tuple[str, str], list[ServedModel]] = {}
        for worker in self._workers:
            for each in (worker.models[name] for name in self._bundles if name in worker.models):
                found.setdefault((each.ref.name, each.ref.version), []).append(each)
        models = []
        for _, same in sorted(found.items()):
            base, workers = same[0].batching, len(same)
            batching = marked(f"{base} in 1 worker") if workers == 1 else marked(f"{base} in each of {workers} workers")
            models.append(replace(same[0], batching=batching))
        return tuple(models)

    def labels(self, model: str) -> tuple[str, ...]:
        """See Engine."""
        return tuple(label.name for label in self.bundle(model).labels)

    def kinds(self, model: str) -> tuple[SampleKind, ...]:
        """See Engine."""
        return self.bundle(model).manifest.kinds

    def bundle(self, model: str) -> Bundle:
        """The bundle that this process has under this name: the workers', or what they are about to change to."""
        return self._bundles[self._require_model(model)]

    def replace(self, name: str, bundle: Bundle) -> None:
        """Note that the workers answer with `bundle` under this name, or are about to."""
        self._bundles[self._require_model(name)] = bundle

    async def check(self) -> None:
        """See Engine."""
        self._start()
        self._note(await self._broker.workers())
        for model in self._bundles:
            self._require_worker(model, missing_s=0.0)

    async def close(self) -> None:
        """See Engine. What is not answered yet fails with EngineStopped."""
        self._closing = True
        for task in (*self._loops, *self._discards):
            task.cancel()
        await asyncio.gather(*self._loops, *self._discards, return_exceptions=True)
        for pending in self._pending.values():
            complete(pending.answer, EngineStopped("The engine is stopping."))
        await self._broker.close()

    def _start(self) -> None:
        """Start the two loops with the first call, since tasks belong to an event loop. Raises EngineStopped."""
        if self._closing:
            raise EngineStopped("The engine is stopping.")
        if not self._loops:
            self._loops = [asyncio.create_task(self._collect_replies()), asyncio.create_task(self._watch_workers())]

    async def _add(self, job_id: str, pending: _PendingJob) -> None:
        """Raises QueueFull, NoWorker, WireMismatch, and QueueUnavailable at once while Redis is known to be away."""
        if self._outage is not None:
            raise self._outage
        self._require_worker(self._require_model(pending.request.model), missing_s=self._restart_s)
        pending.entry = await self._broker.add(
            pending.stream,
            job_id,
            reply_to=self._broker.replies(self._client_id),
            job=pending.job,
            image=b"".join(pending.request.images),
            timeout_s=pending.deadline - time.monotonic(),
            limits=self._limits,
        )

    def _discard(self, pending: _PendingJob) -> None:
        """Take back a job that nobody waits for, so that no worker starts it."""
        if self._closing:
            return

        async def discard() -> None:
            with suppress(QueueUnavailable):
                await self._broker.discard(pending.stream, pending.entry, image_bytes=pending.request.byte_count)

        task = asyncio.create_task(discard())
        self._discards.add(task)
        task.add_done_callback(self._discards.discard)

    async def _collect_replies(self) -> None:
        """Give each reply to the request that waits for it, as long as the engine lives."""
        reply_to = self._broker.replies(self._client_id)
        while not self._closing:  # a cancellation alone may be lost in the client library while it connects
            try:
                replies = await self._broker.collect(reply_to, count=_REPLIES_AT_ONCE, block_s=_BLOCK_S)
                if self._outage is not None:
                    await self._recover()
            except QueueUnavailable as error:
                self._note_outage(error)
                await asyncio.sleep(_PAUSE_S)
                continue
            for encoded in replies:
                try:
                    reply = messages.decode_reply(encoded)
                except messages.DecodeError as error:
                    _log.warning("queue.reply_unreadable", reason=str(error))
                    self._metrics.jobs_quarantined.inc()
                    continue
                if (pending := self._pending.get(reply.job_id)) is not None:
                    complete(pending.answer, reply.outcome)

    async def _recover(self) -> None:
        """Redis answers again: add the jobs again that it does not hold any more."""
        self._outage = None
        added = 0
        for job_id, pending in list(self._pending.items()):
            if pending.answer.done() or not pending.entry or await self._broker.holds(pending.stream, pending.entry):
                continue
            added += 1
            try:
                await self._add(job_id, pending)
            except (QueueFull, NoWorker, WireMismatch) as error:
                complete(pending.answer, error)
        _log.info("queue.recovered", waiting=len(self._pending), added_again=added)

    def _note_outage(self, error: ShoplensError) -> None:
        if self._outage is None:
            _log.warning("queue.lost", reason=str(error), waiting=len(self._pending))
        self._outage = error

    async def _watch_workers(self) -> None:
        """Know which workers are alive and how many photos wait, as long as the engine lives."""
        while not self._closing:
            try:
                self._note(await self._broker.workers())
                for priority in PRIORITIES:
                    lengths = await self._broker.lengths(
                        [self._broker.stream(each, priority) for each in self._bundles]
                    )
                    self._metrics.queue_jobs.labels(priority=priority).set(sum(lengths))
            except QueueUnavailable as error:
                self._note_outage(error)
            await asyncio.sleep(_REFRESH_S)

    def _note(self, workers: tuple[Heartbeat, ...]) -> None:
        self._workers = workers
        self._metrics.workers.set(len(workers))
        self._seen_at |= dict.fromkeys((name for worker in workers for name in worker.models), time.monotonic())
        for each in self.served():
            self._metrics.model_info.labels(model=each.ref.name, version=each.ref.version).set(1)

    def _require_model(self, model: str) -> str:
        """The name under which workers take jobs for `model`, which may be one version of it. Raises ModelNotFound."""
        name = model if model in self._bundles else model.partition("@")[0]
        if name not in self._bundles:
            raise ModelNotFound(f"No channel uses the model {model!r}; there are: {', '.join(sorted(self._bundles))}.")
        return name

    def _require_worker(self, model: str, *, missing_s: float) -> None:
        """Raises NoWorker when no worker for this model was seen for `missing_s`, and WireMismatch."""
        able = [worker for worker in self._workers if model in worker.models]
        if any(worker.is_understood for worker in able):
            return
        if able:
            raise WireMismatch(
                f"All workers for {model} use version {able[0].version} of the messages, this process uses version "
                f"{messages.VERSION}. Install the same release on both."
            )
        if time.monotonic() - self._seen_at[model] >= missing_s:
            raise NoWorker(f"No worker answers for the model {model}. Start one: `shoplens worker`.")
