"""The queue on both databases: who gets which photo, decisions, undo, second opinions, reports, and pauses."""

from __future__ import annotations

import itertools
import re
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from shoplens.accounts.entities import PERMISSIONS, Principal, PrincipalKind, Role
from shoplens.db import Database
from shoplens.errors import RequestInvalid
from shoplens.moderation.entities import DecisionKind, Moderator, PhotoState, QueueReason, Signal
from shoplens.moderation.errors import (
    AnotherPersonDecides,
    NothingToUndo,
    PhotoChanged,
    PhotoClaimed,
    PhotoNotFound,
)
from shoplens.moderation.photos import PhotoService
from shoplens.moderation.queue.review import Choice, PhotoReview, is_drawn
from shoplens.moderation.queue.service import PhotoQueue, QueueRules, queue_rank
from shoplens.moderation.repository import MOST_COUNTED
from tests.conftest import ONLY_SQLITE
from tests.unit.moderation.photos import moment, photo_id, photo_of, stored


def person(name: str, role: Role = Role.MODERATOR) -> Principal:
    """Somebody with the rights of a role."""
    return Principal(kind=PrincipalKind.PERSON, id=f"person-{name}", name=name, permissions=PERMISSIONS[role])


ANNA, BEN, CARA = person("anna"), person("ben"), person("cara")
ADMIN = person("ada", Role.ADMIN)
ACCEPT = Choice(state=PhotoState.PUBLISHED)
NUDITY = Choice(state=PhotoState.REFUSED, reason="nudity")
ALWAYS = QueueRules(second_opinion_share=1.0)


class Desk:
    """The services over one database, with a clock that goes on by a second whenever it is read."""

    def __init__(self, database: Database, rules: QueueRules | None = None) -> None:
        self.seconds = itertools.count(1000.0)
        self.late = timedelta()
        channels = {} if rules is None else {"reviews": rules}
        self.queue = PhotoQueue(database, rules=channels, clock=self.now)
        self.review = PhotoReview(database, rules=channels, clock=self.now)
        self.photos = PhotoService(database)

    def now(self) -> datetime:
        """The time, a second later each time."""
        return moment(next(self.seconds)) + self.late

    def claimed(self, by: Principal, count: int = 1) -> list[str]:
        """The ids of what a person gets."""
        return [photo.id for photo in self.queue.claim("reviews", by=by, count=count).photos]

    def decide(self, number: int, choice: Choice, by: Principal = ANNA) -> None:
        """Decide a photo as it is now."""
        seen = self.photos.get(photo_id(number)).revision
        self.review.decide(photo_id(number), choice, by=by, seen=seen)


@pytest.fixture
def make_desk(database: Database) -> Callable[..., Desk]:
    """A desk over three photos that are held."""

    def make(rules: QueueRules | None = None, photos: int = 3) -> Desk:
        stored(database, *(photo_of(number) for number in range(1, photos + 1)))
        return Desk(database, rules)

    return make


@pytest.fixture
def desk(make_desk: Callable[..., Desk]) -> Desk:
    """The same with the default rules."""
    return make_desk()


def test_two_people_get_different_photos_oldest_first(desk: Desk) -> None:
    """Each photo is claimed by one."""
    assert desk.claimed(ANNA, 2) == [photo_id(1), photo_id(2)]
    assert desk.claimed(BEN, 2) == [photo_id(3)]


def test_a_claim_ends_after_two_minutes_unless_it_is_renewed(desk: Desk) -> None:
    """Anna keeps the first by renewing it, and loses the second."""
    first, second = desk.claimed(ANNA, 2)
    desk.late += timedelta(seconds=100)
    desk.queue.claim("reviews", by=ANNA, count=1, holding=[first])
    desk.late += timedelta(seconds=100)
    assert desk.claimed(BEN, 3) == [second, photo_id(3)]
    again = desk.queue.claim("reviews", by=ANNA, count=2, holding=[first, second])
    assert ([photo.id for photo in again.photos], again.lost) == ([first], [second])


def test_what_is_released_goes_to_others_at_once(desk: Desk) -> None:
    """Leaving the page gives its photos back."""
    mine = desk.claimed(ANNA, 3)
    desk.queue.claim("reviews", by=ANNA, count=0, release=mine)
    assert desk.claimed(BEN, 3) == mine


