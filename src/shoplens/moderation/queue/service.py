"""The queue of photos that wait for a person: who gets which, for how long, and how the work goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from shoplens.accounts.entities import SYSTEM, Principal
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import RequestInvalid
from shoplens.moderation.decisions import NewDecision, record_decision
from shoplens.moderation.entities import (
    DecisionKind,
    ModerationPhoto,
    Moderator,
    PhotoDecision,
    PhotoState,
    QueueReason,
)
from shoplens.moderation.errors import PhotoNotFound
from shoplens.moderation.queue.repository import (
    HumanReviewRepository,
    ModeratorRepository,
    QueueRepository,
    ReportRepository,
)
from shoplens.moderation.reasons import DEFAULT_REASONS, Reason
from shoplens.moderation.repository import MOST_COUNTED, PhotoRepository

CLAIM_S: Final = 120.0
"""How long a claim lasts. The page renews it while the photo is on it."""
MOST_CLAIMED: Final = 60
MAX_REPORT: Final = 500

_RANKS: Final = {
    QueueReason.ESCALATED: -100,
    QueueReason.REPORTED: -50,
    QueueReason.APPEAL: -20,
    QueueReason.HELD: 0,
    QueueReason.SECOND_OPINION: 50,
    QueueReason.CHECK: 50,
}
BLIND: Final = (QueueReason.SECOND_OPINION, QueueReason.CHECK)
"""A person repeats a decision that stands, and must not see it."""
_MOST_REPORTED: Final = 40
_PACE_WITHIN: Final = timedelta(minutes=10)
_PACE_FROM: Final = 10
_PACE_FROM_S: Final = 60.0
_HARD_WITHIN: Final = timedelta(hours=1)
_MOST_MOMENTS: Final = 2_000
_FULL_FOR: Final = timedelta(seconds=10)


def queue_rank(reason: QueueReason, *, reports: int = 0) -> int:
    """The place in the queue, lowest first: escalated, most reported, appeals, held, second opinions and checks."""
    return _RANKS[reason] - (min(reports, _MOST_REPORTED) if reason is QueueReason.REPORTED else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRules:
    """A channel's rules for people.

    `second_opinion_share` is the share (0 to 1) of decisions that another person repeats without seeing the first.
    So many reports as `hide_after_reports` hide a published photo until a person decides; None: never. A photo is hard
    to look at if its signal `hard_signal` is at least `hard_at`. With `appeals_by_same_person` an admin may decide
    on an appeal against their own refusal.
    """

    reasons: tuple[Reason, ...] = DEFAULT_REASONS
    second_opinion_share: float = 0.0
    hide_after_reports: int | None = 3
    pause_after: int | None = 20
    hard_signal: str = "nsfw"
    hard_at: float = 0.8
    appeals_by_same_person: bool = False

    def is_hard(self, photo: ModerationPhoto) -> bool:
        """Whether it counts for the suggestion of a pause."""
        return any(each.name == self.hard_signal and each.score >= self.hard_at for each in photo.signals)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How the work goes. Counts of waiting photos end at `MOST_COUNTED`.

    `per_minute` is the pace of the last minutes, None before ten decisions or a minute. `agreed` of `compared` second
    opinions were the same. `pause` says how many hard photos were decided within an hour, where that is enough for a
    pause; None otherwise.
    """

    waiting: int
    with_others: int
    today: int
    per_minute: float | None
    agreed: int
    compared: int
    pause: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """What a person has now. `lost` are ids that they held and that others have, or that are decided."""

    photos: list[ModerationPhoto]
    lost: list[str]


