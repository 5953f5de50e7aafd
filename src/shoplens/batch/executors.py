"""What turns items into results: the Protocol, and an executor over an engine in this process or behind Redis."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from shoplens.batch.entities import BatchItem
from shoplens.batch.results import ProcessedItem, ResultBuilder
from shoplens.batch.retry import RetryPolicy
from shoplens.bundles.manifest import ModelRef
from shoplens.errors import (
    BlobNotFound,
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
from shoplens.predictions.service import STORED_LABELS
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine, fault_of
from shoplens.storage import Store

ItemQueue = asyncio.Queue[BatchItem | None]
"""Leased items. None marks the end; it stays in the queue."""
ResultQueue = asyncio.Queue[ProcessedItem | None]

_READERS: Final = 16
_READ_TOGETHER: Final = 4
_log: Final = structlog.get_logger(__name__)


class Executor(Protocol):
    """Works on the items of a run. It is opened for one run and closed at its end."""

    @property
    def model(self) -> ModelRef:
        """The model version that answers. Raises NoWorker while workers have different versions."""
        ...

    @property
    def capacity(self) -> int:
        """About how many items it works on at once."""
        ...

    async def process(self, items: ItemQueue, results: ResultQueue) -> None:
        """Put one result per item into `results`, in any order, until the end mark of `items`.

        Raises ShoplensError for what concerns the whole run; items without a result are then left to the next start.
        """
        ...

    async def close(self) -> None:
        """Release everything."""
        ...


async def take(items: ItemQueue, most: int) -> list[BatchItem]:
    """The next items: at least one, at most `most`; none after the end mark."""
    batch: list[BatchItem] = []
    item = await items.get()
    while item is not None:
        batch.append(item)
        if len(batch) == most or items.empty():
            return batch
        item = items.get_nowait()
    items.put_nowait(None)
    return batch


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkLimits:
    """About how many photos and how many bytes of them are in memory at most, and how long one photo may take."""

    photos: int
    photo_bytes: int
    timeout_s: float


class EngineExecutor:
    """Reads photos in threads and sends them to an engine that has the channel's model alone."""

    def __init__(
        self,
        engine: Engine,
        *,
        store: Store,
        results: ResultBuilder,
        limits: WorkLimits,
        image_limits: Limits,
        retry: RetryPolicy,
    ) -> None:
        self._engine = engine
        self._store = store
        self._builder = results
        self._limits = limits
        self._image_limits = image_limits
        self._retry = retry
        self._memory = MemoryBudget(limits.photo_bytes)
        # Several photos are read at once, since a change of threads costs as much as reading one.
        self._together = max(1, min(_READ_TOGETHER, limits.photos // 3))
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="batch-read")

    @property
    def model(self) -> ModelRef:
        """See Executor."""
        versions = {served.ref for served in self._engine.served()}
        if len(versions) != 1:
            found = ", ".join(sorted(map(str, versions))) or "none"
            raise NoWorker(f"A run needs one version of its model, and the workers have: {found}.")
        return versions.pop()

    @property
    def capacity(self) -> int:
        """See Executor."""
        return self._limits.photos

    async def process(self, items: ItemQueue, results: ResultQueue) -> None:
        """See Executor. Raises EngineStopped, NoWorker, QueueUnavailable, WireMismatch and StorageUnavailable."""
        tasks = [
            asyncio.create_task(self._work(items, results)) for _ in range(-(-self._limits.photos // self._together))
        ]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """See Executor."""
        self._readers.shutdown(wait=False)
        await self._engine.close()

    async def _work(self, items: ItemQueue, results: ResultQueue) -> None:
        loop = asyncio.get_running_loop()
        while batch := await take(items, self._together):
            async with self._memory.hold(sum(item.byte_count for item in batch)):
                photos = await loop.run_in_executor(self._readers, self._read_all, batch)
                for item, photo in zip(batch, photos, strict=True):
                    await results.put(await self._process_one(item, photo))

    async def _process_one(self, item: BatchItem, photo: bytes | ShoplensError) -> ProcessedItem:
        if isinstance(photo, ShoplensError):
            return self._builder.failed(item, photo)
        try:
            return self._builder.classified(item, await self._classify(item, photo))
        except (EngineStopped, NoWorker, QueueUnavailable, WireMismatch):
            raise
        except ShoplensError as error:
            processed = self._builder.failed(item, error)
        except Exception as error:  # noqa: BLE001  whatever happens to one item, the others are worked on
            _log.exception("run.item_failed", item=item.id)
            processed = self._builder.failed(item, fault_of(error))
        if not processed.needs_thumbnail:
            return processed
        return await asyncio.get_running_loop().run_in_executor(
            self._readers,
            lambda: self._builder.with_thumbnail(processed, lambda: salvage(photo, limits=self._image_limits)),
        )

    async def _classify(self, item: BatchItem, photo: bytes) -> ClassifyResult:
        """Waits without limit for a place in a full queue, and within the retry policy for workers that are away."""
        request = ClassifyRequest(
            model=self._builder.channel.model,
            image=photo,
            top_k=STORED_LABELS,
            timeout_s=self._limits.timeout_s,
            sha256=item.sha256,
            priority="batch",
        )
        while True:
            try:
                return await self._engine.classify(request)
            except QueueFull as full:
                await asyncio.sleep(full.retry_after_s)
            except (QueueUnavailable, NoWorker):
                with suppress(QueueFull):
                    return await self._retry.run(lambda: self._engine.classify(request))

    def _read_all(self, items: Sequence[BatchItem]) -> list[bytes | ShoplensError]:
        return [self._read(item) for item in items]

    def _read(self, item: BatchItem) -> bytes | ShoplensError:
        """The photo, or why it cannot be read. Raises StorageUnavailable if the store stays away."""
        try:
            try:
                return self._get(item)
            except StorageUnavailable:
                self._retry(self._store.check)
        except StorageUnavailable:
            raise
        except ShoplensError as error:
            return error
        except Exception as error:  # noqa: BLE001  as above
            _log.exception("run.item_failed", item=item.id)
            return fault_of(error)
        try:
            return self._get(item)  # the store answers now; what fails still is this photo's own fault
        except ShoplensError as error:
            return error

    def _get(self, item: BatchItem) -> bytes:
        try:
            return self._store.get(item.key or "nowhere")
        except BlobNotFound as error:
            raise ImageGone("The photo is not in the store any more. Import it again.") from error


class MemoryBudget:
    """Lets the tasks of one event loop hold at most `limit` bytes together; a larger single request is let in alone."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._waiting: deque[asyncio.Event] = deque()

    @asynccontextmanager
    async def hold(self, count: int) -> AsyncIterator[None]:
        """Hold `count` bytes within the block; waits in turn until they are free."""
        while self._held and self._held + count > self._limit:
            freed = asyncio.Event()
            self._waiting.append(freed)
            await freed.wait()
        self._held += count
        try:
            yield
        finally:
            self._held -= count
            while self._waiting:
                self._waiting.popleft().set()
