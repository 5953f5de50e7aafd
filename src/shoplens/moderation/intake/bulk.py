"""Moderate a backlog: an executor with which a batch run judges its photos as if shoppers had just sent them.

The row of a photo with its decision is written in the transaction that completes its item, so each photo is taken in
exactly once, also after a crash. The id of the photo follows from the item: what is done again overwrites its files.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection

from shoplens.accounts.entities import SYSTEM
from shoplens.batch.entities import BatchItem, ItemResult, ItemState
from shoplens.batch.executors import (
    ENDS_RUN,
    ItemQueue,
    MemoryBudget,
    ProcessedItem,
    ResultBuilder,
    ResultQueue,
    RetryPolicy,
    WorkLimits,
    at_once,
    only_version,
    read_photo,
    take,
)
from shoplens.batch.people_repository import ItemPeopleRepository
from shoplens.bundles.manifest import ModelRef, SampleKind
from shoplens.db.tables import make_id
from shoplens.errors import (
    EngineStopped,
    NoWorker,
    QueueFull,
    QueueUnavailable,
    ShoplensError,
    WireMismatch,
)
from shoplens.moderation.channel import ModerationChannel
from shoplens.moderation.decisions import add_decided
from shoplens.moderation.entities import Intake, ModerationPhoto, References
from shoplens.moderation.files import PhotoFiles, original_key
from shoplens.moderation.intake.assessment import Assessment, NewPhoto, PhotoAssessor
from shoplens.moderation.intake.service import decided_photo
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine, ServedModel
from shoplens.storage import Store
from shoplens.telemetry.threads import run_in

T = TypeVar("T")

_READERS: Final = 16
_TIME_LENGTH: Final = 10
"""The characters of an id that are its time."""


class PatientEngine:
    """An engine that waits while its queue is full and while workers are away.

    What ends the run is kept in `broken`: an assessor takes any error of an engine for a photo without scores.
    """

    def __init__(self, engine: Engine, retry: RetryPolicy) -> None:
        self._engine = engine
        self._retry = retry
        self.broken: ShoplensError | None = None

    async def classify(self, request: ClassifyRequest) -> ClassifyResult:
        """As `Engine.classify`, without QueueFull."""
        try:
            while True:
                try:
                    return await self._engine.classify(request)
                except QueueFull as full:
                    await asyncio.sleep(full.retry_after_s)
                except (QueueUnavailable, NoWorker):
                    with suppress(QueueFull):
                        return await self._retry.run(lambda: self._engine.classify(request))
        except (EngineStopped, NoWorker, QueueUnavailable, WireMismatch) as error:
            self.broken = error
            raise

    def served(self) -> tuple[ServedModel, ...]:
        """As `Engine.served`."""
        return self._engine.served()

    def labels(self, model: str) -> tuple[str, ...]:
        """As `Engine.labels`."""
        return self._engine.labels(model)

    def kinds(self, model: str) -> tuple[SampleKind, ...]:
        """As `Engine.kinds`."""
        return self._engine.kinds(model)

    async def check(self) -> None:
        """As `Engine.check`."""
        await self._engine.check()

    async def close(self) -> None:
        """As `Engine.close`."""
        await self._engine.close()


class ModerationExecutor:
    """An `Executor` for a channel with a moderation side. `assessor` works with `engine`; both are closed with it."""

    def __init__(
        self,
        engine: PatientEngine,
        assessor: PhotoAssessor,
        *,
        channel: ModerationChannel,
        store: Store,
        results: ResultBuilder,
        limits: WorkLimits,
        retry: RetryPolicy,
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._assessor = assessor
        self._channel = channel
        self._store = store
        self._files = PhotoFiles(store)
        self._builder = results
        self._limits = limits
        self._retry = retry
        self._clock = clock
        self._memory = MemoryBudget(limits.photo_bytes)
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="moderate")

    @property
    def model(self) -> ModelRef:
        """See Executor: the moderation model, without the general one."""
        general = self._channel.general_model
        without = None if general is None else general.partition("@")[0]
        return only_version(each.ref for each in self._engine.served() if each.ref.name != without)

    @property
    def capacity(self) -> int:
        """See Executor."""
        return self._limits.photos

    async def process(self, items: ItemQueue, results: ResultQueue) -> None:
        """See Executor. Raises the errors of ENDS_RUN."""

        async def work() -> None:
            while batch := await take(items, 1):
                async with self._memory.hold(batch[0].byte_count):
                    await results.put(await self._result(batch[0]))

        await at_once(work, self._limits.photos)

    async def close(self) -> None:
        """See Executor."""
        self._threads.shutdown(wait=False)
        await asyncio.to_thread(self._assessor.close)
        await self._engine.close()

    async def _result(self, item: BatchItem) -> ProcessedItem:
        started = time.perf_counter()
        try:
            data = await self._in_thread(partial(read_photo, self._store, item.key, item.sha256))
            new = NewPhoto(data=data, customer=item.references.customer, client="batch", priority="batch")
            assessed = await self._retry.run(lambda: self._assessor.assess(new, channel=self._channel))
            if self._engine.broken is not None:
                raise self._engine.broken
            photo = self._photo(item, assessed)
            await self._in_thread(partial(self._files.save, photo.id, photo.image.format, data))
        except ENDS_RUN:
            raise
        except Exception as error:  # noqa: BLE001  an error of one item must not end the run
            return self._builder.failed(item, error)
        result = ItemResult(
            item_id=item.id,
            state=ItemState.DONE,
            attempts=item.attempts + 1,
            target_key=original_key(photo.image_key or "", photo.image.format),
            finished_at=photo.decided_at,
            predicted=photo.state.value,
            work_ms=round((time.perf_counter() - started) * 1000, 3),
        )
        return ProcessedItem(
            item=item,
            result=result,
            also=partial(_take_in, photo=photo, item_id=item.id, audit_share=self._channel.audit_share),
        )

    def _photo(self, item: BatchItem, assessed: Assessment) -> ModerationPhoto:
        now = self._clock()
        said = item.references
        photo = decided_photo(
            photo_id_of(item),
            assessed,
            intake=Intake(
                id=item.run_id or item.id,
                created_at=now,
                channel=item.channel,
                caller="batch",
                idempotency_key=None,
                body_digest=item.sha256,
            ),
            position=0,
            ref=References(customer=said.customer, product=said.item, order=said.order, review=said.review),
            channel=self._channel,
            now=now,
        )
        # An item is one content under one name: its id keeps two files of one name apart.
        return replace(photo, source_name=f"{item.id} {item.source_name}")

    async def _in_thread(self, act: Callable[[], T]) -> T:
        """`act`, again while the store is away. Raises StorageUnavailable if it stays so."""
        return await run_in(self._threads, partial(self._retry, act))


def photo_id_of(item: BatchItem) -> str:
    """The id of the photo of an item: the same at each attempt, and as young as the item, since ids sort by time."""
    received = make_id(int(item.received_at.timestamp() * 1000), bytes(10))
    return received[:_TIME_LENGTH] + item.id[_TIME_LENGTH:]


def _take_in(tx: Connection, *, photo: ModerationPhoto, item_id: str, audit_share: float) -> None:
    """Write the photo with its decision. The item then no longer says whose it is: the photo does."""
    add_decided(tx, [photo], by=SYSTEM, audit_share=audit_share)
    ItemPeopleRepository(tx).forget([item_id])
