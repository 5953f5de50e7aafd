"""What stands beside a photo: similar ones that were decided, the customer's others, and nothing that is blind."""

from __future__ import annotations

import itertools

from shoplens.db import Database
from shoplens.images import fingerprint
from shoplens.moderation.entities import DecisionKind, PhotoState, QueueReason, References
from shoplens.moderation.intake.memory import HashMemory
from shoplens.moderation.policy.entities import ModerationPolicy
from shoplens.moderation.queue.context import ContextService, PhotoContext
from shoplens.moderation.queue.review import Choice, PhotoReview
from shoplens.moderation.queue.service import PhotoQueue, QueueRules
from tests.conftest import colourful
from tests.unit.moderation.photos import ANNA, BEN, moment, photo_id, photo_of, stored

REFUSE = Choice(state=PhotoState.REFUSED, reason="nudity")


class Beside:
    """The services over one database, with a clock that goes on by a second whenever it is read."""

    def __init__(self, database: Database, rules: QueueRules | None = None) -> None:
        seconds = itertools.count(1000.0)
        channels = {"reviews": rules or QueueRules()}
        self.review = PhotoReview(database, rules=channels, clock=lambda: moment(next(seconds)))
        self.queue = PhotoQueue(database, rules=channels, clock=lambda: moment(next(seconds)))
        self.service = ContextService(
            database, HashMemory(database), policy_of=lambda _: ModerationPolicy(), clock=lambda: moment(next(seconds))
        )

    def of(self, number: int) -> PhotoContext:
        """What Ben sees."""
        return self.service.of(photo_id(number), by=BEN)


def test_similar_photos_that_were_decided_come_nearest_first(database: Database) -> None:
    """Not the photo itself, nor one that nobody decided, nor an unlike one."""
    pixels = colourful(1)
    darker = pixels.copy()
    darker[:60] //= 2
    for number, each in enumerate((pixels, darker, colourful(2), pixels), start=1):
        stored(database, photo_of(number, fingerprint=fingerprint.fingerprint(each)))
    beside = Beside(database)
    assert beside.of(4).similar == []
    for number in (2, 1, 3):
        beside.review.decide(photo_id(number), REFUSE, by=ANNA, seen=0)
    found = beside.of(4).similar
    assert [each.photo.id for each in found if each.photo] == [photo_id(1), photo_id(2)]
    assert found[0].near.distance == 0 < found[1].near.distance
    assert [each.photo.id for each in beside.of(1).similar if each.photo] == [photo_id(2)]


def test_the_customers_other_photos_and_refusals_are_counted(database: Database) -> None:
    """Newest first, without the photo itself and without those of others."""
    stored(database, photo_of(1), photo_of(2), photo_of(3, ref=References(customer="c-2")), photo_of(4))
    beside = Beside(database)
    beside.review.decide(photo_id(2), REFUSE, by=ANNA, seen=0)
    context = beside.of(4)
    assert ([each.id for each in context.earlier], context.refusals) == ([photo_id(2), photo_id(1)], 1)


def test_who_gives_a_second_opinion_sees_nothing_of_the_first(database: Database) -> None:
    """Neither in the state nor in the history; the one who decided does."""
    stored(database, photo_of(1))
    beside = Beside(database, QueueRules(second_opinion_share=1.0))
    beside.review.decide(photo_id(1), REFUSE, by=ANNA, seen=0)
    blind = beside.of(1)
    assert (blind.photo.state, blind.photo.reason) == (PhotoState.HELD, None)
    assert [each.kind for each in blind.history] == [DecisionKind.POLICY]
    hers = beside.service.of(photo_id(1), by=ANNA)
    assert (hers.photo.state, hers.may_decide, len(hers.history)) == (PhotoState.REFUSED, False, 2)


def test_who_checks_at_random_sees_nothing_of_the_policys_decision(database: Database) -> None:
    """Neither in the state nor in the history, which names the policy's decision once a person has decided."""
    stored(database, photo_of(1, state=PhotoState.PUBLISHED, queue=QueueReason.CHECK, queue_rank=50))
    beside = Beside(database)
    blind = beside.of(1)
    assert (PhotoState.HELD, None, []) == (blind.photo.state, blind.photo.rule, blind.history)
    beside.review.decide(photo_id(1), REFUSE, by=BEN, seen=0)
    assert [DecisionKind.POLICY, DecisionKind.PERSON] == [each.kind for each in beside.of(1).history]


def test_what_shoppers_reported_is_read_until_a_person_decides(database: Database) -> None:
    """Newest first."""
    stored(database, photo_of(1, state=PhotoState.PUBLISHED))
    beside = Beside(database)
    beside.queue.report(photo_id(1), reason="rude")
    beside.queue.report(photo_id(1))
    assert list(beside.of(1).reports) == [None, "rude"]
    beside.review.decide(photo_id(1), Choice(state=PhotoState.PUBLISHED), by=ANNA, seen=2)
    assert list(beside.of(1).reports) == []
