"""What a run makes of an item: the policy's decision on an answer, or a failure that is final or may pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import structlog

from shoplens.batch.entities import BatchItem, ItemResult, ItemState, state_for, target_key
from shoplens.batch.files import Move
from shoplens.db.ids import make_id
from shoplens.errors import DeadlineExceeded, ImageDecoderFailed, ImageGone, SampleError, ShoplensError
from shoplens.predictions.entities import Channel, Keep, PredictionRecord, Timing
from shoplens.predictions.policy import decide
from shoplens.serving.engine import ClassifyResult
from shoplens.storage import Store, image_key

Clock = Callable[[], datetime]

_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessedItem:
    """An item with its result and, where it was classified, its prediction: what one commit writes for it."""

    item: BatchItem
    result: ItemResult
    record: PredictionRecord | None = None

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
        return self.result.state is ItemState.QUARANTINED and self.result.failure_code != DeadlineExceeded.code


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
        decision = decide(prediction, self.channel.policy)
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
            image=answer.image,
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

    def failed(self, item: BatchItem, error: ShoplensError, *, final: bool = False) -> ProcessedItem:
        """Quarantine the item, or let it wait for another attempt if the error may pass. The reason is logged."""
        attempts = item.attempts + 1
        may_pass = not isinstance(error, SampleError) or isinstance(error, ImageDecoderFailed)
        again = may_pass and attempts < self._max_attempts and not final
        if again:
            _log.info("run.item_retried", item=item.id, code=error.code, attempts=attempts)
        else:
            _log.warning(
                "run.item_quarantined", item=item.id, source=item.source_name, code=error.code, reason=str(error)
            )
        stays = again or isinstance(error, ImageGone)
        result = ItemResult(
            item_id=item.id,
            state=ItemState.WAITING if again else ItemState.QUARANTINED,
            attempts=attempts,
            target_key=None if stays else self._target(item, ItemState.QUARANTINED, None),
            finished_at=None if again else self._clock(),
            failure_code=error.code,
            failure=str(error),
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
