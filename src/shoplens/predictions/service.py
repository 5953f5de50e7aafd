"""Classify one photo for a channel: engine, policy, photo kept, row committed; only then is it answered."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from shoplens.db import GroupWriter
from shoplens.db.ids import make_id
from shoplens.errors import ChannelNotFound, ShoplensError
from shoplens.predictions.entities import Channel, Keep, PredictionRecord, Timing
from shoplens.predictions.photos import PhotoShelf
from shoplens.predictions.policy import decide
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine
from shoplens.telemetry.metrics import Metrics

STORED_LABELS = 10
_STORE_THREADS = 8

Clock = Callable[[], datetime]


class ClassifyPhoto:
    """The use case of the channel `look`, and of every channel whose photos come one by one."""

    def __init__(
        self,
        *,
        engine: Engine,
        channels: Mapping[str, Channel],
        default_channel: str,
        shelf: PhotoShelf,
        writer: GroupWriter[PredictionRecord],
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._engine = engine
        self._channels = channels
        self._default = default_channel
        self._shelf = shelf
        self._writer = writer
        self._clock = clock
        self._metrics = metrics
        self._store_threads = ThreadPoolExecutor(_STORE_THREADS, thread_name_prefix="store")

    async def __call__(
        self, photo: bytes, *, channel: str | None = None, top_k: int = 5, timeout_s: float
    ) -> PredictionRecord:
        """The committed record, with the best `top_k` labels at least.

        Raises ChannelNotFound, and whatever the engine, the store and the database raise.
        """
        chosen = self.channel(channel)
        started = time.perf_counter()
        job = ClassifyRequest(
            model=chosen.model,
            image=photo,
            top_k=max(top_k, STORED_LABELS),
            timeout_s=timeout_s,
            thumbnail=chosen.keep is Keep.THUMBNAIL,
        )
        answer = await self._engine.classify(job)
        image_key = await self._keep(chosen.keep, photo, answer)
        record = self._record(chosen, answer, image_key=image_key, top_k=job.top_k, started=started)
        handed_over = time.perf_counter()
        await self._commit(record)
        self._count(record, answer, write_s=time.perf_counter() - handed_over)
        return record

    def channel(self, name: str | None) -> Channel:
        """The channel of this name, or the default one. Raises ChannelNotFound."""
        try:
            return self._channels[self._default if name is None else name]
        except KeyError:
            known = ", ".join(sorted(self._channels))
            raise ChannelNotFound(f"There is no channel {name!r}; the channels are: {known}.") from None

    def close(self) -> None:
        """Release the threads."""
        self._store_threads.shutdown()

    async def _keep(self, keep: Keep, photo: bytes, answer: ClassifyResult) -> str | None:
        if keep is Keep.NOTHING:
            return None
        original = photo if keep is Keep.ORIGINAL else None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._store_threads, self._shelf.keep, answer.image, original, answer.thumbnail
        )

    async def _commit(self, record: PredictionRecord) -> None:
        loop = asyncio.get_running_loop()
        committed: asyncio.Future[None] = loop.create_future()
        self._writer.enqueue(record, lambda error: _resolve_soon(loop, committed, error))
        await committed

    def _record(
        self, channel: Channel, answer: ClassifyResult, *, image_key: str | None, top_k: int, started: float
    ) -> PredictionRecord:
        now = self._clock()
        return PredictionRecord(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
            created_at=now,
            channel=channel.name,
            model=answer.prediction.model,
            labels=answer.prediction.labels[:top_k],
            decision=decide(answer.prediction, channel.policy),
            image=answer.image,
            keep=channel.keep,
            image_key=image_key,
            timing=Timing(
                queue_ms=_ms(answer.queue_s),
                pixels_ms=_ms(answer.pixels_s),
                inference_ms=_ms(answer.inference_s),
                total_ms=_ms(time.perf_counter() - started),
            ),
        )

    def _count(self, record: PredictionRecord, answer: ClassifyResult, *, write_s: float) -> None:
        self._metrics.channel_predictions.labels(
            channel=record.channel, model=record.model.name, outcome=record.decision.outcome
        ).inc()
        stages = self._metrics.stage_seconds
        stages.labels(stage="queue").observe(answer.queue_s)
        stages.labels(stage="pixels").observe(answer.pixels_s)
        stages.labels(stage="inference").observe(answer.inference_s)
        stages.labels(stage="write").observe(write_s)


def _resolve_soon(loop: asyncio.AbstractEventLoop, future: asyncio.Future[None], error: ShoplensError | None) -> None:
    """Resolve `future` on its own loop; the caller may have gone meanwhile."""

    def resolve() -> None:
        if future.done():
            return
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    loop.call_soon_threadsafe(resolve)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
