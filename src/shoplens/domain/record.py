"""What is remembered of one answered request, and what people said of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from shoplens.domain.channel import Keep
from shoplens.domain.policy import Decision, Outcome
from shoplens.domain.prediction import LabelScore, ModelRef


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """A photo in numbers. `width` and `height` are in pixels, as seen upright; hashes are lower-case hex."""

    format: str
    width: int
    height: int
    byte_count: int
    sha256: str
    phash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where the time of one request went, in milliseconds."""

    queue_ms: float
    pixels_ms: float
    inference_ms: float
    total_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRecord:
    """One row: `id` sorts by time; `image_key` is where the kept photo lies, None when nothing is kept."""

    id: str
    created_at: datetime
    channel: str
    model: ModelRef
    labels: tuple[LabelScore, ...]
    decision: Decision
    image: ImageFacts
    keep: Keep
    image_key: str | None
    timing: Timing


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFilter:
    """Which records are asked for; None means any. `label` is the best label; times are UTC, `until` exclusive."""

    channel: str | None = None
    label: str | None = None
    outcome: Outcome | None = None
    since: datetime | None = None
    until: datetime | None = None


class Verdict(StrEnum):
    """What a person said of a prediction."""

    WRONG = "wrong"
    RIGHT = "right"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One remark of a person on one prediction; `label` is what it really is, where they said so."""

    id: str
    created_at: datetime
    prediction_id: str
    verdict: Verdict
    label: str | None = None
    comment: str | None = None
