"""What turns items into results: the Protocol, and an executor over an engine in this process or behind Redis.

Also what every executor needs: the results that a run writes, and the policy for retrying while a service is down.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import tenacity
from sqlalchemy import Connection

from shoplens.batch.entities import BatchItem, Clock, ItemResult, ItemState, state_for, target_key
from shoplens.batch.files import Move
from shoplens.bundles.manifest import ModelRef
from shoplens.db.tables import make_id
from shoplens.errors import (
    BlobNotFound,
    DatabaseUnavailable,
    DatabaseUnusable,
    DeadlineExceeded,
    EngineStopped,
    ImageDecoderFailed,
    ImageGone,
    NotStarted,
    NoWorker,
    QueueFull,
    QueueUnavailable,
    RecordRefused,
    SampleError,
    ShoplensError,
    StorageUnavailable,
    StorageUnusable,
    TooManyVersions,
    WireMismatch,
)
from shoplens.images.decoder import salvage
from shoplens.images.picture import Limits
from shoplens.predictions.entities import NO_PHOTO, Channel, Keep, PredictionRecord, Timing, clean_file_name
from shoplens.predictions.policy import decide
from shoplens.predictions.service import STORED_LABELS
from shoplens.serving.engine import ClassifyRequest, ClassifyResult, Engine, fault_of
from shoplens.storage import Store, image_key, require_unchanged
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.threads import run_in
from shoplens.telemetry.tracing import FirstSpans

T = TypeVar("T")

_READERS: Final = 16
_READ_TOGETHER: Final = 4
_TRACED_ITEMS: Final = 200
"""Of a run's items so many are traced: enough to see where time goes, and few enough for one trace."""
_RETRY_VERSION_S: Final = 10.0
"""How often a run asks workers again that have no place for the version with which it began."""
_log: Final = get_logger(__name__)


class RetryPolicy:
    """Calls a function until the service that it needs is available again. Thread-safe.

    Each call gives up after about `limit_s` seconds with the last error. Setting `stopped` ends all waiting at once.
    """

    def __init__(self, limit_s: float) -> None:
        self.stopped = threading.Event()
        self._options: dict[str, Any] = {
            "retry": tenacity.retry_if_exception(_is_temporary),
            "wait": tenacity.wait_exponential(multiplier=0.2, exp_base=1.6, max=10.0),
            "stop": tenacity.stop_after_delay(limit_s) | tenacity.stop_when_event_set(self.stopped),
            "before_sleep": _log_retry,
            "reraise": True,
        }

    def __call__(self, act: Callable[[], T]) -> T:
        """What `act` returns. Blocks. Raises the error of `act` if it cannot pass, or if it did not pass in time."""
        sleep = tenacity.sleep_using_event(self.stopped)
        return tenacity.Retrying(**self._options, sleep=sleep)(act)

    async def run(self, act: Callable[[], Awaitable[T]]) -> T:
        """As a call, for a function that returns an awaitable."""

        async def attempt() -> T:  # tenacity awaits the result of coroutine functions only, not of lambdas
            return await act()

        return await tenacity.AsyncRetrying(**self._options)(attempt)


def _is_temporary(error: BaseException) -> bool:
    """Whether another attempt may succeed. A row that the database refuses will be refused again."""
    unavailable = isinstance(error, (DatabaseUnavailable, NoWorker, QueueUnavailable, StorageUnavailable))
    return unavailable and not isinstance(error, (DatabaseUnusable, RecordRefused, StorageUnusable))


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    code = getattr(error, "code", None)
    _log.warning("run.waits", code=code, reason=str(error), seconds=round(state.upcoming_sleep, 1))


