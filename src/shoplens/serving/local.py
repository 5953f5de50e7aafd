"""The engine in this process: worker threads that decode, fingerprint, encode and classify."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from shoplens.errors import DeadlineExceeded, EngineStopped, ModelNotFound, ShoplensError
from shoplens.images.decoder import decode
from shoplens.images.hashing import facts_of
from shoplens.images.picture import Limits, Picture
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.images.thumbnails import encode_thumbnail, reduce_once, thumbnail
from shoplens.serving.batcher import Batcher, Batching, PendingRequest
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, ServedModel
from shoplens.serving.slot import Slot
from shoplens.telemetry.metrics import Metrics

_WARM_SIDE: Final = 64
_WARM_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelWork:
    """How bytes become a picture: the limits, and the process that decodes what is not trusted in this one."""

    limits: Limits
    sandbox: SandboxedDecoder


class LocalEngine:
    """One queue for all models. Each worker takes one photo through all stages, so pixels never cross threads."""

    def __init__(self, slots: Mapping[str, Slot], *, pixels: PixelWork, batching: Batching, metrics: Metrics) -> None:
        self._slots = dict(slots)
        self._pixels = pixels
        self._metrics = metrics
        self._workers: Batcher[ClassifyRequest, ClassifyResult] = Batcher(self._run, batching, name="engine")
        metrics.watch_queue(lambda: len(self._workers))
        for served in self.served():
            metrics.model_info.labels(model=served.ref.name, version=served.ref.version).set(1)

    async def classify(self, job: ClassifyRequest) -> ClassifyResult:
        """See Engine."""
        self._slot(job.model)
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[ClassifyResult] = loop.create_future()
        ticket = self._workers.submit(job, deadline=time.monotonic() + job.timeout_s, done=_resolver(loop, arrived))
        try:
            async with asyncio.timeout(job.timeout_s):
                return await arrived
        except TimeoutError as error:
            raise DeadlineExceeded(f"There was no answer within {job.timeout_s:g} s.") from error
        finally:
            ticket.abandoned = True  # means nothing any more once the answer is here

    def served(self) -> tuple[ServedModel, ...]:
        """See Engine."""
        return tuple(self.served_by_name().values())

    def served_by_name(self) -> dict[str, ServedModel]:
        """The models that answer now, by the name under which jobs ask for them."""
        return {
            name: ServedModel(
                ref=slot.live.classifier.bundle.ref,
                provider=slot.live.classifier.session.provider,
                batching=str(slot.live.batching or self._workers.batching),
            )
            for name, slot in self._slots.items()
        }

    def labels(self, model: str) -> tuple[str, ...]:
        """What this model can answer, in the order of its output. Raises ModelNotFound."""
        return tuple(label.name for label in self._slot(model).live.classifier.bundle.labels)

    def warm(self) -> None:
        """Take a photo through every stage of every model, so that the first real one is as quick as the next."""
        grey = np.full((_WARM_SIDE, _WARM_SIDE, 3), 127, np.uint8)
        photo = thumbnail(Picture(pixels=grey, format="png", width=_WARM_SIDE, height=_WARM_SIDE), _WARM_SIDE)
        for model in self._slots:
            self._answer(
                _ticket(ClassifyRequest(model=model, image=photo, top_k=1, timeout_s=_WARM_TIMEOUT_S, thumbnail=True))
            )

    async def check(self) -> None:
        """See Engine."""
        if self._workers.stopped:
            raise EngineStopped("The engine is stopping.")

    async def close(self, *, drain_s: float = 5.0) -> None:
        """See Engine."""
        await asyncio.to_thread(self._workers.close, drain_s=drain_s)
        for slot in self._slots.values():
            await asyncio.to_thread(slot.live.close)
        self._pixels.sandbox.close()

    def _slot(self, model: str) -> Slot:
        if model not in self._slots:
            raise ModelNotFound(f"No model {model!r} is loaded; there are: {', '.join(sorted(self._slots))}.")
        return self._slots[model]

    def _run(
        self, tickets: Sequence[PendingRequest[ClassifyRequest, ClassifyResult]]
    ) -> Sequence[ClassifyResult | ShoplensError]:
        return [self._outcome(ticket) for ticket in tickets]

    def _outcome(self, ticket: PendingRequest[ClassifyRequest, ClassifyResult]) -> ClassifyResult | ShoplensError:
        try:
            return self._answer(ticket)
        except ShoplensError as error:
            return error

    def _answer(self, ticket: PendingRequest[ClassifyRequest, ClassifyResult]) -> ClassifyResult:
        job = ticket.item
        started = time.perf_counter()
        with self._slots[job.model].lease() as live:
            picture = self._decode(job.image, live.classifier.short_side)
            small = reduce_once(picture)
            facts = facts_of(job.image, picture, small=small, sha256=job.sha256)
            shown = encode_thumbnail(small) if job.thumbnail else None
            tensor = live.classifier.encode(picture)
            encoded = time.perf_counter()
            prediction = live.classify(tensor, top_k=job.top_k, deadline=ticket.deadline)
        classified = time.perf_counter()
        return ClassifyResult(
            prediction=prediction,
            image=facts,
            thumbnail=shown,
            queue_s=ticket.waited_s,
            pixels_s=encoded - started,
            inference_s=classified - encoded,
        )

    def _decode(self, data: bytes, short_side: int) -> Picture:
        return decode(data, limits=self._pixels.limits, short_side=short_side, sandbox=self._pixels.sandbox)


def _ticket(job: ClassifyRequest) -> PendingRequest[ClassifyRequest, ClassifyResult]:
    """A ticket for a job that nobody else waits for."""
    now = time.monotonic()
    return PendingRequest(item=job, deadline=now + job.timeout_s, done=lambda _: None, enqueued_at=now, started_at=now)


def _resolver(
    loop: asyncio.AbstractEventLoop, future: asyncio.Future[ClassifyResult]
) -> Callable[[ClassifyResult | ShoplensError], None]:
    """A callback for worker threads that resolves `future` on its loop."""

    def resolve(outcome: ClassifyResult | ShoplensError) -> None:
        if future.done():
            return
        if isinstance(outcome, ShoplensError):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def done(outcome: ClassifyResult | ShoplensError) -> None:
        loop.call_soon_threadsafe(resolve, outcome)

    return done
