"""What a night makes of one item: an answer or an error in, what is to be written out. No clock, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from shoplens.batch.entities import BatchItem, ItemState, Settlement, state_for, target_key
from shoplens.batch.moves import Move
from shoplens.errors import ImageDecoderFailed, ImageGone, SampleError, ShoplensError
from shoplens.predictions.entities import Channel, Keep, PredictionRecord, Timing
from shoplens.predictions.policy import decide
from shoplens.serving.engine import ClassifyResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The row of an item and, where it was classified, of its prediction."""

    item: BatchItem
    settlement: Settlement
    record: PredictionRecord | None = None

    @property
    def settled(self) -> bool:
        """Whether the run is through with it; else it waits to be tried again."""
        return self.settlement.state is not ItemState.WAITING

    @property
    def move(self) -> Move | None:
        """Where its photo has to be brought once this is committed."""
        source, target = self.item.key, self.settlement.target_key
        if source is None or target is None:
            return None
        return Move(item_id=self.item.id, source=source, target=target)


def classified(
    item: BatchItem, answer: ClassifyResult, channel: Channel, *, now: datetime, prediction_id: str
) -> Verdict:
    """The channel's policy decides whether a person has to look."""
    prediction = answer.prediction
    decision = decide(prediction, channel.policy)
    state = state_for(decision.outcome)
    key = item.key or ""
    target = target_key(state, prediction.top.label, key)
    record = PredictionRecord(
        id=prediction_id,
        created_at=now,
        channel=channel.name,
        model=prediction.model,
        labels=prediction.labels,
        decision=decision,
        image=answer.image,
        keep=Keep.ORIGINAL,
        image_key=target,
        timing=_timing(answer),
    )
    settlement = Settlement(
        item_id=item.id,
        state=state,
        attempts=item.attempts + 1,
        target_key=None if target == key else target,
        finished_at=now,
        prediction_id=prediction_id,
        predicted=prediction.top.label,
        score=prediction.top.score,
        work_ms=_ms(answer.pixels_s + answer.inference_s),
    )
    return Verdict(item=item, settlement=settlement, record=record)


def failed(item: BatchItem, error: ShoplensError, *, max_attempts: int, now: datetime) -> Verdict:
    """To quarantine, unless the fault may pass and the item was tried less than `max_attempts` times."""
    attempts = item.attempts + 1
    again = may_pass(error) and attempts < max_attempts
    key = item.key or ""
    target = None if again or isinstance(error, ImageGone) else target_key(ItemState.QUARANTINED, None, key)
    settlement = Settlement(
        item_id=item.id,
        state=ItemState.WAITING if again else ItemState.QUARANTINED,
        attempts=attempts,
        target_key=None if target == key else target,
        finished_at=None if again else now,
        failure_code=error.code,
        failure=str(error),
    )
    return Verdict(item=item, settlement=settlement)


def may_pass(error: ShoplensError) -> bool:
    """Whether another try may end better: what is wrong with a photo itself stays so."""
    return not isinstance(error, SampleError) or isinstance(error, ImageDecoderFailed)


def with_thumbnail(verdict: Verdict, key: str | None) -> Verdict:
    """The same, with what can be shown of a photo that no decoder reads."""
    return verdict if key is None else replace(verdict, settlement=replace(verdict.settlement, thumbnail_key=key))


def _timing(answer: ClassifyResult) -> Timing:
    parts = (answer.queue_s, answer.pixels_s, answer.inference_s)
    queue_ms, pixels_ms, inference_ms = map(_ms, parts)
    return Timing(queue_ms=queue_ms, pixels_ms=pixels_ms, inference_ms=inference_ms, total_ms=_ms(sum(parts)))


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
