"""Look at a new photo: everything that is known of it as signals, and what the policy makes of them.

A photo that cannot be decoded is an error. If the engine is late or fails, the photo has no scores, and is held.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Final, TypeVar

from shoplens.db import Database
from shoplens.errors import QueueFull, SampleError, ShoplensError
from shoplens.images.decoder import decode
from shoplens.images.measuring import measure
from shoplens.images.picture import ImageFacts, Limits, Measurements
from shoplens.images.sandbox import SandboxedDecoder
from shoplens.images.thumbnails import halved, perceptual_hash
from shoplens.moderation.channel import ModerationChannel
from shoplens.moderation.entities import PhotoState, Signal
from shoplens.moderation.intake.memory import HashMemory
from shoplens.moderation.intake.signals import (
    duplicate_signal,
    memory_signals,
    model_signals,
    quality_signals,
    strike_signal,
)
from shoplens.moderation.policy.entities import ModerationPolicy, PolicyDecision, evaluate
from shoplens.moderation.repository import PhotoRepository
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine, Prediction, Priority
from shoplens.telemetry.threads import run_in

T = TypeVar("T")

_ALL_LABELS: Final = 100_000
"""Scores are added up over all labels, also those with a low rank."""
_SHORT_SIDE: Final = 256
_THREADS: Final = 4
_LOOKING_AT_ONCE: Final = 2
_EARLIER_PHOTOS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPhoto:
    """A photo that arrived. `client` is who sent it: clients take turns in the engine."""

    data: bytes
    customer: str | None
    client: str = ""
    priority: Priority = "online"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What is known of a photo, and the state that follows. `prediction` is that of the channel's model, if any."""

    image: ImageFacts
    prediction: Prediction | None
    fingerprint: bytes
    signals: tuple[Signal, ...]
    decision: PolicyDecision
    policy_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What was seen in the picture itself; without scores where the engine gave none, which `fault` explains."""

    image: ImageFacts
    measured: Measurements
    scores: ClassifyResult | None
    fault: ShoplensError | None = None


class PhotoAssessor:
    """Assesses photos with the engine, and with what the database knows of earlier ones. Close it at the end.

    `timeout_s` is how long the engine may take; then the photo has no scores. `policy_of` gives the policy of a
    channel that applies now, and may block.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        database: Database,
        memory: HashMemory,
        clock: Callable[[], datetime],
        policy_of: Callable[[str], ModerationPolicy],
        limits: Limits,
        sandbox: SandboxedDecoder,
        timeout_s: float,
    ) -> None:
        self._engine = engine
        self._database = database
        self._memory = memory
        self._clock = clock
        self._policy_of = policy_of
        self._limits = limits
        self._sandbox = sandbox
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="assess")
        self._looking = ThreadPoolExecutor(_LOOKING_AT_ONCE, thread_name_prefix="look")

    async def assess(self, photo: NewPhoto, *, channel: ModerationChannel) -> Assessment:
        """Everything about one photo, and the state that the policy gives it.

        Raises SampleError for a photo that cannot be used, and DatabaseUnavailable.
        """
        sha256 = await self._in_thread(lambda: hashlib.sha256(photo.data).hexdigest())
        found = await self._classify(photo, channel, sha256)
        if isinstance(found, ClassifyResult) and found.measurements is not None:
            seen = _Seen(image=found.image, measured=found.measurements, scores=found)
        else:
            fault = found if isinstance(found, ShoplensError) else None
            look = partial(self._look, photo.data, sha256, fault)
            seen = await run_in(self._looking, look)
        return await self._in_thread(partial(self._decide, photo, channel, seen))

    def close(self) -> None:
        """Release the threads."""
        self._threads.shutdown()
        self._looking.shutdown()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await run_in(self._threads, work)

    async def _classify(
        self, photo: NewPhoto, channel: ModerationChannel, sha256: str
    ) -> ClassifyResult | ShoplensError:
        """The result of the engine, or why there is none in time. Raises SampleError."""
        give_up_at = time.monotonic() + self._timeout_s
        request = ClassifyRequest(
            model=channel.model,
            images=(photo.data,),
            top_k=_ALL_LABELS,
            timeout_s=self._timeout_s,
            sha256=sha256,
            priority=photo.priority,
            client=photo.client,
            also=() if channel.general_model is None else (channel.general_model,),
            measure=True,
        )
        while True:
            left_s = give_up_at - time.monotonic()
            try:
                return await self._engine.classify(replace(request, timeout_s=max(0.001, left_s)))
            except SampleError:
                raise
            except QueueFull as full:
                if full.retry_after_s >= left_s:
                    return full
                await asyncio.sleep(full.retry_after_s)
            except ShoplensError as error:
                return error

    def _look(self, data: bytes, sha256: str, fault: ShoplensError | None) -> _Seen:
        """What can be said of a photo without a model. Raises SampleError, and QueueFull."""
        picture = decode(data, limits=self._limits, short_side=_SHORT_SIDE, sandbox=self._sandbox)
        image = ImageFacts(
            format=picture.format,
            width=picture.width,
            height=picture.height,
            byte_count=len(data),
            sha256=sha256,
            phash=perceptual_hash(halved(picture.pixels)),
        )
        return _Seen(image=image, measured=measure(picture.pixels), scores=None, fault=fault)

    def _decide(self, photo: NewPhoto, channel: ModerationChannel, seen: _Seen) -> Assessment:
        policy = self._policy_of(channel.name)
        signals: list[Signal] = []
        if seen.scores is not None:
            named = {band.signal for band in policy.bands}
            signals += model_signals(seen.scores, groups=channel.groups, named=named)
        signals += quality_signals(seen.image, seen.measured)
        signals += self._known(photo.customer, channel.name, policy, seen.measured.fingerprint)
        decision = evaluate(signals, policy)
        if seen.scores is None and decision.state is not PhotoState.REFUSED:
            code = "" if seen.fault is None else f" ({seen.fault.code})"
            rule = f"There are no scores{code}; no photo is shown without them."
            decision = PolicyDecision(state=PhotoState.HELD, rule=rule)
        return Assessment(
            image=seen.image,
            prediction=None if seen.scores is None else seen.scores.prediction,
            fingerprint=seen.measured.fingerprint,
            signals=tuple(signals),
            decision=decision,
            policy_version=policy.version,
        )

    def _known(self, customer: str | None, channel: str, policy: ModerationPolicy, print_: bytes) -> list[Signal]:
        """What is known of photos like this one, and of the customer."""
        within = max(policy.refuse_distance or 0, policy.accept_distance or 0)
        signals = memory_signals(self._memory.nearest(channel, print_, within=within))
        if customer is None:
            return [*signals, duplicate_signal(print_, ())]
        since = self._clock() - timedelta(days=policy.strike_days)
        with self._database.reading() as tx:
            photos = PhotoRepository(tx)
            refused = photos.count_of_customer(customer, PhotoState.REFUSED, since=since)
            earlier = photos.prints_of_customer(customer, limit=_EARLIER_PHOTOS)
        return [*signals, strike_signal(refused, policy.strike_days), duplicate_signal(print_, earlier)]
