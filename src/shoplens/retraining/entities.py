"""One retraining of a channel's model, from the labels of people to the answer whether it goes live. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal, TypeAlias

from shoplens.retraining.gate import GateRules

Promote: TypeAlias = Literal["at_once", "after_shadow", "after_approval"]


class RetrainingState(StrEnum):
    """How far a retraining is."""

    RUNNING = "running"
    """A process works on it, or worked on it and was interrupted."""
    SHADOWING = "shadowing"
    """It passed the gate and is the challenger for a while."""
    WAITING = "waiting"
    """It passed the gate, is the challenger, and waits for a person's yes."""
    PROMOTED = "promoted"
    """Its model became champion."""
    REFUSED = "refused"
    """The gate refused its model."""
    REJECTED = "rejected"
    """A person refused its model, or another model replaced the one that it was compared with."""
    MEASURED = "measured"
    """A dry run: its model was measured and thrown away."""
    FAILED = "failed"


class Stage(StrEnum):
    """What a running retraining does; each stage can be repeated."""

    LABELS = "labels"
    DATA = "data"
    TRAINING = "training"
    JUDGING = "judging"
    PUBLISHING = "publishing"
    DONE = "done"


CANCELLED: Final = "cancelled"
"""The failure code of a run that a person ended."""
OPEN: Final = (RetrainingState.SHADOWING, RetrainingState.WAITING)
"""States in which the model is the challenger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingRun:
    """One retraining. `model` is the name of the model, `candidate` the version that is made.

    `champion` is the model that answers now (`name@version`), None if there is none; the gate compares with it.
    `label_set` and `test_set` are versions. `owner`, `host`, `pid` and `process` name the process that works on it and
    raises `heartbeat`; they are None before there is one. `passed` is the gate's result, None before it.
    """

    id: str
    created_at: datetime
    channel: str
    model: str
    requested_by: str
    recipe: str
    base: str | None
    test: str | None
    promote: Promote
    dry_run: bool
    state: RetrainingState
    stage: Stage
    candidate: str
    champion: str | None = None
    label_set: int | None = None
    label_digest: str | None = None
    labels: int | None = None
    test_set: int | None = None
    test_digest: str | None = None
    test_samples: int | None = None
    passed: bool | None = None
    accuracy_before: float | None = None
    accuracy: float | None = None
    report_key: str | None = None
    tracked_as: str | None = None
    owner: str | None = None
    host: str | None = None
    pid: int | None = None
    process: str | None = None
    heartbeat: int = 0
    heartbeat_at: datetime | None = None
    finished_at: datetime | None = None
    failure_code: str | None = None
    failure: str | None = None
    decided_at: datetime | None = None
    decided_by: str | None = None
    decided_why: str | None = None

    @property
    def ref(self) -> str:
        """`name@version` of the new model."""
        return f"{self.model}@{self.candidate}"

    @property
    def active(self) -> bool:
        """Whether it is not over; it may wait for a process."""
        return self.state is RetrainingState.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowRules:
    """What a shadow time asks for: how long it is, how often the challenger was asked at least, the highest share that
    it could not answer, the least share on which it agrees with the champion, and the confidence of the comparison by
    people's labels.
    """

    hours: float = 72.0
    least_answers: int = 100
    most_failures: float = 0.01
    least_agreement: float = 0.6
    confidence: float = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainingRules:
    """How a channel's model is retrained: the settings of the channel as values."""

    channel: str
    model: str
    recipe: str
    base: str | None
    test: str | None
    promote: Promote
    shadow: ShadowRules
    test_share: float
    new_class_samples: int
    gate: GateRules
    sign_with: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A label that is probably wrong. `score` is the probability of `suggested` less that of `label`.

    `sample_id` and `source` name the sample as label sets do; the source of base data is `base`. `outcome` is
    what a person said of it: `kept`, `changed`, or None as long as nobody did.
    """

    id: str
    run_id: str
    channel: str
    rank: int
    source: str
    sample_id: str
    label: str
    suggested: str
    score: float
    image_key: str | None
    image_sha256: str
    text: str | None = None
    outcome: str | None = None
    decided_at: datetime | None = None
    decided_by: str | None = None
