"""Claims, skips, human reviews and moderators in the database, over a transaction that the caller opened.

Every method raises DatabaseUnavailable through that transaction.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, delete, func, insert, or_, select, update

from shoplens.accounts.entities import Permission, Principal
from shoplens.db.tables import from_row, make_id, to_row
from shoplens.moderation.entities import (
    DecisionKind,
    HumanReview,
    ModerationPhoto,
    Moderator,
    PhotoDecision,
    QueueReason,
)
from shoplens.moderation.tables import (
    moderation_appeals,
    moderation_decisions,
    moderation_human_reviews,
    moderation_moderators,
    moderation_photos,
    moderation_reports,
    moderation_skips,
)

OTHERS_DECIDE: Final = (QueueReason.ESCALATED, QueueReason.APPEAL, QueueReason.SECOND_OPINION)
"""These wait for another person than the one who decided."""
BY_PEOPLE: Final = (DecisionKind.PERSON, DecisionKind.SECOND_OPINION, DecisionKind.APPEAL)
MOST_COMPARED: Final = 1_000
"""The newest second opinions from which the agreement is computed."""

_photos: Final = moderation_photos.c
_decisions: Final = moderation_decisions.c
_human_reviews: Final = moderation_human_reviews.c
_skips: Final = moderation_skips.c


# Asked for after every decision. To put them together takes longer than to run them, so that is done once.


def _moments() -> Select[datetime, bool]:
    rows = select(_decisions.at, _human_reviews.hard).join(
        moderation_human_reviews, _human_reviews.decision_id == _decisions.id
    )  # fmt: skip
    mine = rows.where(
        _decisions.by_id == bindparam("me"), _decisions.id >= bindparam("since"), _decisions.undone_at.is_(None)
    )
    return mine.order_by(_decisions.id.desc()).limit(bindparam("most"))


def _agreement() -> Select[int, int]:
    compared = select(_human_reviews.agreed, _decisions.id).join(
        moderation_decisions, _human_reviews.decision_id == _decisions.id
    )
    compared = compared.where(_human_reviews.agreed.is_not(None), _decisions.undone_at.is_(None))
    mine = compared.where(_decisions.by_id == bindparam("me")).union_all(
        compared.where(_human_reviews.first_by == bindparam("me"))
    ).subquery()  # fmt: skip
    newest = select(mine.c.agreed).order_by(mine.c.id.desc()).limit(MOST_COMPARED).subquery()
    return select(func.count().filter(newest.c.agreed), func.count()).select_from(newest)


_MOMENTS: Final = _moments()
_AGREEMENT: Final = _agreement()


class QueueRepository:
    """Which waiting photos one principal may have, and who looks at which."""

    def __init__(self, tx: Connection, principal: Principal, *, own_appeals: bool = False) -> None:
        """With `own_appeals` an admin decides on appeals against their own refusals too."""
        self._tx = tx
        self._me = principal
        self._own_appeals = own_appeals and principal.may(Permission.MODERATION_ADMIN)

    def free(
        self, channel: str, *, limit: int, now: datetime, without: Collection[str] = (), lock: bool = False
    ) -> list[ModerationPhoto]:
        """At most `limit` photos for this person: lowest rank first, then oldest, then those that they skipped.

        With `lock` the rows are locked; those that another transaction has locked are left out.
        """
        if limit <= 0:
            return []
        skipped = select(_skips.photo_id).where(
            _skips.photo_id == _photos.id, _skips.principal_id == self._me.id
        ).exists()  # fmt: skip
        offered = self._offered(channel, now)
        if without:
            offered = and_(offered, _photos.id.not_in(list(without)))
        first = select(moderation_photos).where(offered, ~skipped).order_by(_photos.queue_rank, _photos.id)
        photos = self._read(first.limit(limit), lock=lock)
        if len(photos) < limit:
            last = select(moderation_photos).join(moderation_skips, _skips.photo_id == _photos.id)
            last = last.where(offered, _skips.principal_id == self._me.id).order_by(_skips.at, _photos.id)
            photos += self._read(last.limit(limit - len(photos)), lock=lock)
        return photos

    def may_decide(self, photo_id: str) -> bool:
        """Whether the rule that another person decides lets this one decide the photo."""
        found = select(_photos.id).where(_photos.id == photo_id, ~self._is_for_others())
        return self._tx.execute(found).first() is not None

    def claim(self, photo_ids: Collection[str], *, now: datetime, until: datetime) -> set[str]:
        """Claim or renew those of these photos that wait and that nobody else looks at; which ones that are."""
        if not photo_ids:
            return set()
        ids = sorted(set(photo_ids))
        mine = or_(_photos.claimed_by.is_(None), _photos.claimed_by == self._me.id, _photos.claimed_until <= now)
        claimed = update(moderation_photos).where(_photos.id.in_(ids), _photos.queue.is_not(None), mine)
        self._tx.execute(claimed.values(claimed_by=self._me.id, claimed_until=until))
        held = select(_photos.id).where(_photos.id.in_(ids), _photos.claimed_by == self._me.id)
        return set(self._tx.scalars(held.where(_photos.claimed_until == until)))

    def release(self, photo_ids: Collection[str]) -> None:
        """Let others have these photos."""
        if photo_ids:
            theirs = (_photos.id.in_(list(photo_ids)), _photos.claimed_by == self._me.id)
            self._tx.execute(update(moderation_photos).where(*theirs).values(claimed_by=None, claimed_until=None))

    def skip(self, photo_id: str, *, now: datetime) -> None:
        """Put a photo at the end of this person's queue."""
        mine = (_skips.photo_id == photo_id, _skips.principal_id == self._me.id)
        self._tx.execute(delete(moderation_skips).where(*mine))
        row = {"photo_id": photo_id, "principal_id": self._me.id, "at": now}
        self._tx.execute(insert(moderation_skips), row)

    def with_others(self, channel: str, *, now: datetime, most: int) -> int:
        """How many waiting photos somebody else looks at now, counted up to `most`."""
        # A count of its own, within an index: the rows of thousands that wait lie all over the table.
        others = (_photos.claimed_until > now, _photos.claimed_by != self._me.id)
        found = select(_photos.id).where(_photos.channel == channel, _photos.queue.is_not(None), *others)
        return self._tx.scalar(select(func.count()).select_from(found.limit(most).subquery())) or 0

    def _offered(self, channel: str, now: datetime) -> ColumnElement[bool]:
        unclaimed = or_(_photos.claimed_by.is_(None), _photos.claimed_by == self._me.id, _photos.claimed_until <= now)
        return and_(_photos.channel == channel, _photos.queue.is_not(None), unclaimed, ~self._is_for_others())

    def _is_for_others(self) -> ColumnElement[bool]:
        """Whether this person decided, or without being an admin escalated, a photo that waits for another one."""
        kinds = list(BY_PEOPLE)
        if not self._me.may(Permission.MODERATION_ADMIN):
            kinds.append(DecisionKind.ESCALATION)
        decided = select(_decisions.id).where(
            _decisions.photo_id == _photos.id,
            _decisions.by_id == self._me.id,
            _decisions.kind.in_([kind.value for kind in kinds]),
            _decisions.undone_at.is_(None),
        )
        others = [reason for reason in OTHERS_DECIDE if not (self._own_appeals and reason is QueueReason.APPEAL)]
        return and_(_photos.queue.in_([reason.value for reason in others]), decided.exists())

    def _read(self, found: Select[Any], *, lock: bool) -> list[ModerationPhoto]:
        if lock:
            found = found.with_for_update(skip_locked=True, of=moderation_photos)
        return [from_row(ModerationPhoto, row) for row in self._tx.execute(found)]


