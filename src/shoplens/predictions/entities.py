"""What is remembered of one answered request, and what people said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from shoplens.bundles.manifest import ModelRef
from shoplens.images.picture import ImageFacts
from shoplens.predictions.policy import Decision, Outcome, Policy
from shoplens.serving.prediction import LabelScore


class Keep(StrEnum):
    """What is stored of a photo."""

    ORIGINAL = "original"
    THUMBNAIL = "thumbnail"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """Three facts from the settings, and a name."""

    name: str
    model: str
    policy: Policy = field(default_factory=Policy)
    keep: Keep = Keep.THUMBNAIL


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
