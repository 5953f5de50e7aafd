"""Domain values to rows and back. Pure: no connection, no clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from shoplens.domain.channel import Keep
from shoplens.domain.policy import Decision, Outcome
from shoplens.domain.prediction import LabelScore, ModelRef
from shoplens.domain.record import Feedback, ImageFacts, PredictionRecord, Timing, Verdict


def prediction_to_row(record: PredictionRecord) -> dict[str, Any]:
    """One entry per column of `predictions`; the best label and its score get columns of their own."""
    decision, image, timing = record.decision, record.image, record.timing
    return {
        "id": record.id,
        "created_at": record.created_at,
        "channel": record.channel,
        "model_name": record.model.name,
        "model_version": record.model.version,
        "labels": [(entry.label, entry.score) for entry in record.labels],
        "top_label": record.labels[0].label,
        "top_score": record.labels[0].score,
        "outcome": decision.outcome.value,
        "decision_label": decision.label,
        "decision_threshold": decision.threshold,
        "policy_version": decision.policy_version,
        "image_format": image.format,
        "image_width": image.width,
        "image_height": image.height,
        "image_byte_count": image.byte_count,
        "image_sha256": image.sha256,
        "image_phash": image.phash,
        "keep": record.keep.value,
        "image_key": record.image_key,
        "queue_ms": timing.queue_ms,
        "pixels_ms": timing.pixels_ms,
        "inference_ms": timing.inference_ms,
        "total_ms": timing.total_ms,
    }


def prediction_from_row(row: Row[Any]) -> PredictionRecord:
    """The record that `prediction_to_row` was given."""
    return PredictionRecord(
        id=row.id,
        created_at=row.created_at,
        channel=row.channel,
        model=ModelRef(name=row.model_name, version=row.model_version),
        labels=tuple(LabelScore(label, score) for label, score in row.labels),
        decision=_decision_from_row(row),
        image=_image_from_row(row),
        keep=Keep(row.keep),
        image_key=row.image_key,
        timing=Timing(
            queue_ms=row.queue_ms, pixels_ms=row.pixels_ms, inference_ms=row.inference_ms, total_ms=row.total_ms
        ),
    )


def feedback_to_row(remark: Feedback) -> dict[str, Any]:
    """One entry per column of `feedback`."""
    return {
        "id": remark.id,
        "created_at": remark.created_at,
        "prediction_id": remark.prediction_id,
        "verdict": remark.verdict.value,
        "label": remark.label,
        "comment": remark.comment,
    }


def feedback_from_row(row: Row[Any]) -> Feedback:
    """The remark that `feedback_to_row` was given."""
    return Feedback(
        id=row.id,
        created_at=row.created_at,
        prediction_id=row.prediction_id,
        verdict=Verdict(row.verdict),
        label=row.label,
        comment=row.comment,
    )


def _decision_from_row(row: Row[Any]) -> Decision:
    return Decision(
        outcome=Outcome(row.outcome),
        policy_version=row.policy_version,
        label=row.decision_label,
        threshold=row.decision_threshold,
    )


def _image_from_row(row: Row[Any]) -> ImageFacts:
    return ImageFacts(
        format=row.image_format,
        width=row.image_width,
        height=row.image_height,
        byte_count=row.image_byte_count,
        sha256=row.image_sha256,
        phash=row.image_phash,
    )
