"""The shapes of the JSON API, for its documentation, its input and its tests."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from shoplens.predictions.entities import Feedback, Keep, PredictionRecord, Verdict
from shoplens.predictions.policy import Outcome


class Schema(BaseModel):
    """What is not described is refused."""

    model_config = ConfigDict(extra="forbid")


class ModelOut(Schema):
    """Which bundle answered."""

    name: str = Field(examples=["efficientnet-lite0-int8"])
    version: str = Field(examples=["1.0.0"])


class LabelOut(Schema):
    """One label with its score between 0 and 1."""

    label: str = Field(examples=["golden retriever"])
    score: float = Field(examples=[0.87])


class DecisionOut(Schema):
    """What the channel's policy made of the prediction, and the label and threshold that decided."""

    outcome: Outcome
    label: str | None = Field(examples=["nsfw"])
    threshold: float | None = Field(examples=[0.85])
    policy_version: str = Field(examples=["18608add0b55"])


class ImageOut(Schema):
    """The photo in numbers; width and height in pixels, seen upright."""

    format: str = Field(examples=["jpeg"])
    width: int = Field(examples=[4032])
    height: int = Field(examples=[3024])
    bytes: int = Field(examples=[2_600_000])
    sha256: str
    phash: str = Field(examples=["c3a1f07e3c1e0f87"])
    kept: Keep


class TimingOut(Schema):
    """Where the time went, in milliseconds."""

    queue_ms: float
    pixels_ms: float
    inference_ms: float
    total_ms: float


class FeedbackOut(Schema):
    """What a person said of a prediction."""

    id: str
    created_at: datetime
    prediction_id: str
    verdict: Verdict
    label: str | None
    comment: str | None


class PredictionOut(Schema):
    """One answered photo."""

    id: str = Field(examples=["01k9hzv3m5x4q8d0j7w2r6t9ab"])
    created_at: datetime
    channel: str = Field(examples=["look"])
    model: ModelOut
    labels: list[LabelOut]
    decision: DecisionOut
    image: ImageOut
    timing: TimingOut


class RecordOut(PredictionOut):
    """A stored prediction with what people said of it."""

    feedback: list[FeedbackOut]


class RecordPageOut(Schema):
    """A page, newest first; `older` and `newer` are values for `before` and `after`."""

    items: list[RecordOut]
    older: str | None
    newer: str | None


class PhotoIn(Schema):
    """A photo as JSON."""

    image: str = Field(description="The photo as base64; a `data:` URL is fine too.")


class FeedbackIn(Schema):
    """What is said of a prediction. All but its id may be left out: that means just `wrong`."""

    prediction_id: str = Field(max_length=64, examples=["01k9hzv3m5x4q8d0j7w2r6t9ab"])
    verdict: Verdict = Verdict.WRONG
    label: str | None = Field(default=None, description="What it really is.", examples=["golden retriever"])
    comment: str | None = Field(default=None, examples=["A dog, not a bear."])


class HealthOut(Schema):
    """Whether the process can answer, with a sentence for every part that is not well."""

    status: str = Field(examples=["ready"])
    parts: dict[str, str] = Field(examples=[{"engine": "ok", "database": "ok", "storage": "ok"}])


class ServedModelOut(Schema):
    """An installed bundle, and how it is served."""

    name: str
    version: str
    title: str
    task: str
    licence: str
    labels: int
    served: bool
    channels: list[str]
    provider: str | None = Field(examples=["cpu"])
    batching: str | None = Field(examples=["single calls on 2 threads"])
    digest: str


class ProblemOut(BaseModel):
    """An error (RFC 9457). `code` is stable; `detail` is a sentence for people."""

    type: str = Field(examples=["urn:shoplens:error:image_too_large"])
    title: str = Field(examples=["Content Too Large"])
    status: int = Field(examples=[413])
    detail: str
    code: str = Field(examples=["image_too_large"])
    request_id: str | None
    retry_after_s: float | None = None


def prediction_json(record: PredictionRecord, *, top_k: int) -> dict[str, Any]:
    """A PredictionOut as plain values: built by hand, because this is the hot path."""
    decision, image, timing = record.decision, record.image, record.timing
    return {
        "id": record.id,
        "created_at": record.created_at,
        "channel": record.channel,
        "model": {"name": record.model.name, "version": record.model.version},
        "labels": [{"label": each.label, "score": each.score} for each in record.labels[:top_k]],
        "decision": {
            "outcome": decision.outcome.value,
            "label": decision.label,
            "threshold": decision.threshold,
            "policy_version": decision.policy_version,
        },
        "image": {
            "format": image.format,
            "width": image.width,
            "height": image.height,
            "bytes": image.byte_count,
            "sha256": image.sha256,
            "phash": image.phash,
            "kept": record.keep.value,
        },
        "timing": {
            "queue_ms": timing.queue_ms,
            "pixels_ms": timing.pixels_ms,
            "inference_ms": timing.inference_ms,
            "total_ms": timing.total_ms,
        },
    }


def feedback_json(feedback: Feedback) -> dict[str, Any]:
    """A FeedbackOut as plain values."""
    return {
        "id": feedback.id,
        "created_at": feedback.created_at,
        "prediction_id": feedback.prediction_id,
        "verdict": feedback.verdict.value,
        "label": feedback.label,
        "comment": feedback.comment,
    }


def record_json(record: PredictionRecord, feedback: list[Feedback]) -> dict[str, Any]:
    """A RecordOut as plain values, with every stored label."""
    return {
        **prediction_json(record, top_k=len(record.labels)),
        "feedback": [feedback_json(each) for each in feedback],
    }
