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
from shoplens.moderation.entities import DecisionKind, ModerationPhoto, Moderator, PhotoState, QueueReason, Signal
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


class Services:
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
def make_services(database: Database) -> Callable[..., Services]:
    """A services over three photos that are held."""

    def make(rules: QueueRules | None = None, photos: int = 3) -> Services:
        stored(database, *(photo_of(number) for number in range(1, photos + 1)))
        return Services(database, rules)

    return make


@pytest.fixture
def services(make_services: Callable[..., Services]) -> Services:
    """The same with the default rules."""
    return make_services()


def test_two_people_get_different_photos_oldest_first(services: Services) -> None:
    """Each photo is claimed by one."""
    assert services.claimed(ANNA, 2) == [photo_id(1), photo_id(2)]
    assert services.claimed(BEN, 2) == [photo_id(3)]


def test_a_claim_ends_after_two_minutes_unless_it_is_renewed(services: Services) -> None:
    """Anna keeps the first by renewing it, and loses the second."""
    first, second = services.claimed(ANNA, 2)
    services.late += timedelta(seconds=100)
    services.queue.claim("reviews", by=ANNA, count=1, holding=[first])
    services.late += timedelta(seconds=100)
    assert services.claimed(BEN, 3) == [second, photo_id(3)]
    again = services.queue.claim("reviews", by=ANNA, count=2, holding=[first, second])
    assert ([photo.id for photo in again.photos], again.lost) == ([first], [second])


def test_what_is_released_goes_to_others_at_once(services: Services) -> None:
    """Leaving the page gives its photos back."""
    mine = services.claimed(ANNA, 3)
    services.queue.claim("reviews", by=ANNA, count=0, release=mine)
    assert services.claimed(BEN, 3) == mine


def test_many_people_at_once_never_get_the_same_photo(make_services: Callable[..., Services]) -> None:
    """Eight threads empty a queue of forty."""
    services = make_services(photos=40)
    got: list[str] = []

    def work(name: str) -> None:
        while mine := services.claimed(person(name), 3):
            got.extend(mine)
            for each in mine:
                services.review.decide(each, ACCEPT, by=person(name), seen=0)

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
    assert Services(database).claimed(ANNA, 5) == [photo_id(number) for number in (5, 4, 3, 2, 1)]


def test_a_decision_publishes_or_refuses_with_a_reason_and_is_in_the_history(services: Services) -> None:
    """The reason is one of the shop's."""
    services.decide(1, ACCEPT)
    services.decide(2, replace(NUDITY, comment=" too much "))
    accepted, refused = services.photos.get(photo_id(1)), services.photos.get(photo_id(2))
    assert (accepted.state, accepted.queue, accepted.decided_by) == (PhotoState.PUBLISHED, None, ANNA.id)
    assert (refused.state, refused.reason, refused.claimed_by) == (PhotoState.REFUSED, "nudity", None)
    _, history = services.photos.history(photo_id(2))
    assert [(each.kind, each.by_name, each.comment) for each in history] == [
        (DecisionKind.POLICY, "Shoplens", None),
        (DecisionKind.PERSON, "anna", "too much"),
    ]


@pytest.mark.parametrize("choice", [Choice(state=PhotoState.REFUSED), replace(NUDITY, reason="ugly")])
def test_a_refusal_without_a_reason_of_the_shop_is_turned_down(services: Services, choice: Choice) -> None:
    """The sentence names the reasons."""
    with pytest.raises(RequestInvalid, match="nudity, violence"):
        services.decide(1, choice)


def test_the_second_decision_on_a_photo_says_who_decided_and_when(services: Services) -> None:
    """Both saw the same revision."""
    services.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=0)
    for seen in (0, None):
        with pytest.raises(PhotoChanged, match=r"anna accepted this photo at 2026-05-04 12:\d\d:\d\d UTC"):
            services.review.decide(photo_id(1), NUDITY, by=BEN, seen=seen)
    assert services.photos.get(photo_id(1)).state is PhotoState.PUBLISHED