LATE: Final = (DeadlineExceeded.code, NotStarted.code)
"""The codes of items that were not finished in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedItem:
    """An item with its result and, where it was classified, its prediction: what one commit writes for it.

    `also` writes what else belongs to the result, in the same transaction.
    """

    item: BatchItem
    result: ItemResult
    record: PredictionRecord | None = None
    also: Callable[[Connection], None] | None = None

    @property
    def completed(self) -> bool:
        """Whether the run is done with it; otherwise it waits for another attempt."""
        return self.result.state is not ItemState.WAITING

    @property
    def move(self) -> Move | None:
        """Where its photo has to be moved after the commit."""
        if self.item.key is None or self.result.target_key is None:
            return None
        return Move(item_id=self.item.id, source=self.item.key, target=self.result.target_key)

    @property
    def needs_thumbnail(self) -> bool:
        """Whether people will look at a photo that cannot be decoded. Not if decoding it took too long once already."""
        return self.result.state is ItemState.QUARANTINED and self.result.failure_code not in LATE


class ResultBuilder:
    """Turns answers and errors into what is written, by the rules of one channel. Thread-safe.

    With `file_by_label` photos are moved to a folder per label; otherwise they stay where the import put them.
    """

    def __init__(
        self, channel: Channel, store: Store, *, clock: Clock, max_attempts: int, file_by_label: bool = True
    ) -> None:
        self.channel = channel
        self._store = store
        self._clock = clock
        self._max_attempts = max_attempts
        self._file_by_label = file_by_label
        # Seeded by the system once: each call of os.urandom lets another thread run, and a busy one holds on for 5 ms.
        self._random = random.Random()  # noqa: S311  ids have to be unique, not secret

    def classified(self, item: BatchItem, answer: ClassifyResult) -> ProcessedItem:
        """Apply the channel's policy: the item is done, or needs review."""
        now = self._clock()
        prediction = answer.prediction
        decision = decide(prediction, self.channel.policy, draw=self._random.random())
        state = state_for(decision.outcome)
        target = self._target(item, state, prediction.top.label)
        queue_ms, pixels_ms, inference_ms = (
            round(seconds * 1000, 3) for seconds in (answer.queue_s, answer.pixels_s, answer.inference_s)
        )
        record = PredictionRecord(
            id=make_id(int(now.timestamp() * 1000), self._random.randbytes(10)),
            created_at=now,
            channel=self.channel.name,
            model=prediction.model,
            labels=prediction.labels,
            decision=decision,
            image=answer.images[0] if answer.images else NO_PHOTO,
            file_name=clean_file_name(item.source_name) if answer.images else None,
            keep=Keep.ORIGINAL,
            image_key=target or item.key,
            timing=Timing(
                queue_ms=queue_ms,
                pixels_ms=pixels_ms,
                inference_ms=inference_ms,
                total_ms=round(queue_ms + pixels_ms + inference_ms, 3),
            ),
        )
        result = ItemResult(
            item_id=item.id,
            state=state,
            attempts=item.attempts + 1,
            target_key=target,
            finished_at=now,
            prediction_id=record.id,
            predicted=prediction.top.label,
            score=prediction.top.score,
            work_ms=round(pixels_ms + inference_ms, 3),
        )
        return ProcessedItem(item=item, result=result, record=record)

    def failed(self, item: BatchItem, error: Exception, *, final: bool = False) -> ProcessedItem:
        """Quarantine the item, or let it wait for another attempt if the error may pass. The reason is logged."""
        if not isinstance(error, ShoplensError):
            _log.error("run.item_failed", item=item.id, exc_info=error)
            error = fault_of(error)
        # A photo that only waited for others has made no attempt; the run ends when none makes any.
        attempts = item.attempts + (not isinstance(error, NotStarted))
        may_pass = not isinstance(error, SampleError) or isinstance(error, ImageDecoderFailed)
        again = may_pass and attempts < self._max_attempts and not final
        reason = "\n".join([str(error), *getattr(error, "__notes__", ())])
        if again:
            _log.info("run.item_retried", item=item.id, code=error.code, reason=reason, attempts=attempts)
        else:
            _log.warning("run.item_quarantined", item=item.id, source=item.source_name, code=error.code, reason=reason)
        stays = again or isinstance(error, ImageGone)
        result = ItemResult(
            item_id=item.id,
            state=ItemState.WAITING if again else ItemState.QUARANTINED,
            attempts=attempts,
            target_key=None if stays else self._target(item, ItemState.QUARANTINED, None),
            finished_at=None if again else self._clock(),
            failure_code=error.code,
            failure=str(error) if isinstance(error, SampleError) else error.public,
        )
        return ProcessedItem(item=item, result=result)

    def with_thumbnail(self, processed: ProcessedItem, make: Callable[[], bytes | None]) -> ProcessedItem:
        """The same with a thumbnail in the store, if `make` can make one; without it on any failure. Blocks."""
        item = processed.item
        try:
            thumbnail = make()
            if thumbnail is None:
                return processed
            key = image_key(item.sha256, "thumbnail.jpg")
            self._store.put(key, thumbnail)
        except (ShoplensError, MemoryError) as error:
            _log.info("run.no_thumbnail", item=item.id, reason=str(error))
            return processed
        return replace(processed, result=replace(processed.result, thumbnail_key=key))

    def _target(self, item: BatchItem, state: ItemState, label: str | None) -> str | None:
        """Where the photo belongs; None where it stays."""
        if not self._file_by_label or item.key is None:
            return None
        target = target_key(state, label, item.key)
        return None if target == item.key else target


ItemQueue = asyncio.Queue[BatchItem | None]
"""Leased items. None marks the end; it stays in the queue."""
ResultQueue = asyncio.Queue[ProcessedItem | None]


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


def only_version(models: Iterable[ModelRef]) -> ModelRef:
    """The version that all workers have. Raises NoWorker where there is none, and while they have different ones."""
    versions = set(models)
    if len(versions) != 1:
        found = ", ".join(sorted(map(str, versions))) or "none"
        raise NoWorker(f"A run needs one version of its model, and the workers have: {found}.")
    return versions.pop()


