"""Classify one sample for a channel: run the model, save the photo, apply the policy, commit the record, answer."""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Protocol

from shoplens.bundles.manifest import NAME_PATTERN
from shoplens.db import GroupWriter
from shoplens.db.tables import make_id
from shoplens.errors import ModelNotFound
from shoplens.predictions.entities import (
    NO_PHOTO,
    Channel,
    Keep,
    PredictionRecord,
    Timing,
    channel_of,
    clean_file_name,
)
from shoplens.predictions.image_store import ImageStore
from shoplens.predictions.policy import Policy, decide
from shoplens.serving.engine import ClassifyRequest, Engine
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.threads import run_in

STORED_LABELS = 10
_SAVE_THREADS = 8

Clock = Callable[[], datetime]
Answered = Callable[[ClassifyRequest, PredictionRecord], None]
"""Called with each request that was answered, on the event loop; must return at once."""


class Policies(Protocol):
    """The thresholds of each channel as they are now: people may edit them while the server runs."""

    def known(self, channel: str) -> Policy | None:
        """If memory has them and they are fresh. Does not block."""

    def current(self, channel: str) -> Policy:
        """Blocks. Raises DatabaseUnavailable."""


class PredictionService:
    """Classifies samples that arrive one at a time, on any channel. Close it at the end."""

    def __init__(  # noqa: PLR0913 - the parts that it joins
        self,
        *,
        engine: Engine,
        channels: Mapping[str, Channel],
        default_channel: str,
        images: ImageStore,
        writer: GroupWriter[PredictionRecord],
        clock: Clock,
        metrics: Metrics,
        policies: Policies,
        answered: Answered = lambda _request, _record: None,
    ) -> None:
        self._policies = policies
        self._answered = answered
        self._engine = engine
        self._channels = channels
        self._default = default_channel
        self._images = images
        self._writer = writer
        self._clock = clock
        self._metrics = metrics
        self._in_progress = 0
        self._threads = ThreadPoolExecutor(_SAVE_THREADS, thread_name_prefix="save-image")

    def channel(self, name: str | None) -> Channel:
        """The channel of this name, or the default one. Raises ChannelNotFound."""
        return channel_of(self._channels, name, default=self._default)

    async def classify(
        self,
        photo: bytes | None,
        *,
        text: str = "",
        file_name: str | None = None,
        channel: Channel,
        version: str | None = None,
        top_k: int = 5,
        timeout_s: float,
        client: str = "",
    ) -> PredictionRecord:
        """The record with at least the best `top_k` labels, committed when this returns. `client` is who sent it.

        `text` is for models that take one: a title and, after the first line break, a description. `file_name` is how
        the photo is called; like the text it is not stored in a channel that keeps nothing. `version` is
        `name@version` of the channel's model, unset the live one. Raises ModelNotFound for another model, and what the
        engine, the image store and the database raise.
        """
        started = time.perf_counter()
        request = ClassifyRequest(
            model=channel.model if version is None else require_version_of(channel.model, version),
            images=() if photo is None else (photo,),
            text=text,
            top_k=max(top_k, STORED_LABELS),
            timeout_s=timeout_s,
            thumbnail=channel.keep is Keep.THUMBNAIL,
            client=client,
        )
        with self._counted(channel):
            result = await self._engine.classify(request)
            image_key = None
            if channel.keep is not Keep.NOTHING and result.images:
                original = photo if channel.keep is Keep.ORIGINAL else None
                save = partial(self._images.save, result.image, original, result.thumbnail)
                image_key = await run_in(self._threads, save)
            policy = self._policies.known(channel.name)
            if policy is None:
                policy = await run_in(self._threads, partial(self._policies.current, channel.name))
            now = self._clock()
            write_started = time.perf_counter()
            record = PredictionRecord(
                id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
                created_at=now,
                channel=channel.name,
                model=result.prediction.model,
                labels=result.prediction.labels[: request.top_k],
                decision=decide(result.prediction, policy, draw=random.random()),  # noqa: S311  no secret
                image=result.images[0] if result.images else NO_PHOTO,
                text=(text or None) if channel.keep is not Keep.NOTHING else None,
                file_name=clean_file_name(file_name) if result.images and channel.keep is not Keep.NOTHING else None,
                keep=channel.keep,
                image_key=image_key,
                timing=Timing(
                    queue_ms=round(result.queue_s * 1000, 3),
                    pixels_ms=round(result.pixels_s * 1000, 3),
                    inference_ms=round(result.inference_s * 1000, 3),
                    total_ms=round((write_started - started) * 1000, 3),
                ),
            )
            about = {"shoplens.prediction": record.id, "shoplens.channel": channel.name}
            await self._writer.store(record, others=self._in_progress - 1, about=about)
        self._metrics.channel_predictions.labels(
            channel=record.channel, model=record.model.name, outcome=record.decision.outcome
        ).inc()
        stages = self._metrics.stage_seconds
        stages.labels(stage="queue").observe(result.queue_s)
        stages.labels(stage="pixels").observe(result.pixels_s)
        stages.labels(stage="inference").observe(result.inference_s)
        stages.labels(stage="write").observe(time.perf_counter() - write_started)
        if version is None:
            self._answered(request, record)
        return record

    @contextmanager
    def _counted(self, channel: Channel) -> Iterator[None]:
        """Count the request that the block answers, and know meanwhile that it is in progress."""
        self._in_progress += 1
        try:
            with self._metrics.request_of(channel.name, channel.model.partition("@")[0]):
                yield
        finally:
            self._in_progress -= 1

    def close(self) -> None:
        """Release the threads."""
        self._threads.shutdown()


def require_version_of(model: str, wanted: str) -> str:
    """`wanted` if it is `name@version` of this model of a channel. Raises ModelNotFound."""
    name, _, version = wanted.partition("@")
    # A version with a slash would mean a folder of this machine.
    if name != model.partition("@")[0] or not re.fullmatch(NAME_PATTERN, version):
        raise ModelNotFound(
            f"{wanted[:160]!r} is no version of the channel's model. Write {model.partition('@')[0]}@VERSION."
        )
    return wanted