def test_the_same_decision_sent_twice_is_one(services: Services) -> None:
    """A lost answer can be asked for again."""
    first = services.review.decide(photo_id(1), NUDITY, by=ANNA, seen=0)
    assert services.review.decide(photo_id(1), NUDITY, by=ANNA, seen=0) == first
    assert len(services.photos.history(photo_id(1))[1]) == 2


def test_a_decision_after_a_report_is_never_taken_for_the_one_before_it(services: Services) -> None:
    """The same person published the photo once; a report that came since is news to them, and they look again."""
    published = services.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=0)
    services.queue.report(photo_id(1))
    with pytest.raises(PhotoChanged):
        services.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=published.revision)
    again = services.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=published.revision + 1)
    assert (PhotoState.PUBLISHED, None) == (again.state, again.queue)


def test_a_photo_that_somebody_else_looks_at_cannot_be_decided(services: Services) -> None:
    """Until their claim ends."""
    services.claimed(BEN)
    with pytest.raises(PhotoClaimed):
        services.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=0)
    services.late += timedelta(seconds=121)
    assert services.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=0).state is PhotoState.PUBLISHED


def test_a_decided_photo_can_be_decided_again_by_those_who_saw_the_decision(services: Services) -> None:
    """A photo that should never have been published is found and refused."""
    published = services.review.decide(photo_id(1), ACCEPT, by=ANNA, seen=0)
    refused = services.review.decide(photo_id(1), NUDITY, by=BEN, seen=published.revision)
    assert refused.state is PhotoState.REFUSED


def test_a_selection_is_decided_photo_by_photo(services: Services) -> None:
    """One that is taken does not keep the others."""
    services.decide(2, ACCEPT, by=BEN)
    outcomes = services.review.decide_many({photo_id(number): 0 for number in (1, 2, 3)}, NUDITY, by=ANNA)
    assert [type(each.error) for each in outcomes] == [type(None), PhotoChanged, type(None)]
    assert [services.photos.get(photo_id(n)).state.value for n in (1, 2, 3)] == ["refused", "published", "refused"]


def test_a_skipped_photo_comes_again_at_the_end_and_at_once_for_others(services: Services) -> None:
    """Only for the person who skipped it."""
    services.claimed(ANNA)
    services.queue.skip(photo_id(1), by=ANNA)
    assert services.claimed(ANNA, 3) == [photo_id(2), photo_id(3), photo_id(1)]
    services.queue.claim("reviews", by=ANNA, count=0, release=[photo_id(1)])
    assert services.claimed(BEN) == [photo_id(1)]


def test_an_escalated_photo_is_decided_by_another_person(services: Services) -> None:
    """It comes first for them, and not again for the one who escalated it."""
    escalated = services.review.escalate(photo_id(3), by=ANNA, comment="Is this a logo?", seen=0)
    assert (escalated.queue, escalated.state) == (QueueReason.ESCALATED, PhotoState.HELD)
    assert services.claimed(ANNA, 3) == [photo_id(1), photo_id(2)]
    with pytest.raises(AnotherPersonDecides):
        services.review.decide(photo_id(3), ACCEPT, by=ANNA, seen=escalated.revision)
    assert services.claimed(BEN) == [photo_id(3)]
    assert services.review.decide(photo_id(3), ACCEPT, by=BEN, seen=escalated.revision).queue is None


def test_an_admin_may_decide_what_they_escalated_themselves(services: Services) -> None:
    """A shop with one person is not stuck; for them it comes at the end."""
    services.review.escalate(photo_id(1), by=ADMIN)
    assert services.claimed(ADMIN, 3) == [photo_id(2), photo_id(3), photo_id(1)]
    services.decide(1, ACCEPT, by=ADMIN)
    assert services.photos.get(photo_id(1)).state is PhotoState.PUBLISHED