class HumanReviewRepository:
    """The table `moderation_human_reviews` with the decisions that they belong to."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, human_review: HumanReview) -> None:
        """For a decision that was added before."""
        self._tx.execute(insert(moderation_human_reviews), to_row(human_review))

    def newest(self, principal_id: str, *, limit: int) -> list[tuple[PhotoDecision, HumanReview]]:
        """What a person decided and did not take back, newest first."""
        both = select(moderation_decisions, moderation_human_reviews).join(
            moderation_human_reviews, _human_reviews.decision_id == _decisions.id
        )
        mine = both.where(_decisions.by_id == principal_id, _decisions.undone_at.is_(None))
        rows = self._tx.execute(mine.order_by(_decisions.id.desc()).limit(limit))
        return [(from_row(PhotoDecision, row), from_row(HumanReview, row)) for row in rows]

    def moments(self, principal_id: str, *, since: datetime, limit: int) -> list[tuple[datetime, bool]]:
        """When a person decided and whether the photo was a hard one, newest first; without what was taken back."""
        rows = self._tx.execute(_MOMENTS, {"me": principal_id, "since": first_id(since), "most": limit})
        return [(at, hard) for at, hard in rows]

    def agreement(self, principal_id: str) -> tuple[int, int]:
        """Of the newest second opinions with this person on either side: how many agreed, and how many there are."""
        agreed, total = self._tx.execute(_AGREEMENT, {"me": principal_id}).one()
        return agreed, total


class ModeratorRepository:
    """The table `moderation_moderators`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def get(self, principal_id: str) -> Moderator | None:
        """What this person has chosen; None if nothing yet."""
        found = select(moderation_moderators).where(moderation_moderators.c.principal_id == principal_id)
        row = self._tx.execute(found).one_or_none()
        return None if row is None else from_row(Moderator, row)

    def put(self, moderator: Moderator) -> None:
        """Add or replace."""
        row = to_row(moderator)
        own = update(moderation_moderators).where(moderation_moderators.c.principal_id == moderator.principal_id)
        if self._tx.execute(own.values(row)).rowcount == 0:
            self._tx.execute(insert(moderation_moderators), row)