async def at_once(work: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
    """`work` in `count` tasks. Raises the first error; no task runs any more then."""
    tasks = [asyncio.create_task(work()) for _ in range(count)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


ENDS_RUN: Final = (
    EngineStopped, NoWorker, QueueUnavailable, WireMismatch, StorageUnavailable, DatabaseUnavailable
)  # fmt: skip
"""Errors of services that a run needs, which no item is to blame for: the run ends, and the items wait for the next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkLimits:
    """About how many photos and how many bytes of them are in memory at most, and how long one photo may take."""

    photos: int
    photo_bytes: int
    timeout_s: float


class EngineExecutor:
    """Reads photos in threads and sends them to an engine that has the channel's model.

    `model` is the name under which the engine has it, unset that of the channel; with `name@version` that version
    answers to the end of the run.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        model: str | None = None,
        store: Store,
        results: ResultBuilder,
        limits: WorkLimits,
        image_limits: Limits,
        retry: RetryPolicy,
    ) -> None:
        self._engine = engine
        self._model = model or results.channel.model
        self._store = store
        self._builder = results
        self._limits = limits
        self._image_limits = image_limits
        self._retry = retry
        self._memory = MemoryBudget(limits.photo_bytes)
        # Several photos are read at once, since a change of threads costs as much as reading one.
        self._together = max(1, min(_READ_TOGETHER, limits.photos // 3))
        self._traced_items = FirstSpans(_TRACED_ITEMS)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="batch-read")

    @property
    def model(self) -> ModelRef:
        """See Executor."""
        name, _, version = self._model.partition("@")
        if version:
            return ModelRef(name=name, version=version)
        return only_version(served.ref for served in self._engine.served())

    @property
    def capacity(self) -> int:
        """See Executor."""
        return self._limits.photos

    async def process(self, items: ItemQueue, results: ResultQueue) -> None:
        """See Executor. Raises EngineStopped, NoWorker, QueueUnavailable, WireMismatch and StorageUnavailable."""

        async def work() -> None:
            while batch := await take(items, self._together):
                async with self._memory.hold(sum(item.byte_count for item in batch)):
                    photos = await self._in_thread(lambda: [self._read(item) for item in batch])
                    for item, photo in zip(batch, photos, strict=True):
                        with self._traced_items.span("batch item", {"shoplens.item": item.id}):
                            result = await self._result(item, photo)
                        await results.put(result)

        await at_once(work, -(-self._limits.photos // self._together))

    async def close(self) -> None:
        """See Executor."""
        self._readers.shutdown(wait=False)
        await self._engine.close()

    def _read(self, item: BatchItem) -> bytes | Exception:
        """The photo, or why it cannot be read. Raises StorageUnavailable if the store stays unavailable."""
        try:
            return read_photo(self._store, item.key, item.sha256)
        except StorageUnavailable:
            self._retry(self._store.check)
        except Exception as error:  # noqa: BLE001  an error of one item must not end the run
            return error
        try:
            return read_photo(self._store, item.key, item.sha256)
        except ShoplensError as error:  # the store answers now: what fails still is this photo's own fault
            return error

    async def _result(self, item: BatchItem, photo: bytes | Exception) -> ProcessedItem:
        if isinstance(photo, Exception):
            return self._builder.failed(item, photo)
        try:
            return self._builder.classified(item, await self._classify(item, photo))
        except ENDS_RUN:
            raise
        except Exception as error:  # noqa: BLE001  an error of one item must not end the run
            processed = self._builder.failed(item, error)
        if not processed.needs_thumbnail:
            return processed
        make = partial(salvage, photo, limits=self._image_limits)
        return await self._in_thread(partial(self._builder.with_thumbnail, processed, make))

    async def _classify(self, item: BatchItem, photo: bytes) -> ClassifyResult:
        """Waits without limit for a place in a full queue, and within the retry policy for workers that are down."""
        request = classify_request(self._model, photo, sha256=item.sha256, timeout_s=self._limits.timeout_s)
        while True:
            try:
                return await self._engine.classify(request)
            except QueueFull as full:
                await asyncio.sleep(full.retry_after_s)
            except TooManyVersions:
                await asyncio.sleep(_RETRY_VERSION_S)
            except (QueueUnavailable, NoWorker):
                with suppress(QueueFull):
                    return await self._retry.run(lambda: self._engine.classify(request))

    async def _in_thread(self, act: Callable[[], T]) -> T:
        return await run_in(self._readers, act)


def read_photo(store: Store, key: str | None, sha256: str) -> bytes:
    """The photo of an item. Raises ImageGone, ImageChanged and StorageUnavailable."""
    gone = ImageGone("The photo is not in the store any more. Import it again.")
    if key is None:
        raise gone
    try:
        photo = store.get(key)
    except BlobNotFound as error:
        raise gone from error
    return require_unchanged(photo, sha256)


def classify_request(
    model: str, *photos: bytes, text: str = "", sha256: str | None = None, timeout_s: float, embed: bool = False
) -> ClassifyRequest:
    """What every executor asks of its engine. `sha256` is that of the first photo, where it is known."""
    return ClassifyRequest(
        model=model,
        images=photos,
        text=text,
        top_k=STORED_LABELS,
        timeout_s=timeout_s,
        sha256=sha256,
        priority="batch",
        embed=embed,
    )


class MemoryBudget:
    """Lets the tasks of one event loop hold at most `limit` bytes together; a larger request waits for all others."""

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