def test_twenty_decisions_can_be_taken_back_and_the_photos_are_as_before(
    make_services: Callable[..., Services],
) -> None:
    """The twenty-first is final."""
    services = make_services(photos=21)
    before = [services.photos.get(photo_id(number)) for number in range(1, 22)]
    for number in range(1, 22):
        services.decide(number, NUDITY if number % 2 else ACCEPT)
    for _ in range(20):
        services.review.undo(None, by=ANNA)
    with pytest.raises(NothingToUndo, match="among your last 20"):
        services.review.undo(photo_id(22), by=ANNA)
    after = [services.photos.get(photo_id(number)) for number in range(1, 22)]
    same = [
        replace(a, revision=b.revision, claimed_by=None, claimed_until=None) == b
        for a, b in zip(after, before, strict=True)
    ]
    assert same == [False, *[True] * 20]


def test_a_decision_can_be_taken_back_after_others_looked_but_not_after_they_decided(services: Services) -> None:
    """Looking changes nothing; deciding does."""
    services.review.escalate(photo_id(1), by=ANNA)
    assert services.claimed(BEN) == [photo_id(1)]
    assert services.review.undo(photo_id(1), by=ANNA).queue is QueueReason.HELD
    services.review.escalate(photo_id(1), by=ANNA)
    services.decide(1, NUDITY, by=BEN)
    with pytest.raises(PhotoChanged, match="ben rejected this photo"):
        services.review.undo(photo_id(1), by=ANNA)


def test_what_was_taken_back_can_be_decided_the_other_way(services: Services) -> None:
    """The wrong key, and back."""
    services.decide(1, ACCEPT)
    held = services.review.undo(None, by=ANNA)
    assert held.claimed_by == ANNA.id
    assert services.review.decide(held.id, NUDITY, by=ANNA, seen=held.revision).state is PhotoState.REFUSED
    assert services.queue.progress("reviews", by=ANNA).today == 1


def test_a_second_opinion_is_blind_and_from_another_person(make_services: Callable[..., Services]) -> None:
    """Nothing of what Ben sees says what Anna decided."""
    services = make_services(ALWAYS, photos=1)
    services.decide(1, NUDITY)
    assert services.photos.get(photo_id(1)).queue is QueueReason.SECOND_OPINION
    assert services.claimed(ANNA) == []
    (shown,) = services.queue.claim("reviews", by=BEN, count=1).photos
    assert (shown.state, shown.queue, shown.reason, shown.rule) == (PhotoState.HELD, QueueReason.HELD, None, None)


def test_two_equal_opinions_settle_a_photo_and_count_as_agreement(make_services: Callable[..., Services]) -> None:
    """For both people."""
    services = make_services(ALWAYS, photos=1)
    services.decide(1, NUDITY)
    services.decide(1, replace(NUDITY, reason="other"), by=BEN)
    photo = services.photos.get(photo_id(1))
    assert (photo.state, photo.queue, photo.reason) == (PhotoState.REFUSED, None, "nudity")
    for each in (ANNA, BEN):
        progress = services.queue.progress("reviews", by=each)
        assert (progress.agreed, progress.compared) == (1, 1)


def test_two_different_opinions_hide_the_photo_until_a_third_person_decides(
    make_services: Callable[..., Services],
) -> None:
    """Neither of the two gets it again, and a third decision ends it."""
    services = make_services(ALWAYS, photos=1)
    services.decide(1, ACCEPT)
    services.decide(1, NUDITY, by=BEN)
    photo = services.photos.get(photo_id(1))
    assert (photo.state, photo.queue) == (PhotoState.HELD, QueueReason.ESCALATED)
    assert [services.claimed(each) for each in (ANNA, BEN, CARA)] == [[], [], [photo_id(1)]]
    services.decide(1, ACCEPT, by=CARA)
    assert services.photos.get(photo_id(1)).queue is None
    assert services.queue.progress("reviews", by=ANNA).agreed == 0


