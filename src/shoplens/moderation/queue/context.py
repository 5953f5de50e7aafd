"""What a person may want to know of a photo beside the photo: its history, its customer, reports and an appeal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shoplens.accounts.entities import Principal
from shoplens.db import Database
from shoplens.moderation.entities import DecisionKind, ModerationPhoto, PhotoDecision, PhotoState, QueueReason
from shoplens.moderation.intake.memory import HashMemory, Near
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.queue.repository import QueueRepository, ReportRepository
from shoplens.moderation.queue.service import BLIND, blinded
from shoplens.moderation.repository import DecisionRepository, PhotoFilter, PhotoRepository

EARLIER: Final = 8
SIMILAR: Final = 4
SIMILAR_WITHIN: Final = 18
"""The greatest distance (of 64) of a photo that is shown as similar."""
REPORTS: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class SimilarPhoto:
    """A photo that was decided and that is like the one to decide; `photo` is None once its customer was erased."""

    near: Near
    photo: ModerationPhoto | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoContext:
    """Everything beside a photo. `earlier` are the customer's other photos, newest first, `similar` photos of anybody
    that were decided, the nearest first.

    `refusals` counts the customer's photos that were refused within `strike_days`; `strikes` is how many of them hold
    all further photos, None where the policy has no such rule. `reports` are shoppers' words, None without words.
    `appeal` is the shopper's message while it waits. `may_decide` is False where another person has to.
    """

    photo: ModerationPhoto
    history: list[PhotoDecision]
    earlier: list[ModerationPhoto]
    similar: list[SimilarPhoto]
    refusals: int
    strikes: int | None
    strike_days: int
    reports: Sequence[str | None]
    appeal: str | None
    may_decide: bool


class ContextService:
    """All methods block, and may be called from many threads."""

    def __init__(
        self,
        database: Database,
        memory: HashMemory,
        *,
        policy_of: Callable[[str], ModerationPolicy],
        own_appeals: Callable[[str], bool] = lambda _: False,
        clock: Callable[[], datetime],
    ) -> None:
        """`own_appeals` says for a channel whether admins decide on appeals against their own refusals."""
        self._database = database
        self._memory = memory
        self._policy_of = policy_of
        self._own_appeals = own_appeals
        self._clock = clock

    def of(self, photo_id: str, *, by: Principal) -> PhotoContext:
        """What this person may see; who gives a second opinion sees nothing of the first. Raises PhotoNotFound."""
        now = self._clock()
        near = self._near(photo_id)
        with self._database.reading() as tx:
            photo = PhotoRepository(tx).get(photo_id)
            policy = self._policy_of(photo.channel)
            queue = QueueRepository(tx, by, own_appeals=self._own_appeals(photo.channel))
            may_decide = queue.may_decide(photo_id)
            history = DecisionRepository(tx).of(photo_id)
            if photo.queue in BLIND and may_decide:
                # Before a second opinion the policy held the photo; a check repeats what the policy decided.
                shown = () if photo.queue is QueueReason.CHECK else (DecisionKind.POLICY,)
                history = [each for each in history if each.kind in shown]
                photo = blinded(photo)
            customer = photo.ref.customer
            earlier: list[ModerationPhoto] = []
            refusals = 0
            if customer is not None:
                theirs = PhotoFilter(channel=photo.channel, customer=customer)
                earlier = PhotoRepository(tx).page(theirs, limit=EARLIER + 1)
                since = now - timedelta(days=policy.strike_days)
                refusals = PhotoRepository(tx).count_of_customer(customer, PhotoState.REFUSED, since=since)
            known = {
                each.id: each for each in PhotoRepository(tx).many({each.photo_id for each in near if each.photo_id})
            }
            return PhotoContext(
                photo=photo,
                history=history,
                similar=[SimilarPhoto(near=each, photo=known.get(each.photo_id or "")) for each in near],
                earlier=[blinded(each) for each in earlier if each.id != photo_id][:EARLIER],
                refusals=refusals,
                strikes=policy.strikes,
                strike_days=policy.strike_days,
                reports=ReportRepository(tx).open(photo_id, limit=REPORTS),
                appeal=ReportRepository(tx).appeal(photo_id),
                may_decide=may_decide,
            )

    def _near(self, photo_id: str) -> list[Near]:
        with self._database.reading() as tx:
            photo = PhotoRepository(tx).get(photo_id)
        if photo.fingerprint is None:
            return []
        found = self._memory.similar(photo.channel, photo.fingerprint, within=SIMILAR_WITHIN, limit=SIMILAR + 1)
        return [near for near in found if near.photo_id != photo_id][:SIMILAR]
