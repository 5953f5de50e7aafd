"""The statement of reasons of a refused photo: what was decided, why, by what means, and what the shopper can do.

It has the content that article 17 of the Digital Services Act (EU 2022/2065) asks for. It names no member of staff, no
score and no other photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shoplens.moderation.entities import (
    Appeal,
    DecisionKind,
    ModerationPhoto,
    PhotoDecision,
    PhotoState,
    References,
)
from shoplens.moderation.errors import NotRefused
from shoplens.moderation.reasons import Reason

GENERAL: Final = "The photo does not follow our rules for reviews."
"""The reason for a shopper where no reason of the shop's list is known."""
REDRESS: Final = (
    "You can also turn to an out-of-court dispute settlement body that your country has certified, or to a court."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Why one photo is not shown.

    `reason` is a code of the shop's list and `ground` its sentence; both say nothing more than that where the policy
    decided by a signal that has no reason. `detected_automatically` and `decided_automatically` tell the means: a
    program found it, a program decided it. `appeal` is what the shopper has sent so far. `appeal_until` is when the
    photo itself is deleted, after which nobody can look at it again; None without such a date. `is_deleted`: it is
    deleted already.
    """

    photo_id: str
    ref: References
    sent_at: datetime
    decided_at: datetime
    reason: str | None
    ground: str
    detected_automatically: bool
    decided_automatically: bool
    policy_version: str
    appeal: Appeal | None
    appeal_until: datetime | None
    is_deleted: bool

    @property
    def can_appeal(self) -> bool:
        """Whether an appeal would be taken now."""
        return self.appeal is None and not self.is_deleted

    def text(self) -> str:
        """The statement for people, in plain text."""
        means = (
            "A program decided this without a person."
            if self.decided_automatically
            else "A person decided this after a program pointed at the photo."
            if self.detected_automatically
            else "A person decided this."
        )
        lines = [
            f"Your photo of {self.sent_at:%d %B %Y} is not shown",
            "",
            "What was decided: the photo is not published. Your review and your account stay as they are.",
            f"Why: {self.ground}",
            f"By what rule: our rules for photos in reviews{f' ({self.reason})' if self.reason else ''}.",
            f"By whom: {means}",
            f"When: {self.decided_at:%d %B %Y, %H:%M} UTC.",
            f"Number: {self.photo_id}",
            "",
            "What you can do:",
            self._appeal_text(),
            REDRESS,
        ]
        return "\n".join(lines) + "\n"

    def _appeal_text(self) -> str:
        if self.appeal is None and self.is_deleted:
            return "The photo was deleted meanwhile, so nobody can look at it again. You can send another one."
        if self.appeal is None:
            until = f" until {self.appeal_until:%d %B %Y}" if self.appeal_until else ""
            return f"Tell us{until} why you disagree. Another person than the first looks at the photo again."
        if self.appeal.decided_at is None:
            return f"You disagreed on {self.appeal.at:%d %B %Y}. A person will look at the photo again."
        answer = f" {self.appeal.answer}" if self.appeal.answer else ""
        return f"You disagreed, and a person decided on {self.appeal.decided_at:%d %B %Y} that it stays so.{answer}"


def statement_of(
    photo: ModerationPhoto,
    history: Sequence[PhotoDecision],
    appeal: Appeal | None,
    *,
    reasons: Sequence[Reason],
    kept_days: int | None,
) -> Statement:
    """The statement of a refused photo; `history` are its decisions, oldest first, `kept_days` how long it is kept.

    Raises NotRefused for every other photo.
    """
    if photo.state is not PhotoState.REFUSED:
        raise NotRefused(f"The photo {photo.id} is {photo.state.value}, so there is no statement of reasons.")
    standing = [each for each in history if each.undone_at is None and each.kind is not DecisionKind.UNDO]
    refusals = [each for each in standing if each.to_state is PhotoState.REFUSED]
    by_policy = bool(refusals) and refusals[-1].kind is DecisionKind.POLICY
    first = standing[0] if standing else None
    ground = next((each.sentence for each in reasons if each.code == photo.reason), GENERAL)
    return Statement(
        photo_id=photo.id,
        ref=photo.ref,
        sent_at=photo.created_at,
        decided_at=photo.decided_at,
        reason=photo.reason,
        ground=ground,
        detected_automatically=first is not None
        and first.kind is DecisionKind.POLICY
        and first.to_state is not PhotoState.PUBLISHED,
        decided_automatically=by_policy,
        policy_version=photo.policy_version,
        appeal=appeal,
        appeal_until=None if kept_days is None else photo.decided_at + timedelta(days=kept_days),
        is_deleted=photo.image_key is None,
    )