class ReportRepository:
    """The tables `moderation_reports` and `moderation_appeals`, as far as a decision settles them."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, *, report_id: str, photo_id: str, reason: str | None, now: datetime) -> None:
        """A shopper's report."""
        row = {"id": report_id, "at": now, "photo_id": photo_id, "reason": reason}
        self._tx.execute(insert(moderation_reports), row)

    def open(self, photo_id: str, *, limit: int) -> Sequence[str | None]:
        """The words of the newest reports that no decision answered yet."""
        columns = moderation_reports.c
        found = select(columns.reason).where(columns.photo_id == photo_id, columns.resolved_at.is_(None))
        return self._tx.scalars(found.order_by(columns.id.desc()).limit(limit)).all()

    def settle(self, photo_id: str, *, now: datetime) -> None:
        """A person decided: the reports until now are answered."""
        columns = moderation_reports.c
        waiting = (columns.photo_id == photo_id, columns.resolved_at.is_(None))
        self._tx.execute(update(moderation_reports).where(*waiting).values(resolved_at=now))

    def reopen(self, photo_id: str, *, settled_at: datetime) -> None:
        """The decision of that moment was taken back."""
        columns = moderation_reports.c
        answered = (columns.photo_id == photo_id, columns.resolved_at == settled_at)
        self._tx.execute(update(moderation_reports).where(*answered).values(resolved_at=None))

    def appeal(self, photo_id: str) -> str | None:
        """The message of the shopper's appeal that nobody decided on yet; None if there is none."""
        columns = moderation_appeals.c
        found = select(columns.message).where(columns.photo_id == photo_id, columns.decided_at.is_(None))
        return self._tx.execute(found).scalar_one_or_none()


def first_id(moment: datetime) -> str:
    """The least id of the millisecond of `moment`: ids begin with their time."""
    return make_id(max(0, int(moment.astimezone(UTC).timestamp() * 1000)), bytes(10))