def test_many_people_at_once_never_get_the_same_photo(make_desk: Callable[..., Desk]) -> None:
    """Eight threads empty a queue of forty."""
    desk = make_desk(photos=40)
    got: list[str] = []

    def work(name: str) -> None:
        while mine := desk.claimed(person(name), 3):
            got.extend(mine)
            for each in mine:
                desk.review.decide(each, ACCEPT, by=person(name), seen=0)

    threads = [threading.Thread(target=work, args=(f"person {number}",)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(got) == [photo_id(number) for number in range(1, 41)]


def test_escalated_and_most_reported_photos_come_first(database: Database) -> None:
    """Then appeals, then what is held, oldest first."""
    waiting = [
        photo_of(1),
        photo_of(2, queue=QueueReason.APPEAL, queue_rank=queue_rank(QueueReason.APPEAL)),
        photo_of(3, queue=QueueReason.REPORTED, queue_rank=queue_rank(QueueReason.REPORTED, reports=1)),
        photo_of(4, queue=QueueReason.REPORTED, queue_rank=queue_rank(QueueReason.REPORTED, reports=5)),
        photo_of(5, queue=QueueReason.ESCALATED, queue_rank=queue_rank(QueueReason.ESCALATED)),
    ]
    stored(database, *waiting)
    assert Desk(database).claimed(ANNA, 5) == [photo_id(number) for number in (5, 4, 3, 2, 1)]


def test_a_decision_publishes_or_refuses_with_a_reason_and_is_in_the_history(desk: Desk) -> None:
    """The reason is one of the shop's."""
    desk.decide(1, ACCEPT)
    desk.decide(2, replace(NUDITY, comment=" too much "))
    accepted, refused = desk.photos.get(photo_id(1)), desk.photos.get(photo_id(2))
    assert (accepted.state, accepted.queue, accepted.decided_by) == (PhotoState.PUBLISHED, None, ANNA.id)
    assert (refused.state, refused.reason, refused.claimed_by) == (PhotoState.REFUSED, "nudity", None)
    _, history = desk.photos.history(photo_id(2))
    assert [(each.kind, each.by_name, each.comment) for each in history] == [
        (DecisionKind.POLICY, "Shoplens", None),
        (DecisionKind.PERSON, "anna", "too much"),
    ]


@pytest.mark.parametrize("choice", [Choice(state=PhotoState.REFUSED), replace(NUDITY, reason="ugly")])
def test_a_refusal_without_a_reason_of_the_shop_is_turned_down(desk: Desk, choice: Choice) -> None:
    """The sentence names the reasons."""
    with pytest.raises(RequestInvalid, match="nudity, violence"):
        desk.decide(1, choice)


def test_the_second_decision_on_a_photo_says_who_decided_and_when(desk: Desk) -> None:
    """Both saw the same revision."""
    desk.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=0)
    for seen in (0, None):
        with pytest.raises(PhotoChanged, match=r"anna accepted this photo at 2026-05-04 12:\d\d:\d\d UTC"):
            desk.review.decide(photo_id(1), NUDITY, by=BEN, seen=seen)
    assert desk.photos.get(photo_id(1)).state is PhotoState.PUBLISHED


def test_the_same_decision_sent_twice_is_one(desk: Desk) -> None:
    """A lost answer can be asked for again."""
    first = desk.review.decide(photo_id(1), NUDITY, by=ANNA, seen=0)
    assert desk.review.decide(photo_id(1), NUDITY, by=ANNA, seen=0) == first
    assert len(desk.photos.history(photo_id(1))[1]) == 2


def test_a_decision_after_a_report_is_never_taken_for_the_one_before_it(desk: Desk) -> None:
    """The same person published the photo once; a report that came since is news to them, and they look again."""
    published = desk.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=0)
    desk.queue.report(photo_id(1))
    with pytest.raises(PhotoChanged):
        desk.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=published.revision)
    again = desk.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=published.revision + 1)
    assert (PhotoState.PUBLISHED, None) == (again.state, again.queue)


def test_a_photo_that_somebody_else_looks_at_cannot_be_decided(desk: Desk) -> None:
    """Until their claim ends."""
    desk.claimed(BEN)
    with pytest.raises(PhotoClaimed):
        desk.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=0)
    desk.late += timedelta(seconds=121)
    assert desk.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=0).state is PhotoState.PUBLISHED


