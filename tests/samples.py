"""Rows for the database in tests: predictions, feedback, batch items and runs."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from shoplens.batch.entities import BatchItem, BatchRun, ItemState, RunState
from shoplens.bundles.manifest import ModelRef
from shoplens.db.tables import make_id
from shoplens.images.picture import ImageFacts
from shoplens.predictions.entities import Feedback, FeedbackValue, Keep, PredictionRecord, Timing
from shoplens.predictions.policy import Decision, Outcome
from shoplens.serving.engine import LabelScore

NOON = datetime(2026, 5, 4, 12, 0, 0, 123_456, tzinfo=UTC)


def moment(number: int) -> datetime:
    """`number` seconds after noon."""
    return NOON + timedelta(seconds=number)


def id_at(when: datetime) -> str:
    """A new id of this time."""
    return make_id(int(when.timestamp() * 1000), os.urandom(10))


def make_record(
    number: int = 0, *, label: str = "vase", channel: str = "look", outcome: Outcome = Outcome.ACCEPT, **other: Any
) -> PredictionRecord:
    """A record of `number` seconds after noon."""
    sha256 = hashlib.sha256(str(number).encode()).hexdigest()
    record = PredictionRecord(
        id=id_at(moment(number)),
        created_at=moment(number),
        channel=channel,
        model=ModelRef(name="efficientnet-lite0", version="1.0.0"),
        labels=(LabelScore(label, 0.7123456789), LabelScore("jug, Krug, 水差し", 0.1), LabelScore("cup", 1e-9)),
        decision=Decision(outcome=outcome, policy_version="0123456789ab", label="vase", threshold=0.6),
        image=ImageFacts(
            format="jpeg", width=4000, height=3000, byte_count=2_600_000, sha256=sha256, phash="00ff00ff00ff00ff"
        ),
        keep=Keep.THUMBNAIL,
        image_key=f"images/{sha256}.jpg",
        timing=Timing(queue_ms=0.25, pixels_ms=7.5, inference_ms=1.875, total_ms=10.0),
    )
    return replace(record, **other)


def make_remark(prediction_id: str, number: int = 0, **other: Any) -> Feedback:
    """A remark of `number` seconds after noon."""
    remark = Feedback(
        id=id_at(moment(number)),
        created_at=moment(number),
        prediction_id=prediction_id,
        verdict=FeedbackValue.WRONG,
        label="teapot",
        comment="It has a spout.",
    )
    return replace(remark, **other)


def make_item(number: int = 0, **other: Any) -> BatchItem:
    """An item of the channel `returns` that waits, received `number` seconds after noon."""
    item = BatchItem(
        id=id_at(moment(number)),
        channel="returns",
        received_at=moment(number),
        source_name=f"{number}.jpg",
        sha256=f"{number:064d}",
        byte_count=9,
        state=ItemState.WAITING,
        key=f"returns/incoming/{number}.jpg",
    )
    return replace(item, **other)


def make_run(number: int = 0, **other: Any) -> BatchRun:
    """A run of the channel `returns` that was requested `number` seconds after noon and has no owner."""
    run = BatchRun(
        id=id_at(moment(number)),
        channel="returns",
        created_at=moment(number),
        requested_by="test",
        state=RunState.REQUESTED,
        bound=1_000_000,
        planned=0,
    )
    return replace(run, **other)
