"""A shopper's photo and its way from intake to a decision, and what people do with it. Values only."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Final

from shoplens.images.picture import ImageFacts

POLICY: Final = "policy"
"""`decided_by` of a photo that no person decided."""


class PhotoState(StrEnum):
    """Whether the public sees a photo. Only `published` ones are shown."""

    HELD = "held"
    PUBLISHED = "published"
    REFUSED = "refused"


class QueueReason(StrEnum):
    """Why a photo waits for a person."""

    HELD = "held"
    REPORTED = "reported"
    APPEAL = "appeal"
    SECOND_OPINION = "second_opinion"
    ESCALATED = "escalated"
    CHECK = "check"
    """Chance chose an automatic decision for a person to repeat, who does not see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One fact about a photo as a score between 0 and 1; the higher, the more it speaks against showing the photo.

    `version` names what computed it (`opennsfw@1`, `quality@1`); `detail` is for people ("distance 3 to photo …").
    """

    name: str
    score: float
    version: str
    detail: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What the shop calls things; opaque to Shoplens."""

    customer: str | None = None
    product: str | None = None
    order: str | None = None
    review: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModerationPhoto:
    """One shopper's photo.

    `image_key` is the folder of its files in the store, None once they are deleted. `rule` says in a sentence what
    decided, `reason` is a code of the shop's list of reasons. `queue` is why it waits for a person, None if it does
    not; `queue_rank` orders the queue (lowest first, then oldest). `claimed_by` looks at it until `claimed_until`.
    `revision` counts its changes. `fingerprint` finds copies of it (`images/fingerprint.py`).
    """

    id: str
    created_at: datetime
    channel: str
    intake_id: str
    position: int
    ref: References
    state: PhotoState
    image: ImageFacts
    image_key: str | None
    signals: tuple[Signal, ...]
    policy_version: str
    decided_by: str
    decided_at: datetime
    rule: str | None = None
    reason: str | None = None
    queue: QueueReason | None = None
    queue_rank: int = 0
    claimed_by: str | None = None
    claimed_until: datetime | None = None
    reports: int = 0
    revision: int = 0
    source_name: str | None = None
    files_deleted_at: datetime | None = None
    fingerprint: bytes | None = None


class DecisionKind(StrEnum):
    """What made a decision."""

    POLICY = "policy"
    PERSON = "person"
    SECOND_OPINION = "second_opinion"
    APPEAL = "appeal"
    REPORT = "report"
    ESCALATION = "escalation"
    UNDO = "undo"


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoDecision:
    """One entry of a photo's history, which only grows. `undone_at` is set when a person took it back.

    `revision` is that of the photo after it. `check_share` is set for what the policy published or refused while random
    checks were made: the chance with which a person got to check it; `check_drawn` says whether one did.
    """

    id: str
    at: datetime
    photo_id: str
    revision: int
    channel: str
    kind: DecisionKind
    by_id: str
    by_name: str
    from_state: PhotoState | None
    to_state: PhotoState
    policy_version: str
    rule: str | None = None
    reason: str | None = None
    comment: str | None = None
    undone_at: datetime | None = None
    check_share: float | None = None
    check_drawn: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusablePhoto:
    """A photo of a request that could not be decoded; nothing else is kept of it. `code` is that of the error."""

    position: int
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """One request with one to ten photos. `caller` is the id of the principal; a repeated key of it is a replay."""

    id: str
    created_at: datetime
    channel: str
    caller: str
    idempotency_key: str | None
    body_digest: str
    unusable: tuple[UnusablePhoto, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A shopper says that a published photo should not be shown."""

    id: str
    at: datetime
    photo_id: str
    reason: str | None
    resolved_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Appeal:
    """The shopper disagrees with a refusal. There is one per photo; another person than the first decides it."""

    id: str
    at: datetime
    photo_id: str
    message: str
    decided_at: datetime | None = None
    decided_by: str | None = None
    outcome: PhotoState | None = None
    answer: str | None = None


class HashVerdict(StrEnum):
    """What the memory of hashes knows of a picture."""

    REFUSED = "refused"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One version of a channel's policy as TOML. The newest one applies; taking one back adds a new version."""

    id: str
    channel: str
    version: int
    digest: str
    source: str
    created_at: datetime
    created_by: str
    note: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Erasure:
    """The receipt of an erased customer. The reference itself is not kept, only its SHA-256.

    The numbers are of what was removed: photos, hashes by which copies were found, files of the store, events of
    webhooks, and label sets that were written again without the photos. `finished_at` is None while something is left.
    """

    id: str
    at: datetime
    customer_digest: str
    photos: int = 0
    hashes: int = 0
    files: int = 0
    events: int = 0
    label_sets: int = 0
    by: str
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviousState:
    """What a decision changes of a photo, as it was before, so that it can be restored."""

    state: PhotoState
    policy_version: str
    decided_by: str
    decided_at: datetime
    rule: str | None
    reason: str | None
    queue: QueueReason | None
    queue_rank: int
    reports: int

    @classmethod
    def of(cls, photo: ModerationPhoto) -> PreviousState:
        """That of a photo now."""
        return cls(**{each.name: getattr(photo, each.name) for each in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True)
class HumanReview:
    """What is kept of a person's decision beside the history: enough to take it back, and to compare two opinions.

    `hard` says that the photo was one of those after which a pause is suggested. `first_by` and `agreed` are those of
    a second opinion: who decided first, and whether both decided the same.
    """

    decision_id: str
    hard: bool
    before: PreviousState
    first_by: str | None = None
    agreed: bool | None = None


class View(StrEnum):
    """How a moderator sees a photo before asking for more."""

    PLAIN = "plain"
    GREY = "grey"
    BLUR = "blur"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moderator:
    """What a moderator has chosen. `pause_after` counts hard photos within an hour; None: never suggest a pause.

    `letters` says whether single letters are keys of the page. `paused_at` is when they last had or declined a pause.
    """

    principal_id: str
    view: View = View.BLUR
    pause_after: int | None = 20
    letters: bool = True
    paused_at: datetime | None = None