def test_a_decided_photo_can_be_decided_again_by_those_who_saw_the_decision(desk: Desk) -> None:
    """A photo that should never have been published is found and refused."""
    published = desk.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=0)
    refused = desk.review.decide(photo_id(1), NUDITY, by=BEN, seen=published.revision)
    assert refused.state is PhotoState.REFUSED


def test_a_selection_is_decided_photo_by_photo(desk: Desk) -> None:
    """One that is taken does not keep the others."""
    desk.decide(2, ACCEPT, by=BEN)
    outcomes = desk.review.decide_many({photo_id(number): 0 for number in (1, 2, 3)}, NUDITY, by=ANNA)
    assert [type(each.error) for each in outcomes] == [type(None), PhotoChanged, type(None)]
    assert [desk.photos.get(photo_id(n)).state.value for n in (1, 2, 3)] == ["refused", "published", "refused"]


def test_a_skipped_photo_comes_again_at_the_end_and_at_once_for_others(desk: Desk) -> None:
    """Only for the person who skipped it."""
    desk.claimed(ANNA)
    desk.queue.skip(photo_id(1), by=ANNA)
    assert desk.claimed(ANNA, 3) == [photo_id(2), photo_id(3), photo_id(1)]
    desk.queue.claim("reviews", by=ANNA, count=0, release=[photo_id(1)])
    assert desk.claimed(BEN) == [photo_id(1)]


def test_an_escalated_photo_is_decided_by_another_person(desk: Desk) -> None:
    """It comes first for them, and not again for the one who escalated it."""
    escalated = desk.review.escalate(photo_id(3), by=ANNA, comment="Is this a logo?", seen=0)
    assert (escalated.queue, escalated.state) == (QueueReason.ESCALATED, PhotoState.HELD)
    assert desk.claimed(ANNA, 3) == [photo_id(1), photo_id(2)]
    with pytest.raises(AnotherPersonDecides):
        desk.review.decide(photo_id(3), ACCEPT, by=ANNA, seen=escalated.revision)
    assert desk.claimed(BEN) == [photo_id(3)]
    assert desk.review.decide(photo_id(3), ACCEPT, by=BEN, seen=escalated.revision).queue is None


def test_an_admin_may_decide_what_they_escalated_themselves(desk: Desk) -> None:
    """A shop with one person is not stuck; for them it comes at the end."""
    desk.review.escalate(photo_id(1), by=ADMIN)
    assert desk.claimed(ADMIN, 3) == [photo_id(2), photo_id(3), photo_id(1)]
    desk.decide(1, ACCEPT, by=ADMIN)
    assert desk.photos.get(photo_id(1)).state is PhotoState.PUBLISHED


def test_twenty_decisions_can_be_taken_back_and_the_photos_are_as_before(make_desk: Callable[..., Desk]) -> None:
    """The twenty-first is final."""
    desk = make_desk(photos=21)
    before = [desk.photos.get(photo_id(number)) for number in range(1, 22)]
    for number in range(1, 22):
        desk.decide(number, NUDITY if number % 2 else ACCEPT)
    for _ in range(20):
        desk.review.undo(None, by=ANNA)
    with pytest.raises(NothingToUndo, match="among your last 20"):
        desk.review.undo(photo_id(22), by=ANNA)
    after = [desk.photos.get(photo_id(number)) for number in range(1, 22)]
    same = [
        replace(a, revision=b.revision, claimed_by=None, claimed_until=None) == b
        for a, b in zip(after, before, strict=True)
    ]
    assert same == [False, *[True] * 20]


def test_a_decision_can_be_taken_back_after_others_looked_but_not_after_they_decided(desk: Desk) -> None:
    """Looking changes nothing; deciding does."""
    desk.review.escalate(photo_id(1), by=ANNA)
    assert desk.claimed(BEN) == [photo_id(1)]
    assert desk.review.undo(photo_id(1), by=ANNA).queue is QueueReason.HELD
    desk.review.escalate(photo_id(1), by=ANNA)
    desk.decide(1, NUDITY, by=BEN)
    with pytest.raises(PhotoChanged, match="ben rejected this photo"):
        desk.review.undo(photo_id(1), by=ANNA)