class PhotoQueue:
    """All methods block, and may be called from many threads and processes."""

    def __init__(self, database: Database, *, rules: Mapping[str, QueueRules], clock: Callable[[], datetime]) -> None:
        self._database = database
        self._rules = rules
        self._clock = clock
        self._full_until: dict[str, datetime] = {}

    def rules(self, channel: str) -> QueueRules:
        """Those of a channel, or the default ones."""
        return self._rules.get(channel, QueueRules())

    # Claims

    def peek(self, channel: str, *, by: Principal, limit: int) -> list[ModerationPhoto]:
        """What this person would get next, without claiming it."""
        with self._database.reading() as tx:
            queue = QueueRepository(tx, by, own_appeals=self.rules(channel).appeals_by_same_person)
            found = queue.free(channel, limit=min(limit, MOST_CLAIMED), now=self._clock())
        return [blinded(photo) for photo in found]

    def claim(
        self,
        channel: str,
        *,
        by: Principal,
        count: int,
        holding: Collection[str] = (),
        release: Collection[str] = (),
    ) -> Claimed:
        """Renew the claims on `holding`, give up `release`, and claim the next photos until there are `count`.

        Raises RequestInvalid for more than `MOST_CLAIMED` photos at once.
        """
        if max(count, len(holding), len(release)) > MOST_CLAIMED:
            raise RequestInvalid(f"Claim at most {MOST_CLAIMED} photos at once.")
        now = self._clock()
        until = now + timedelta(seconds=CLAIM_S)
        with self._database.transaction() as tx:
            queue = QueueRepository(tx, by, own_appeals=self.rules(channel).appeals_by_same_person)
            queue.release(release)
            held = queue.claim(holding, now=now, until=until)
            found = queue.free(channel, limit=count - len(held), now=now, without=holding, lock=True)
            queue.claim([photo.id for photo in found], now=now, until=until)
            again = PhotoRepository(tx).many(held)
        by_id = {photo.id: photo for photo in again}
        photos = [by_id[each] for each in dict.fromkeys(holding) if each in by_id] + found
        return Claimed(
            photos=[replace(blinded(photo), claimed_by=by.id, claimed_until=until) for photo in photos],
            lost=[each for each in dict.fromkeys(holding) if each not in by_id],
        )

    def skip(self, photo_id: str, *, by: Principal) -> None:
        """Put a photo at the end of this person's queue, and let others have it. Raises PhotoNotFound."""
        with self._database.transaction() as tx:
            PhotoRepository(tx).get(photo_id, lock=True)
            QueueRepository(tx, by).release([photo_id])
            QueueRepository(tx, by).skip(photo_id, now=self._clock())

    # Reports

    def report(self, photo_id: str, *, reason: str | None = None) -> None:
        """A shopper reports a published photo. It moves up in the queue, and enough reports hide it.

        Raises PhotoNotFound also for one that is not published: what is hidden cannot be guessed.
        """
        reason = (reason or "").replace("\x00", "").strip()[:MAX_REPORT] or None
        now = self._clock()
        with self._database.transaction() as tx:
            photos = PhotoRepository(tx)
            photo = photos.get(photo_id, lock=True)
            if photo.state is not PhotoState.PUBLISHED:
                raise PhotoNotFound(f"There is no photo {photo_id!r}.")
            ReportRepository(tx).add(report_id=new_id(now), photo_id=photo_id, reason=reason, now=now)
            photo = replace(photo, reports=photo.reports + 1)
            raised = photo.queue in (None, QueueReason.REPORTED, *BLIND)
            queue = QueueReason.REPORTED if raised else photo.queue
            rank = queue_rank(QueueReason.REPORTED, reports=photo.reports) if raised else photo.queue_rank
            most = self.rules(photo.channel).hide_after_reports
            if most is None or photo.reports < most:
                photos.update(replace(photo, queue=queue, queue_rank=rank))
                return
            record_decision(
                tx,
                photo,
                NewDecision(
                    to_state=PhotoState.HELD,
                    kind=DecisionKind.REPORT,
                    by=SYSTEM,
                    now=now,
                    rule=f"shoppers reported it {photo.reports} times",
                    queue=queue,
                    queue_rank=rank,
                ),
            )

    # People

    def progress(self, channel: str, *, by: Principal) -> Progress:
        """How the work in a channel goes, for one person."""
        now = self._clock()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        moderator = self.moderator(by, channel=channel)
        with self._database.reading() as tx:
            queue = QueueRepository(tx, by)
            waiting = self._waiting(tx, channel, now)
            with_others = queue.with_others(channel, now=now, most=MOST_COUNTED)
            human_reviews = HumanReviewRepository(tx)
            since = min(midnight, now - _HARD_WITHIN)
            moments = human_reviews.moments(by.id, since=since, limit=_MOST_MOMENTS)
            agreed, compared = human_reviews.agreement(by.id)
        since_pause = max(now - _HARD_WITHIN, moderator.paused_at or now - _HARD_WITHIN)
        hard = sum(is_hard and at > since_pause for at, is_hard in moments)
        enough = moderator.pause_after is not None and hard >= moderator.pause_after
        return Progress(
            waiting=waiting,
            with_others=with_others,
            today=sum(at >= midnight for at, _ in moments),
            per_minute=_pace([at for at, _ in moments if at >= now - _PACE_WITHIN]),
            agreed=agreed,
            compared=compared,
            pause=hard if enough else None,
        )

    def undoable(self, *, by: Principal, limit: int) -> list[PhotoDecision]:
        """What this person can take back, newest first."""
        with self._database.reading() as tx:
            return [decision for decision, _ in HumanReviewRepository(tx).newest(by.id, limit=limit)]

    def moderator(self, by: Principal, *, channel: str) -> Moderator:
        """What this person has chosen, or the default of the channel."""
        with self._database.reading() as tx:
            found = ModeratorRepository(tx).get(by.id)
        return found or Moderator(principal_id=by.id, pause_after=self.rules(channel).pause_after)

    def choose(self, moderator: Moderator, *, paused: bool = False) -> Moderator:
        """Store what a person has chosen; `paused` starts the count of hard photos again."""
        with self._database.transaction() as tx:
            known = ModeratorRepository(tx).get(moderator.principal_id)
            at = self._clock() if paused else (known.paused_at if known else None)
            moderator = replace(moderator, paused_at=at)
            ModeratorRepository(tx).put(moderator)
        return moderator

    def _waiting(self, tx: Connection, channel: str, now: datetime) -> int:
        """How many photos wait. A count that reached its bound is not repeated for some seconds: it takes the longest,
        and people see "10,000+" before and after.
        """
        if now < self._full_until.get(channel, now):
            return MOST_COUNTED
        waiting = PhotoRepository(tx).count_waiting(channel)
        if waiting == MOST_COUNTED:
            self._full_until[channel] = now + _FULL_FOR
        return waiting


def blinded(photo: ModerationPhoto) -> ModerationPhoto:
    """A photo that waits for a second opinion or a random check, as if nobody had decided it; others as they are."""
    if photo.queue not in BLIND:
        return photo
    return replace(
        photo, state=PhotoState.HELD, queue=QueueReason.HELD, queue_rank=0, rule=None, reason=None, decided_by="",
        decided_at=photo.created_at,
    )  # fmt: skip


def _pace(moments: Collection[datetime]) -> float | None:
    """Decisions per minute between the first and the last of these; None while they are too few to say."""
    if len(moments) < 2:
        return None
    seconds = (max(moments) - min(moments)).total_seconds()
    enough = seconds >= _PACE_FROM_S or (seconds > 0 and len(moments) >= _PACE_FROM)
    return (len(moments) - 1) / (seconds / 60) if enough else None
