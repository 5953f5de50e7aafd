"""The one place in which a photo's state changes: the row, its history, the event and the memory of its hash together.

Everything is written in the caller's transaction: a state without a decision, or the other way round, cannot be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection

from shoplens.accounts.entities import Principal, PrincipalKind
from shoplens.db.tables import new_id
from shoplens.moderation.consequences.repository import AppealRepository
from shoplens.moderation.entities import (
    POLICY,
    DecisionKind,
    ModerationPhoto,
    PhotoDecision,
    PhotoState,
    QueueReason,
)
from shoplens.moderation.intake.memory import remember
from shoplens.moderation.repository import DecisionRepository, PhotoRepository
from shoplens.webhooks.outbox import emit

WIDTHS: Final = (160, 320, 640, 1280)
"""How wide the public copies of a photo are, in pixels."""


def media_paths(photo_id: str) -> list[str]:
    """Every address under which the public may have seen a photo; a CDN purges them after a refusal."""
    return [f"/media/{photo_id}", *(f"/media/{photo_id}?w={width}" for width in WIDTHS)]


def add_decided(tx: Connection, photos: Sequence[ModerationPhoto], *, by: Principal, audit_share: float = 0.0) -> None:
    """Store new photos, each with the decision that it already carries. `audit_share` is that of random checks."""
    PhotoRepository(tx).add_many(photos)
    for photo in photos:
        _note(tx, photo, first_decision(photo, by=by, audit_share=audit_share), by=by)


def first_decision(photo: ModerationPhoto, *, by: Principal, audit_share: float = 0.0) -> PhotoDecision:
    """The entry of the history for what the policy decided on a new photo."""
    checks = audit_share > 0 and photo.state is not PhotoState.HELD
    return PhotoDecision(
        id=new_id(photo.decided_at),
        at=photo.decided_at,
        photo_id=photo.id,
        revision=photo.revision,
        channel=photo.channel,
        kind=DecisionKind.POLICY,
        by_id=by.id,
        by_name=by.name,
        from_state=None,
        to_state=photo.state,
        policy_version=photo.policy_version,
        rule=photo.rule,
        reason=photo.reason,
        check_share=audit_share if checks else None,
        check_drawn=photo.queue is QueueReason.CHECK if checks else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewDecision:
    """What is to be decided on a photo.

    `queue` says why the photo waits for a person after this; None takes it out of the queue. `policy_version` is that
    of the photo unless another policy decided. `answer` is for the shopper who appealed, `comment` for the team.
    """

    to_state: PhotoState
    kind: DecisionKind
    by: Principal
    now: datetime
    policy_version: str | None = None
    rule: str | None = None
    reason: str | None = None
    comment: str | None = None
    answer: str | None = None
    queue: QueueReason | None = None
    queue_rank: int = 0


def record_decision(tx: Connection, photo: ModerationPhoto, new: NewDecision) -> ModerationPhoto:
    """Give a stored photo another state (or the same one), and return it as it is now. Any claim on it ends.

    `photo` is the row as it was read: raises PhotoChanged if it was changed since.
    """
    changed = PhotoRepository(tx).update(
        replace(
            photo,
            state=new.to_state,
            policy_version=new.policy_version or photo.policy_version,
            decided_by=POLICY if new.kind is DecisionKind.POLICY else new.by.id,
            decided_at=new.now,
            rule=new.rule,
            reason=new.reason,
            queue=new.queue,
            queue_rank=new.queue_rank,
            claimed_by=None,
            claimed_until=None,
        )
    )
    decision = PhotoDecision(
        id=new_id(new.now),
        at=new.now,
        photo_id=photo.id,
        revision=changed.revision,
        channel=photo.channel,
        kind=new.kind,
        by_id=new.by.id,
        by_name=new.by.name,
        from_state=photo.state,
        to_state=new.to_state,
        policy_version=changed.policy_version,
        rule=new.rule,
        reason=new.reason,
        comment=new.comment,
    )
    _note(tx, changed, decision, by=new.by)
    if new.kind is DecisionKind.APPEAL:
        _settle_appeal(tx, changed, decision, answer=new.answer)
    return changed


def _note(tx: Connection, photo: ModerationPhoto, decision: PhotoDecision, *, by: Principal) -> None:
    DecisionRepository(tx).add(decision)
    by_person = by.kind is not PrincipalKind.SYSTEM and decision.kind is not DecisionKind.POLICY
    remember(tx, photo, decision.to_state, by_person=by_person, now=decision.at)
    if decision.from_state is not decision.to_state:
        emit(tx, f"photo.{photo.state.value}", _event_data(photo, decision), now=decision.at)


def _settle_appeal(tx: Connection, photo: ModerationPhoto, decision: PhotoDecision, *, answer: str | None) -> None:
    appeals = AppealRepository(tx)
    appeal = appeals.of(photo.id)
    if appeal is None:
        return
    decided = replace(
        appeal, decided_at=decision.at, decided_by=decision.by_id, outcome=photo.state, answer=answer or None
    )
    appeals.settle(decided)
    data = _event_data(photo, decision)
    emit(tx, "appeal.decided", {**data, "appeal": appeal.id, "answer": decided.answer}, now=decision.at)


def _event_data(photo: ModerationPhoto, decision: PhotoDecision) -> dict[str, Any]:
    """What a shop needs to act: never who decided, nor the scores."""
    return {
        "id": photo.id,
        "channel": photo.channel,
        "state": photo.state.value,
        "previous_state": None if decision.from_state is None else decision.from_state.value,
        "reason": photo.reason,
        "customer": photo.ref.customer,
        "product": photo.ref.product,
        "order": photo.ref.order,
        "review": photo.ref.review,
        "decided_at": decision.at.isoformat(),
        "decided_by": "policy" if photo.decided_by == POLICY else "person",
        "media": media_paths(photo.id),
    }
