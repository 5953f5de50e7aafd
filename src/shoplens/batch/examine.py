"""One item from its key to its verdict: read, classify, decide; and what is shown of a photo that cannot be read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from shoplens.batch.entities import BatchItem, ItemState
from shoplens.batch.patience import Patience
from shoplens.batch.runs import Clock
from shoplens.batch.verdicts import Verdict, classified, failed, with_thumbnail
from shoplens.db.ids import make_id
from shoplens.errors import (
    BlobNotFound,
    DeadlineExceeded,
    EngineStopped,
    ImageGone,
    NoWorker,
    QueueFull,
    QueueUnavailable,
    ShoplensError,
    StorageUnavailable,
    WireMismatch,
)
from shoplens.images.picture import Limits
from shoplens.images.salvage import salvage
from shoplens.predictions.entities import Channel
from shoplens.predictions.service import STORED_LABELS
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine, fault_of
from shoplens.storage import Store, image_key

_TRIES_WHEN_FULL: Final = 5
_DRAWN_AT_ONCE: Final = 4_096
_log: Final = structlog.get_logger(__name__)


class NightMustEnd(Exception):
    """Not the item's fault and not to be waited for: `reason` ends the night."""

    def __init__(self, reason: ShoplensError) -> None:
        super().__init__(str(reason))
        self.reason = reason


Photo = bytes | ShoplensError | NightMustEnd
"""The bytes of an item's photo, or why there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRules:
    """How often an item is tried, how long one may take, and what is refused before decoding."""

    max_attempts: int
    timeout_s: float
    limits: Limits


class JudgeItem:
    """What is made of an answer or an error, whoever found it. `keep_thumbnail` blocks, the others do not."""

    def __init__(
        self,
        *,
        store: Store,
        channel: Channel,
        max_attempts: int,
        clock: Clock,
        entropy: Callable[[int], bytes] | None = None,
    ) -> None:
        self._store = store
        self._channel = channel
        self._max_attempts = max_attempts
        self._clock = clock
        self._entropy = entropy or _Entropy().draw

    def answered(self, item: BatchItem, answer: ClassifyResult) -> Verdict:
        """The policy decides."""
        now = self._clock()
        prediction_id = make_id(int(now.timestamp() * 1000), self._entropy(10))
        return classified(item, answer, self._channel, now=now, prediction_id=prediction_id)

    def failed(self, item: BatchItem, error: ShoplensError) -> Verdict:
        """To be tried again, or to quarantine; its reason is logged."""
        verdict = failed(item, error, max_attempts=self._max_attempts, now=self._clock())
        if verdict.settlement.state is ItemState.QUARANTINED:
            _log.warning(
                "night.item_quarantined", item=item.id, source=item.source_name, code=error.code, reason=str(error)
            )
        else:
            _log.info("night.item_again", item=item.id, code=error.code, attempts=verdict.settlement.attempts)
        return verdict

    def keep_thumbnail(self, verdict: Verdict, make: Callable[[], bytes | None]) -> Verdict:
        """The same with what `make` can show of its photo; nothing that goes wrong here is worth a word to anybody."""
        item = verdict.item
        try:
            small = make()
            if small is None:
                return verdict
            key = image_key(item.sha256, "thumbnail.jpg")  # where the photo shelf keeps its own, too
            self._store.put(key, small)
        except (ShoplensError, MemoryError) as error:
            _log.info("night.no_thumbnail", item=item.id, reason=str(error))
            return verdict
        return with_thumbnail(verdict, key)


def is_shown(verdict: Verdict) -> bool:
    """Whether a person will look at what can be seen of its photo. Not where looking at it once took all its time."""
    settlement = verdict.settlement
    return settlement.state is ItemState.QUARANTINED and settlement.failure_code != DeadlineExceeded.code


class ExamineItem:
    """Safe for many items at once on one event loop. Reading is done by `readers`, so that pixels never wait for it."""

    def __init__(
        self,
        *,
        store: Store,
        engine: Engine,
        channel: Channel,
        rules: ItemRules,
        readers: ThreadPoolExecutor,
        patience: Patience,
        clock: Clock,
        entropy: Callable[[int], bytes] | None = None,
    ) -> None:
        self._store = store
        self._engine = engine
        self._channel = channel
        self._rules = rules
        self._readers = readers
        self._patience = patience
        self._judge = JudgeItem(
            store=store, channel=channel, max_attempts=rules.max_attempts, clock=clock, entropy=entropy
        )

    async def read(self, items: Sequence[BatchItem]) -> list[Photo]:
        """The photo of each, or why it cannot be had."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, lambda: [self._photo(item) for item in items])

    async def __call__(self, item: BatchItem, photo: Photo) -> Verdict:
        """Never raises for what an item does; NightMustEnd for what concerns them all."""
        if isinstance(photo, NightMustEnd):
            raise photo
        if isinstance(photo, ShoplensError):
            return await self._failed(item, photo, None)
        try:
            answer = await self._classify(item, photo)
        except (EngineStopped, NoWorker, QueueUnavailable, WireMismatch) as error:
            raise NightMustEnd(error) from error
        except ShoplensError as error:
            return await self._failed(item, error, photo)
        except Exception as error:  # noqa: BLE001 - whatever one item does, the others are worked on
            _log.exception("night.item_failed", item=item.id)
            return await self._failed(item, fault_of(error), photo)
        return self._judge.answered(item, answer)

    def _photo(self, item: BatchItem) -> Photo:
        try:
            return self._read(item)
        except (ShoplensError, NightMustEnd) as error:
            return error
        except Exception as error:  # noqa: BLE001 - as above
            _log.exception("night.item_failed", item=item.id)
            return fault_of(error)

    def _read(self, item: BatchItem) -> bytes:
        """Raises ImageGone, StorageUnavailable for this one photo, NightMustEnd while the whole store is away."""
        try:
            return self._get(item)
        except StorageUnavailable:
            try:
                self._patience(self._store.check)
            except StorageUnavailable as error:
                raise NightMustEnd(error) from error
        return self._get(item)

    def _get(self, item: BatchItem) -> bytes:
        try:
            return self._store.get(item.key or "returns/nowhere")
        except BlobNotFound as error:
            raise ImageGone("The photo is no longer where it was put. Bring it in again.") from error

    async def _classify(self, item: BatchItem, data: bytes) -> ClassifyResult:
        job = ClassifyRequest(
            model=self._channel.model,
            image=data,
            top_k=STORED_LABELS,
            timeout_s=self._rules.timeout_s,
            sha256=item.sha256,
        )
        for _ in range(_TRIES_WHEN_FULL):
            try:
                return await self._engine.classify(job)
            except QueueFull as full:  # the few processes for HEIC and AVIF are all taken
                await asyncio.sleep(full.retry_after_s)
        return await self._engine.classify(job)

    async def _failed(self, item: BatchItem, error: ShoplensError, data: bytes | None) -> Verdict:
        verdict = self._judge.failed(item, error)
        if data is None or not is_shown(verdict):
            return verdict
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(
            self._readers,
            lambda: self._judge.keep_thumbnail(verdict, lambda: salvage(data, limits=self._rules.limits)),
        )


class _Entropy:
    """Random bytes, drawn from the system many at once: each draw lets other threads in, who are slow to let go."""

    def __init__(self) -> None:
        self._left = b""

    def draw(self, count: int) -> bytes:
        """`count` of them, never the same ones again."""
        if len(self._left) < count:
            self._left = os.urandom(_DRAWN_AT_ONCE)
        drawn, self._left = self._left[:count], self._left[count:]
        return drawn
