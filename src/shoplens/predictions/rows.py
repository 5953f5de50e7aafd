"""Domain values to rows and back. Pure: no connection, no clock."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from shoplens.bundles.manifest import ModelRef
from shoplens.images.picture import ImageFacts
from shoplens.predictions.entities import Feedback, Keep, PredictionRecord, Timing, Verdict
from shoplens.predictions.policy import Decision, Outcome
from shoplens.serving.prediction import LabelScore


def prediction_to_values(record: PredictionRecord) -> tuple[Any, ...]:
    """One value per column of `predictions`, in the table's order; the best label has columns of its own.

    Written out flat because it runs once per answered photo.
    """
    model, decision, image, timing, best = record.model, record.decision, record.image, record.timing, record.labels[0]
    return (
        record.id,
        record.created_at,
        record.channel,
        model.name,
        model.version,
        [(entry.label, entry.score) for entry in record.labels],
        best.label,
        best.score,
        decision.outcome.value,
        decision.label,
        decision.threshold,
        decision.policy_version,
        image.format,
        image.width,
        image.height,
        image.byte_count,
        image.sha256,
        image.phash,
        record.keep.value,
        record.image_key,
        timing.queue_ms,
        timing.pixels_ms,
        timing.inference_ms,
        timing.total_ms,
    )


def prediction_from_row(row: Row[Any]) -> PredictionRecord:
    """The record that `prediction_to_values` was given."""
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