def test_a_second_opinion_that_is_taken_back_counts_no_more(make_services: Callable[..., Services]) -> None:
    """The photo waits for a second opinion again."""
    services = make_services(ALWAYS, photos=1)
    services.decide(1, ACCEPT)
    services.decide(1, NUDITY, by=BEN)
    services.review.undo(None, by=BEN)
    photo = services.photos.get(photo_id(1))
    assert (photo.state, photo.queue, photo.decided_by) == (PhotoState.PUBLISHED, QueueReason.SECOND_OPINION, ANNA.id)
    assert services.queue.progress("reviews", by=BEN).compared == 0


def checked(number: int, state: PhotoState) -> ModerationPhoto:
    """A photo that the policy decided, and that chance sent to a person."""
    check = QueueReason.CHECK
    return photo_of(number, state=state, queue=check, queue_rank=queue_rank(check), rule="why", reason="nudity")


def test_a_random_check_shows_nothing_of_the_decision_that_it_repeats(database: Database) -> None:
    """Neither the state nor the rule; meanwhile the decision stands, and the public sees what it saw."""
    stored(database, checked(1, PhotoState.PUBLISHED), checked(2, PhotoState.REFUSED), photo_of(3))
    services = Services(database)
    shown = services.queue.claim("reviews", by=ANNA, count=3).photos
    assert [photo_id(3), photo_id(1), photo_id(2)] == [each.id for each in shown]
    same = {(each.state, each.queue, each.queue_rank, each.reason, each.decided_by) for each in shown[1:]}
    assert {(PhotoState.HELD, QueueReason.HELD, 0, None, "")} == same
    assert [None, None] == [each.rule for each in shown[1:]]
    states = [services.photos.get(photo_id(number)).state for number in (1, 2)]
    assert [PhotoState.PUBLISHED, PhotoState.REFUSED] == states


def test_what_a_person_says_in_a_random_check_stands(database: Database) -> None:
    """An agreement keeps the state without an event; a disagreement corrects the policy at once, and can be undone."""
    stored(database, checked(1, PhotoState.PUBLISHED), checked(2, PhotoState.REFUSED))
    services = Services(database)
    services.decide(1, ACCEPT)
    services.decide(2, ACCEPT)
    found = [services.photos.get(photo_id(number)) for number in (1, 2)]
    assert [(PhotoState.PUBLISHED, None, ANNA.id)] * 2 == [(each.state, each.queue, each.decided_by) for each in found]
    again = services.review.undo(photo_id(2), by=ANNA)
    assert (PhotoState.REFUSED, QueueReason.CHECK) == (again.state, again.queue)


def test_reports_come_before_a_random_check(database: Database) -> None:
    """A photo that shoppers report is looked at as a reported one."""
    stored(database, checked(1, PhotoState.PUBLISHED))
    services = Services(database)
    services.queue.report(photo_id(1), reason="rude")
    assert QueueReason.REPORTED is services.photos.get(photo_id(1)).queue


def test_the_share_of_second_opinions_is_drawn_by_the_photo() -> None:
    """The same photos on every machine, and about as many as asked for."""
    drawn = [is_drawn(photo_id(number), 0.1) for number in range(2000)]
    assert 150 < sum(drawn) < 250
    assert not any(is_drawn(photo_id(number), 0.0) for number in range(100))


def test_reports_raise_a_published_photo_and_enough_of_them_hide_it(services: Services) -> None:
    """A person who keeps it answers all of them."""
    services.decide(3, ACCEPT)
    services.queue.report(photo_id(3), reason="rude")
    assert services.photos.get(photo_id(3)).state is PhotoState.PUBLISHED
    assert services.claimed(BEN) == [photo_id(3)]
    for _ in range(2):
        services.queue.report(photo_id(3))
    hidden = services.photos.get(photo_id(3))
    assert (hidden.state, hidden.queue, hidden.reports) == (PhotoState.HELD, QueueReason.REPORTED, 3)
    services.decide(3, ACCEPT, by=BEN)
    kept = services.photos.get(photo_id(3))
    assert (kept.state, kept.reports) == (PhotoState.PUBLISHED, 0)
    services.review.undo(None, by=BEN)
    assert services.photos.get(photo_id(3)).reports == 3


