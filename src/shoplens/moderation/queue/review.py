"""People decide photos: accept, reject, escalate, a blind second opinion, and undo.

Nobody decides a photo twice: a decision names the revision of the photo that the person saw. Each change is one
transaction on the locked row, with its history, event and memory (`decisions.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from shoplens.accounts.entities import Permission, Principal
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import RequestInvalid, ShoplensError
from shoplens.messages import marked
from shoplens.moderation.consequences.repository import AppealRepository
from shoplens.moderation.decisions import NewDecision, record_decision
from shoplens.moderation.entities import (
    DecisionKind,
    HumanReview,
    ModerationPhoto,
    PhotoDecision,
    PhotoState,
    PreviousState,
    QueueReason,
)
from shoplens.moderation.errors import AnotherPersonDecides, NothingToUndo, PhotoChanged, PhotoClaimed
from shoplens.moderation.queue.repository import BY_PEOPLE, HumanReviewRepository, QueueRepository, ReportRepository
from shoplens.moderation.queue.service import CLAIM_S, QueueRules, queue_rank
from shoplens.moderation.reasons import find_reason
from shoplens.moderation.repository import DecisionRepository, PhotoRepository

MOST_UNDONE: Final = 20
MOST_AT_ONCE: Final = 100
MAX_COMMENT: Final = 1_000
ACCEPTED: Final = marked("a person found nothing against it")
_DONE: Final = {PhotoState.PUBLISHED: "accepted", PhotoState.REFUSED: "rejected", PhotoState.HELD: "held"}
_MEANWHILE: Final = {
    PhotoState.PUBLISHED: marked("accepted this photo"),
    PhotoState.REFUSED: marked("rejected this photo"),
    PhotoState.HELD: marked("held this photo"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a person says of a photo: `state` is PUBLISHED, or REFUSED with the code of a reason.

    `comment` is for colleagues, `answer` for the shopper who appealed.
    """

    state: PhotoState
    reason: str | None = None
    comment: str | None = None
    answer: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one photo of a selection: the photo as it is now, or what is in the way."""

    photo_id: str
    photo: ModerationPhoto | None = None
    error: ShoplensError | None = None


class PhotoReview:
    """All methods block, commit before they return, and may be called from many threads and processes."""

    def __init__(self, database: Database, *, rules: Mapping[str, QueueRules], clock: Callable[[], datetime]) -> None:
        self._database = database
        self._rules = rules
        self._clock = clock

    def decide(self, photo_id: str, choice: Choice, *, by: Principal, seen: int | None) -> ModerationPhoto:
        """Publish or refuse a photo. `seen` is the revision that the person saw; None only for one that waits.

        The same decision with the same `seen` again changes nothing and returns the photo, so that a lost answer can be
        asked for again. Raises PhotoNotFound, PhotoChanged with who decided and when, PhotoClaimed, RequestInvalid for
        an unknown reason, and AnotherPersonDecides.
        """
        comment, answer = _comment(choice.comment), _comment(choice.answer)
        now = self._clock()
        with self._database.transaction() as tx:
            photo = PhotoRepository(tx).get(photo_id, lock=True)
            rules = self._rules.get(photo.channel, QueueRules())
            if _is_repeated(tx, photo, choice, by=by, seen=seen):
                return photo
            _require_free(tx, photo, rules, by=by, seen=seen, now=now)
            reason = find_reason(rules.reasons, choice.reason) if choice.state is PhotoState.REFUSED else None
            choice = replace(choice, reason=reason.code if reason else None, comment=comment)
            rule = ACCEPTED if reason is None else marked(f"a person refused it: {reason.title}")
            if photo.queue is QueueReason.SECOND_OPINION:
                return self._second_opinion(tx, photo, choice, by=by, now=now)
            appealed = ReportRepository(tx).appeal(photo_id) is not None
            wants_second = not appealed and photo.queue in (QueueReason.HELD, QueueReason.REPORTED)
            wants_second = wants_second and is_drawn(photo_id, rules.second_opinion_share)
            changed = record_decision(
                tx,
                replace(photo, reports=0),
                NewDecision(
                    to_state=choice.state,
                    kind=DecisionKind.APPEAL if appealed else DecisionKind.PERSON,
                    by=by,
                    now=now,
                    rule=rule,
                    reason=choice.reason,
                    comment=choice.comment,
                    answer=answer,
                    queue=QueueReason.SECOND_OPINION if wants_second else None,
                    queue_rank=queue_rank(QueueReason.SECOND_OPINION) if wants_second else 0,
                ),
            )
            ReportRepository(tx).settle(photo_id, now=now)
            self._judge(tx, photo, by=by)
            return changed

    def decide_many(self, seen: Mapping[str, int], choice: Choice, *, by: Principal) -> list[Outcome]:
        """The same decision for a selection, ids with the revisions that the person saw: one transaction per photo.

        One outcome per photo, in order. Raises RequestInvalid for more than `MOST_AT_ONCE` photos.
        """
        if len(seen) > MOST_AT_ONCE:
            raise RequestInvalid(f"{len(seen)} photos are selected; decide at most {MOST_AT_ONCE} at once.")
        outcomes = []
        for photo_id, revision in seen.items():
            try:
                photo = self.decide(photo_id, choice, by=by, seen=revision)
                outcomes.append(Outcome(photo_id=photo_id, photo=photo))
            except ShoplensError as error:
                outcomes.append(Outcome(photo_id=photo_id, error=error))
        return outcomes

    def escalate(
        self, photo_id: str, *, by: Principal, comment: str | None = None, seen: int | None = None
    ) -> ModerationPhoto:
        """Leave the decision to another person or an admin. The state stays. Raises as `decide` does."""
        comment = _comment(comment)
        now = self._clock()
        with self._database.transaction() as tx:
            photo = PhotoRepository(tx).get(photo_id, lock=True)
            _require_free(tx, photo, self._rules.get(photo.channel, QueueRules()), by=by, seen=seen, now=now)
            escalated = replace(
                photo,
                queue=QueueReason.ESCALATED,
                queue_rank=queue_rank(QueueReason.ESCALATED),
                claimed_by=None,
                claimed_until=None,
            )
            changed = PhotoRepository(tx).update(escalated)
            decision = PhotoDecision(
                id=new_id(now),
                at=now,
                photo_id=photo.id,
                revision=changed.revision,
                channel=photo.channel,
                kind=DecisionKind.ESCALATION,
                by_id=by.id,
                by_name=by.name,
                from_state=photo.state,
                to_state=photo.state,
                policy_version=photo.policy_version,
                comment=comment,
            )
            DecisionRepository(tx).add(decision)
            self._judge(tx, photo, by=by)
            QueueRepository(tx, by).skip(photo_id, now=now)
            return changed

    def undo(self, photo_id: str | None, *, by: Principal) -> ModerationPhoto:
        """Take back one of this person's last `MOST_UNDONE` decisions, without an id the last one.

        The photo is as before, and this person looks at it if it waits. Raises NothingToUndo, PhotoChanged if somebody
        decided since, and AnotherPersonDecides if the shopper has appealed since.
        """
        now = self._clock()
        with self._database.transaction() as tx:
            newest = HumanReviewRepository(tx).newest(by.id, limit=MOST_UNDONE)
            found = next((each for each in newest if photo_id in (None, each[0].photo_id)), None)
            if found is None:
                raise NothingToUndo(
                    f"You decided nothing among your last {MOST_UNDONE} decisions."
                    if photo_id is None
                    else f"You did not decide this photo among your last {MOST_UNDONE} decisions."
                )
            decision, human_review = found
            photo = PhotoRepository(tx).get(decision.photo_id, lock=True)
            latest = _latest(tx, photo.id)
            if latest is None or latest.id != decision.id:
                raise _changed(latest)
            if photo.queue is QueueReason.APPEAL:  # taken back, the refusal would no longer keep its author away
                raise AnotherPersonDecides("The shopper has appealed since; now another person decides.")
            DecisionRepository(tx).mark_undone(decision.id, now=now)
            return self._restored(tx, photo, decision, human_review.before, by=by, now=now)

    def _restored(
        self,
        tx: Connection,
        photo: ModerationPhoto,
        decision: PhotoDecision,
        before: PreviousState,
        *,
        by: Principal,
        now: datetime,
    ) -> ModerationPhoto:
        changed = record_decision(
            tx,
            replace(photo, reports=before.reports + photo.reports),
            NewDecision(
                to_state=before.state,
                kind=DecisionKind.UNDO,
                by=by,
                now=now,
                policy_version=before.policy_version,
                rule=before.rule,
                reason=before.reason,
                queue=before.queue,
                queue_rank=before.queue_rank,
            ),
        )
        ReportRepository(tx).reopen(photo.id, settled_at=decision.at)
        AppealRepository(tx).reopen(photo.id, decided_at=decision.at)
        waits = before.queue is not None
        changed = replace(
            changed,
            decided_by=before.decided_by,
            decided_at=before.decided_at,
            claimed_by=by.id if waits else None,
            claimed_until=now + timedelta(seconds=CLAIM_S) if waits else None,
        )
        return PhotoRepository(tx).update(changed)

    def _second_opinion(
        self, tx: Connection, photo: ModerationPhoto, choice: Choice, *, by: Principal, now: datetime
    ) -> ModerationPhoto:
        """Both agree: the first decision stands. They differ: the photo is hidden until another person decides."""
        agreed = choice.state is photo.state
        changed = record_decision(
            tx,
            photo,
            NewDecision(
                to_state=photo.state if agreed or photo.state is PhotoState.REFUSED else PhotoState.HELD,
                kind=DecisionKind.SECOND_OPINION,
                by=by,
                now=now,
                rule=photo.rule if agreed else "Two people decided differently.",
                reason=photo.reason,
                comment=choice.comment if agreed else f"{_DONE[choice.state]} {choice.reason or ''}".strip(),
                queue=None if agreed else QueueReason.ESCALATED,
                queue_rank=0 if agreed else queue_rank(QueueReason.ESCALATED),
            ),
        )
        self._judge(tx, photo, by=by, agreed=agreed)
        return changed

    def _judge(self, tx: Connection, photo: ModerationPhoto, *, by: Principal, agreed: bool | None = None) -> None:
        decision = _latest(tx, photo.id)
        assert decision is not None
        human_review = HumanReview(
            decision_id=decision.id,
            hard=self._rules.get(photo.channel, QueueRules()).is_hard(photo),
            before=PreviousState.of(photo),
            first_by=None if agreed is None else photo.decided_by,
            agreed=agreed,
        )
        HumanReviewRepository(tx).add(human_review)


def is_drawn(photo_id: str, share: float) -> bool:
    """Whether a photo is among the `share` (0 to 1) that get a second opinion: the same answer on every machine."""
    number = int.from_bytes(hashlib.sha256(photo_id.encode()).digest()[:8])
    return number < share * 2**64


def _require_free(
    tx: Connection, photo: ModerationPhoto, rules: QueueRules, *, by: Principal, seen: int | None, now: datetime
) -> None:
    """Raises PhotoChanged, PhotoClaimed and AnotherPersonDecides."""
    if (photo.queue is None) if seen is None else (photo.revision != seen):
        raise _changed(_latest(tx, photo.id))
    is_claimed = photo.claimed_until is not None and photo.claimed_until > now
    if is_claimed and photo.claimed_by != by.id:
        raise PhotoClaimed(f"Somebody else looks at this photo until {photo.claimed_until:%H:%M:%S} UTC.")
    is_admin_on_escalated = photo.queue is QueueReason.ESCALATED and by.may(Permission.MODERATION_ADMIN)
    own_appeals = rules.appeals_by_same_person
    if not is_admin_on_escalated and not QueueRepository(tx, by, own_appeals=own_appeals).may_decide(photo.id):
        setting = f"channels.{photo.channel}.moderation.appeals_by_same_person"
        alone = (
            marked(f" If there is no other, set {setting}: then an admin may.")
            if photo.queue is QueueReason.APPEAL
            else ""
        )
        raise AnotherPersonDecides(f"You have decided on this photo before; now another person decides.{alone}")


def _is_repeated(tx: Connection, photo: ModerationPhoto, choice: Choice, *, by: Principal, seen: int | None) -> bool:
    if seen is None or photo.revision != seen + 1:
        return False
    latest = _latest(tx, photo.id)
    return (
        latest is not None
        and latest.revision == photo.revision  # else something else changed it, such as a report
        and latest.by_id == by.id
        and latest.kind in BY_PEOPLE
        and latest.to_state is choice.state
        and (choice.state is PhotoState.PUBLISHED or latest.reason == choice.reason)
    )


def _latest(tx: Connection, photo_id: str) -> PhotoDecision | None:
    """The last entry of the history that stands."""
    standing = [
        each for each in DecisionRepository(tx).of(photo_id)
        if each.undone_at is None and each.kind is not DecisionKind.UNDO
    ]  # fmt: skip
    return max(standing, key=lambda each: (each.at, each.id)) if standing else None


def _changed(latest: PhotoDecision | None) -> PhotoChanged:
    if latest is None or latest.kind is DecisionKind.POLICY:
        return PhotoChanged("The photo was changed since you saw it. Look at it again.")
    is_escalated = latest.kind is DecisionKind.ESCALATION
    words = marked("escalated this photo") if is_escalated else _MEANWHILE[latest.to_state]
    return PhotoChanged(f"{latest.by_name} {words} at {latest.at:%Y-%m-%d %H:%M:%S} UTC.")


def _comment(text: str | None) -> str | None:
    cleaned = (text or "").replace("\x00", "").strip()
    if len(cleaned) > MAX_COMMENT:
        raise RequestInvalid(f"The comment has {len(cleaned)} characters; at most {MAX_COMMENT} are kept.")
    return cleaned or None