def test_what_was_taken_back_can_be_decided_the_other_way(desk: Desk) -> None:
    """The wrong key, and back."""
    desk.decide(1, ACCEPT)
    held = desk.review.undo(None, by=ANNA)
    assert held.claimed_by == ANNA.id
    assert desk.review.decide(held.id, NUDITY, by=ANNA, seen=held.revision).state is PhotoState.REFUSED
    assert desk.queue.progress("reviews", by=ANNA).today == 1


def test_a_second_opinion_is_blind_and_from_another_person(make_desk: Callable[..., Desk]) -> None:
    """Nothing of what Ben sees says what Anna decided."""
    desk = make_desk(ALWAYS, photos=1)
    desk.decide(1, NUDITY)
    assert desk.photos.get(photo_id(1)).queue is QueueReason.SECOND_OPINION
    assert desk.claimed(ANNA) == []
    (shown,) = desk.queue.claim("reviews", by=BEN, count=1).photos
    assert (shown.state, shown.queue, shown.reason, shown.rule) == (PhotoState.HELD, QueueReason.HELD, None, None)


def test_two_equal_opinions_settle_a_photo_and_count_as_agreement(make_desk: Callable[..., Desk]) -> None:
    """For both people."""
    desk = make_desk(ALWAYS, photos=1)
    desk.decide(1, NUDITY)
    desk.decide(1, replace(NUDITY, reason="other"), by=BEN)
    photo = desk.photos.get(photo_id(1))
    assert (photo.state, photo.queue, photo.reason) == (PhotoState.REFUSED, None, "nudity")
    for each in (ANNA, BEN):
        progress = desk.queue.progress("reviews", by=each)
        assert (progress.agreed, progress.compared) == (1, 1)


def test_two_different_opinions_hide_the_photo_until_a_third_person_decides(make_desk: Callable[..., Desk]) -> None:
    """Neither of the two gets it again, and a third decision ends it."""
    desk = make_desk(ALWAYS, photos=1)
    desk.decide(1, ACCEPT)
    desk.decide(1, NUDITY, by=BEN)
    photo = desk.photos.get(photo_id(1))
    assert (photo.state, photo.queue) == (PhotoState.HELD, QueueReason.ESCALATED)
    assert [desk.claimed(each) for each in (ANNA, BEN, CARA)] == [[], [], [photo_id(1)]]
    desk.decide(1, ACCEPT, by=CARA)
    assert desk.photos.get(photo_id(1)).queue is None
    assert desk.queue.progress("reviews", by=ANNA).agreed == 0


def test_a_second_opinion_that_is_taken_back_counts_no_more(make_desk: Callable[..., Desk]) -> None:
    """The photo waits for a second opinion again."""
    desk = make_desk(ALWAYS, photos=1)
    desk.decide(1, ACCEPT)
    desk.decide(1, NUDITY, by=BEN)
    desk.review.undo(None, by=BEN)
    photo = desk.photos.get(photo_id(1))
    assert (photo.state, photo.queue, photo.decided_by) == (PhotoState.PUBLISHED, QueueReason.SECOND_OPINION, ANNA.id)
    assert desk.queue.progress("reviews", by=BEN).compared == 0


def test_the_share_of_second_opinions_is_drawn_by_the_photo() -> None:
    """The same photos on every machine, and about as many as asked for."""
    drawn = [is_drawn(photo_id(number), 0.1) for number in range(2000)]
    assert 150 < sum(drawn) < 250
    assert not any(is_drawn(photo_id(number), 0.0) for number in range(100))


def test_reports_raise_a_published_photo_and_enough_of_them_hide_it(desk: Desk) -> None:
    """A person who keeps it answers all of them."""
    desk.decide(3, ACCEPT)
    desk.queue.report(photo_id(3), reason="rude")
    assert desk.photos.get(photo_id(3)).state is PhotoState.PUBLISHED
    assert desk.claimed(BEN) == [photo_id(3)]
    for _ in range(2):
        desk.queue.report(photo_id(3))
    hidden = desk.photos.get(photo_id(3))
    assert (hidden.state, hidden.queue, hidden.reports) == (PhotoState.HELD, QueueReason.REPORTED, 3)
    desk.decide(3, ACCEPT, by=BEN)
    kept = desk.photos.get(photo_id(3))
    assert (kept.state, kept.reports) == (PhotoState.PUBLISHED, 0)
    desk.review.undo(None, by=BEN)
    assert desk.photos.get(photo_id(3)).reports == 3