def test_only_a_published_photo_can_be_reported(services: Services) -> None:
    """What is hidden cannot be guessed."""
    with pytest.raises(PhotoNotFound):
        services.queue.report(photo_id(1))


def test_hard_photos_within_an_hour_suggest_a_pause_until_it_is_taken_or_declined(database: Database) -> None:
    """Counted from the last pause on."""
    hard = (Signal(name="nsfw", score=0.9, version="opennsfw@1"),)
    stored(database, *(photo_of(number, signals=hard) for number in (1, 2)), photo_of(3))
    services = Services(database, QueueRules(pause_after=2))
    for number in (1, 3):
        services.decide(number, NUDITY)
    assert services.queue.progress("reviews", by=ANNA).pause is None
    services.decide(2, NUDITY)
    assert services.queue.progress("reviews", by=ANNA).pause == 2
    services.queue.choose(Moderator(principal_id=ANNA.id, pause_after=2), paused=True)
    assert services.queue.progress("reviews", by=ANNA).pause is None


def test_progress_counts_what_waits(services: Services) -> None:
    """Two decisions a second apart say nothing yet of the pace."""
    services.claimed(BEN)
    services.decide(2, ACCEPT)
    services.decide(3, ACCEPT)
    progress = services.queue.progress("reviews", by=ANNA)
    assert (progress.waiting, progress.with_others, progress.today) == (1, 1, 2)
    assert progress.per_minute is None


def test_the_pace_is_shown_after_ten_decisions_or_a_minute(database: Database) -> None:
    """Before, one quick decision would look like hundreds per minute."""
    stored(database, *(photo_of(number) for number in range(1, 14)))
    services = Services(database)
    for number in range(1, 10):
        services.decide(number, ACCEPT)
    assert services.queue.progress("reviews", by=ANNA).per_minute is None
    services.decide(10, ACCEPT)
    quick = services.queue.progress("reviews", by=ANNA).per_minute
    services.late = timedelta(minutes=20)
    services.decide(11, ACCEPT)
    services.late += timedelta(minutes=1)
    services.decide(12, ACCEPT)
    slow = services.queue.progress("reviews", by=ANNA).per_minute
    assert quick is not None
    assert slow is not None
    assert slow < 1 < quick


def test_what_a_moderator_chose_is_kept(services: Services) -> None:
    """The default is the careful one."""
    assert services.queue.moderator(ANNA, channel="reviews").view == "blur"
    chosen = Moderator(principal_id=ANNA.id, letters=False, pause_after=None)
    services.queue.choose(chosen)
    assert services.queue.moderator(ANNA, channel="reviews") == chosen


def test_too_many_at_once_are_refused_with_the_bound(services: Services) -> None:
    """Each call is bounded."""
    with pytest.raises(RequestInvalid, match=re.escape("at most 60")):
        services.queue.claim("reviews", by=ANNA, count=61)
    with pytest.raises(RequestInvalid, match="at most 100"):
        services.review.decide_many({str(number): 0 for number in range(101)}, ACCEPT, by=ANNA)


@ONLY_SQLITE
def test_ten_thousand_waiting_photos_are_not_counted_each_time(make_services: Callable[..., Services]) -> None:
    """The count at its bound is kept for ten seconds; one below it is always true."""
    services = make_services(photos=MOST_COUNTED + 1)
    assert services.queue.progress("reviews", by=ANNA).waiting == MOST_COUNTED
    for number in (1, 2):
        services.decide(number, ACCEPT)
    assert services.queue.progress("reviews", by=ANNA).waiting == MOST_COUNTED
    services.late = timedelta(seconds=10)
    assert services.queue.progress("reviews", by=ANNA).waiting == MOST_COUNTED - 1
    services.decide(3, ACCEPT)
    assert services.queue.progress("reviews", by=ANNA).waiting == MOST_COUNTED - 2
