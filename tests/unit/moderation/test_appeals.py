"""A refusal has a statement of reasons, and the shopper may appeal once: another person decides."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select

from shoplens.accounts.entities import PERMISSIONS, Principal, PrincipalKind, Role
from shoplens.db import Database
from shoplens.errors import RequestInvalid
from shoplens.images.fingerprint import fingerprint
from shoplens.moderation.consequences.appeals import MAX_MESSAGE, AppealService
from shoplens.moderation.entities import DecisionKind, HashVerdict, PhotoState, QueueReason
from shoplens.moderation.errors import (
    AnotherPersonDecides,
    AppealExists,
    AppealNotFound,
    NotRefused,
    PhotoNotFound,
)
from shoplens.moderation.intake.memory import HashMemory
from shoplens.moderation.queue.review import Choice, PhotoReview
from shoplens.moderation.queue.service import PhotoQueue, QueueRules
from shoplens.moderation.reasons import DEFAULT_REASONS
from shoplens.moderation.repository import DecisionRepository, PhotoRepository
from shoplens.webhooks.tables import webhook_events
from tests.conftest import colourful
from tests.unit.moderation.photos import ANNA, BEN, listened, moment, photo_id, photo_of, stored

REFUSE = Choice(state=PhotoState.REFUSED, reason="not_the_product")
PUBLISH = Choice(state=PhotoState.PUBLISHED, answer="You are right, sorry.")
PRINT = fingerprint(colourful(1))
KIM = Principal(kind=PrincipalKind.PERSON, id="kim", name="kim", permissions=PERMISSIONS[Role.MODERATOR])


class Services:
    """People and shoppers at one database, with a clock that goes on by a second whenever it is read."""

    def __init__(self, database: Database, **rules: Any) -> None:
        self.database = database
        self.seconds = itertools.count(100.0)
        table = {"reviews": QueueRules(**rules)}
        self.appeals = AppealService(
            database, reasons=lambda _: DEFAULT_REASONS, kept_days={"reviews": 30}, clock=self.now
        )
        self.review = PhotoReview(database, rules=table, clock=self.now)
        self.queue = PhotoQueue(database, rules=table, clock=self.now)

    def now(self) -> datetime:
        """A second later each time."""
        return moment(next(self.seconds))

    def events(self, kind: str) -> list[dict[str, Any]]:
        """The data of events of one type, oldest first."""
        with self.database.reading() as tx:
            found = select(webhook_events).where(webhook_events.c.type == kind).order_by(webhook_events.c.id)
            return [row.data for row in tx.execute(found)]

    def refused_by(self, person: Principal) -> Services:
        """Photo 1 came, and this person refused it."""
        stored(self.database, photo_of(1, fingerprint=PRINT))
        self.review.decide(photo_id(1), REFUSE, by=person, seen=None)
        return self


def test_the_statement_says_what_why_by_what_means_and_what_to_do(database: Database) -> None:
    """No name of staff, no score, no other photo."""
    statement = Services(database).refused_by(ANNA).appeals.statement(photo_id(1))
    assert ("not_the_product", "The photo does not show the product.") == (statement.reason, statement.ground)
    assert (True, False, True) == (
        statement.detected_automatically,
        statement.decided_automatically,
        statement.can_appeal,
    )
    text = statement.text()
    for part in ("is not shown", statement.ground, "A person decided this", "until 03 June 2026", "court", photo_id(1)):
        assert part in text
    for secret in ("anna", "nsfw", "0.3"):
        assert secret not in text.lower()


def test_a_machine_that_refuses_says_so(database: Database) -> None:
    """Article 17 asks whether the decision was taken by automated means."""
    stored(database, photo_of(1, state=PhotoState.REFUSED, rule="near_refused: distance 2"))
    statement = Services(database).appeals.statement(photo_id(1))
    assert (None, "The photo does not follow our rules for reviews.") == (statement.reason, statement.ground)
    assert statement.decided_automatically
    assert "A program decided this without a person." in statement.text()
    assert "distance" not in statement.text()


@pytest.mark.parametrize("state", [PhotoState.HELD, PhotoState.PUBLISHED])
def test_what_is_not_refused_has_no_statement_and_no_appeal(database: Database, state: PhotoState) -> None:
    """Nor does what does not exist."""
    stored(database, photo_of(1, state=state))
    services = Services(database)
    with pytest.raises(NotRefused):
        services.appeals.statement(photo_id(1))
    with pytest.raises(NotRefused):
        services.appeals.appeal(photo_id(1), "please")
    with pytest.raises(PhotoNotFound):
        services.appeals.appeal(photo_id(2), "please")
    with pytest.raises(AppealNotFound):
        services.appeals.of(photo_id(1))


@pytest.mark.parametrize("message", ["", "  \x00 ", "x" * (MAX_MESSAGE + 1)])
def test_a_message_has_one_to_two_thousand_characters(database: Database, message: str) -> None:
    """And a refused one is no appeal, so that the shopper can try again."""
    services = Services(database).refused_by(ANNA)
    with pytest.raises(RequestInvalid, match="characters"):
        services.appeals.appeal(photo_id(1), message)
    assert "x" * MAX_MESSAGE == services.appeals.appeal(photo_id(1), "x" * MAX_MESSAGE).message


def test_there_is_one_appeal_per_photo_also_after_its_end(database: Database) -> None:
    """The second try is a conflict."""
    services = Services(database).refused_by(ANNA)
    appeal = services.appeals.appeal(photo_id(1), "It is the jacket.")
    with pytest.raises(AppealExists):
        services.appeals.appeal(photo_id(1), "Again.")
    services.review.decide(photo_id(1), REFUSE, by=BEN, seen=None)
    with pytest.raises(AppealExists):
        services.appeals.appeal(photo_id(1), "Again.")
    assert (appeal.message, PhotoState.REFUSED) == (
        services.appeals.of(photo_id(1)).message,
        services.appeals.of(photo_id(1)).outcome,
    )
    assert "it stays so" in services.appeals.statement(photo_id(1)).text()


def test_another_person_than_the_first_decides(database: Database) -> None:
    """The first one is not offered the photo, and cannot decide it. The setting is named for a shop with one person."""
    services = Services(database).refused_by(ANNA)
    services.appeals.appeal(photo_id(1), "It is the jacket.")
    assert [] == services.queue.claim("reviews", by=ANNA, count=5).photos
    with pytest.raises(AnotherPersonDecides, match="appeals_by_same_person"):
        services.review.decide(photo_id(1), PUBLISH, by=ANNA, seen=None)
    (offered,) = services.queue.claim("reviews", by=BEN, count=5).photos
    assert (photo_id(1), QueueReason.APPEAL) == (offered.id, offered.queue)
    assert [photo_id(1)] == [photo.id for _, photo in services.appeals.open()]
    assert PhotoState.PUBLISHED is services.review.decide(photo_id(1), PUBLISH, by=BEN, seen=None).state
    assert [] == services.appeals.open()


def test_a_refusal_of_the_policy_may_be_decided_by_anybody(database: Database) -> None:
    """No person was the first."""
    stored(database, photo_of(1, state=PhotoState.REFUSED))
    services = Services(database)
    services.appeals.appeal(photo_id(1), "It is the jacket.")
    assert PhotoState.PUBLISHED is services.review.decide(photo_id(1), PUBLISH, by=ANNA, seen=None).state


def test_an_admin_who_is_alone_may_decide_after_the_setting_and_a_moderator_may_not(database: Database) -> None:
    """Else the appeal would wait for ever in a shop with one person."""
    services = Services(database, appeals_by_same_person=True).refused_by(ANNA)
    services.appeals.appeal(photo_id(1), "It is the jacket.")
    assert [photo_id(1)] == [photo.id for photo in services.queue.claim("reviews", by=ANNA, count=5).photos]
    assert PhotoState.PUBLISHED is services.review.decide(photo_id(1), PUBLISH, by=ANNA, seen=None).state
    stored(database, photo_of(2))
    services.review.decide(photo_id(2), REFUSE, by=KIM, seen=None)
    services.appeals.appeal(photo_id(2), "This one too.")
    assert [] == services.queue.claim("reviews", by=KIM, count=5).photos
    with pytest.raises(AnotherPersonDecides):
        services.review.decide(photo_id(2), PUBLISH, by=KIM, seen=None)


def test_an_appeal_that_is_right_publishes_the_photo_and_corrects_the_memory(database: Database) -> None:
    """With an event for the shop, and the answer for the shopper."""
    listened(database, "shop", "appeal.decided")
    services = Services(database).refused_by(ANNA)
    memory = HashMemory(database)
    assert [HashVerdict.REFUSED] == list(memory.nearest("reviews", PRINT, within=2))
    services.appeals.appeal(photo_id(1), "It is the jacket.")
    services.review.decide(photo_id(1), PUBLISH, by=BEN, seen=None)
    assert [HashVerdict.ACCEPTED] == list(memory.nearest("reviews", PRINT, within=2))
    appeal = services.appeals.of(photo_id(1))
    assert (PhotoState.PUBLISHED, BEN.id, "You are right, sorry.") == (appeal.outcome, appeal.decided_by, appeal.answer)
    (event,) = services.events("appeal.decided")
    assert (photo_id(1), "published", "c-1", appeal.id, appeal.answer) == (
        event["id"],
        event["state"],
        event["customer"],
        event["appeal"],
        event["answer"],
    )
    assert BEN.id not in str(event)
    with database.reading() as tx:
        assert DecisionKind.APPEAL is DecisionRepository(tx).of(photo_id(1))[-1].kind


def test_a_decision_on_an_appeal_that_is_taken_back_opens_it_again(database: Database) -> None:
    """The photo waits as before, and is refused and remembered as such."""
    services = Services(database).refused_by(ANNA)
    services.appeals.appeal(photo_id(1), "It is the jacket.")
    services.review.decide(photo_id(1), PUBLISH, by=BEN, seen=None)
    services.review.undo(photo_id(1), by=BEN)
    appeal = services.appeals.of(photo_id(1))
    assert (None, None, None, None) == (appeal.decided_at, appeal.decided_by, appeal.outcome, appeal.answer)
    with database.reading() as tx:
        photo = PhotoRepository(tx).get(photo_id(1))
    assert (PhotoState.REFUSED, QueueReason.APPEAL) == (photo.state, photo.queue)
    assert [HashVerdict.REFUSED] == list(HashMemory(database).nearest("reviews", PRINT, within=2))


def test_a_refusal_cannot_be_taken_back_once_the_shopper_has_appealed(database: Database) -> None:
    """Otherwise the same person could refuse the photo a second time, and the appeal would be over."""
    services = Services(database)
    stored(database, photo_of(1))
    services.review.decide(photo_id(1), REFUSE, by=KIM, seen=None)
    services.appeals.appeal(photo_id(1), "It is the jacket.")
    with pytest.raises(AnotherPersonDecides):
        services.review.undo(photo_id(1), by=KIM)
    with pytest.raises(AnotherPersonDecides):
        services.review.decide(photo_id(1), REFUSE, by=KIM, seen=None)
    assert services.appeals.of(photo_id(1)).decided_at is None
    services.review.escalate(photo_id(1), by=BEN)
    services.review.undo(photo_id(1), by=BEN)
    services.review.decide(photo_id(1), PUBLISH, by=BEN, seen=None)
    assert BEN.id == services.appeals.of(photo_id(1)).decided_by


def test_nobody_can_appeal_for_a_photo_that_was_deleted(database: Database) -> None:
    """Nobody could look at it again."""
    stored(database, photo_of(1, state=PhotoState.REFUSED, image_key=None))
    services = Services(database)
    with pytest.raises(NotRefused, match="deleted"):
        services.appeals.appeal(photo_id(1), "It is the jacket.")
    statement = services.appeals.statement(photo_id(1))
    assert not statement.can_appeal
    assert "The photo was deleted meanwhile" in statement.text()