def test_only_a_published_photo_can_be_reported(desk: Desk) -> None:
    """What is hidden cannot be guessed."""
    with pytest.raises(PhotoNotFound):
        desk.queue.report(photo_id(1))


def test_hard_photos_within_an_hour_suggest_a_pause_until_it_is_taken_or_declined(database: Database) -> None:
    """Counted from the last pause on."""
    hard = (Signal(name="nsfw", score=0.9, version="opennsfw@1"),)
    stored(database, *(photo_of(number, signals=hard) for number in (1, 2)), photo_of(3))
    desk = Desk(database, QueueRules(pause_after=2))
    for number in (1, 3):
        desk.decide(number, NUDITY)
    assert desk.queue.progress("reviews", by=ANNA).pause is None
    desk.decide(2, NUDITY)
    assert desk.queue.progress("reviews", by=ANNA).pause == 2
    desk.queue.choose(Moderator(principal_id=ANNA.id, pause_after=2), paused=True)
    assert desk.queue.progress("reviews", by=ANNA).pause is None


def test_progress_counts_what_waits(desk: Desk) -> None:
    """Two decisions a second apart say nothing yet of the pace."""
    desk.claimed(BEN)
    desk.decide(2, ACCEPT)
    desk.decide(3, ACCEPT)
    progress = desk.queue.progress("reviews", by=ANNA)
    assert (progress.waiting, progress.with_others, progress.today) == (1, 1, 2)
    assert progress.per_minute is None


def test_the_pace_is_shown_after_ten_decisions_or_a_minute(database: Database) -> None:
    """Before, one quick decision would look like hundreds per minute."""
    stored(database, *(photo_of(number) for number in range(1, 14)))
    desk = Desk(database)
    for number in range(1, 10):
        desk.decide(number, ACCEPT)
    assert desk.queue.progress("reviews", by=ANNA).per_minute is None
    desk.decide(10, ACCEPT)
    quick = desk.queue.progress("reviews", by=ANNA).per_minute
    desk.late = timedelta(minutes=20)
    desk.decide(11, ACCEPT)
    desk.late += timedelta(minutes=1)
    desk.decide(12, ACCEPT)
    slow = desk.queue.progress("reviews", by=ANNA).per_minute
    assert quick is not None
    assert slow is not None
    assert slow < 1 < quick


def test_what_a_moderator_chose_is_kept(desk: Desk) -> None:
    """The default is the careful one."""
    assert desk.queue.moderator(ANNA, channel="reviews").view == "blur"
    chosen = Moderator(principal_id=ANNA.id, letters=False, pause_after=None)
    desk.queue.choose(chosen)
    assert desk.queue.moderator(ANNA, channel="reviews") == chosen


def test_too_many_at_once_are_refused_with_the_bound(desk: Desk) -> None:
    """Each call is bounded."""
    with pytest.raises(RequestInvalid, match=re.escape("at most 60")):
        desk.queue.claim("reviews", by=ANNA, count=61)
    with pytest.raises(RequestInvalid, match="at most 100"):
        desk.review.decide_many({str(number): 0 for number in range(101)}, ACCEPT, by=ANNA)


@ONLY_SQLITE
def test_ten_thousand_waiting_photos_are_not_counted_each_time(make_desk: Callable[..., Desk]) -> None:
    """The count at its bound is kept for ten seconds; one below it is always true."""
    desk = make_desk(photos=MOST_COUNTED + 1)
    assert desk.queue.progress("reviews", by=ANNA).waiting == MOST_COUNTED
    for number in (1, 2):
        desk.decide(number, ACCEPT)
    assert desk.queue.progress("reviews", by=ANNA).waiting == MOST_COUNTED
    desk.late = timedelta(seconds=10)
    assert desk.queue.progress("reviews", by=ANNA).waiting == MOST_COUNTED - 1
    desk.decide(3, ACCEPT)
    assert desk.queue.progress("reviews", by=ANNA).waiting == MOST_COUNTED - 2
