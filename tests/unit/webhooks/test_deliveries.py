"""Events wait in the database until they are taken: outbox, leases, attempts, and sending again. No network."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from shoplens.db import Database
from shoplens.webhooks.entities import Delivery, DeliveryState
from shoplens.webhooks.errors import DeliveryNotFound, EndpointInvalid, EndpointNotFound
from shoplens.webhooks.outbox import emit
from shoplens.webhooks.repository import DeliveryRepository, Sending
from shoplens.webhooks.sender import DELAYS_S, Attempt, after
from shoplens.webhooks.service import WebhookService
from shoplens.webhooks.targets import Targets

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TYPES = ("photo.published", "photo.refused")
URL = "https://shop.example/hooks"


@pytest.fixture
def webhooks(database: Database) -> WebhookService:
    """What looks after the endpoints of this test."""
    return WebhookService(database, targets=Targets(), event_types=TYPES, clock=lambda: NOW)


@pytest.fixture
def happen(database: Database) -> Callable[[str], None]:
    """Emit an event in a transaction of its own."""

    def emit_one(event_type: str) -> None:
        with database.transaction() as tx:
            emit(tx, event_type, {"id": "p1"}, now=NOW)

    return emit_one


def lease(database: Database, now: datetime = NOW, **more: object) -> list[Sending]:
    """Take what is due for a minute."""
    with database.transaction() as tx:
        options = {"busy": (), "limit": 10, **more}
        return DeliveryRepository(tx).lease(now=now, until=now + timedelta(seconds=60), **options)  # type: ignore[arg-type]


def test_an_event_goes_to_the_endpoints_that_want_it(
    database: Database, webhooks: WebhookService, happen: Callable[[str], None]
) -> None:
    """To each once; to a disabled one not."""
    every = webhooks.add(URL)
    refused = webhooks.add(URL, events=["photo.refused"])
    disabled = webhooks.add(URL)
    webhooks.set_enabled(disabled.id, False)
    happen("photo.published")
    happen("photo.refused")
    wanted = [(each.delivery.endpoint_id, each.type) for each in webhooks.deliveries()]
    assert sorted(wanted) == sorted(
        [(every.id, "photo.published"), (every.id, "photo.refused"), (refused.id, "photo.refused")]
    )


def test_an_event_is_taken_back_with_its_cause(database: Database, webhooks: WebhookService) -> None:
    """The transaction did not happen, so no event is sent."""
    webhooks.add(URL)
    with pytest.raises(ZeroDivisionError), database.transaction() as tx:
        emit(tx, "photo.published", {}, now=NOW)
        1 / 0  # noqa: B018
    assert [] == webhooks.deliveries()


def test_a_delivery_is_leased_to_one_process_and_again_when_that_one_died(
    database: Database, webhooks: WebhookService, happen: Callable[[str], None]
) -> None:
    """After the lease, not before."""
    webhooks.add(URL)
    happen("photo.published")
    (first,) = lease(database)
    assert [] == lease(database)
    assert [] == lease(database, NOW + timedelta(seconds=59))
    (again,) = lease(database, NOW + timedelta(seconds=61))
    assert first.delivery.id == again.delivery.id
    assert "photo.published" == again.event.type


def test_an_endpoint_gets_one_event_at_a_time_and_a_busy_one_none(
    database: Database, webhooks: WebhookService, happen: Callable[[str], None]
) -> None:
    """So a slow endpoint holds back only its own."""
    slow, quick = webhooks.add(URL), webhooks.add(URL)
    for _ in range(3):
        happen("photo.published")
    assert {slow.id, quick.id} == {each.endpoint.id for each in lease(database)}
    assert [quick.id] == [each.endpoint.id for each in lease(database, busy=(slow.id,))]


def test_attempts_grow_apart_for_a_day_and_then_the_delivery_is_dead() -> None:
    """Nine of them."""
    delivery = Delivery(
        id="d", event_id="e", endpoint_id="x", state=DeliveryState.PENDING, attempts=0, next_at=NOW, lease_until=NOW
    )
    now = NOW
    for expected_s in DELAYS_S:
        delivery = after(delivery, Attempt(status=500, error="It answered 500."), now=now)
        assert 0.9 * expected_s <= (delivery.next_at - now).total_seconds() <= 1.1 * expected_s
        assert (DeliveryState.PENDING, None) == (delivery.state, delivery.lease_until)
        now = delivery.next_at
    assert timedelta(hours=20) < now - NOW < timedelta(hours=28)
    dead = after(delivery, Attempt(error="There was no answer."), now=now)
    assert (DeliveryState.DEAD, now, len(DELAYS_S) + 1) == (dead.state, dead.finished_at, dead.attempts)


def test_an_endpoint_may_ask_for_more_time_but_not_for_ever() -> None:
    """Retry-After counts, up to a day."""
    delivery = Delivery(id="d", event_id="e", endpoint_id="x", state=DeliveryState.PENDING, attempts=0, next_at=NOW)
    for asked_s, waits_s in ((120.0, 120.0), (1e9, 86_400.0)):
        later = after(delivery, Attempt(status=429, error="x", retry_after_s=asked_s), now=NOW)
        assert waits_s == (later.next_at - NOW).total_seconds()


def test_what_is_dead_is_sent_again_when_asked_for(
    database: Database, webhooks: WebhookService, happen: Callable[[str], None]
) -> None:
    """One by its id, or all; what still waits is left alone."""
    endpoint = webhooks.add(URL)
    happen("photo.published")
    happen("photo.refused")
    with pytest.raises(DeliveryNotFound):
        webhooks.replay(webhooks.deliveries()[0].delivery.id)
    for sending in (*lease(database), *lease(database)):
        with database.transaction() as tx:
            DeliveryRepository(tx).update(after(sending.delivery, Attempt(error="x", is_gone=True), now=NOW))
    assert {DeliveryState.DEAD: 2} == webhooks.endpoints()[0].counts
    first = webhooks.deliveries(state=DeliveryState.DEAD)[0].delivery
    webhooks.replay(first.id)
    assert {DeliveryState.DEAD: 1, DeliveryState.PENDING: 1} == webhooks.endpoints()[0].counts
    assert 1 == webhooks.replay_dead(endpoint.id)
    assert {DeliveryState.PENDING: 2} == webhooks.endpoints()[0].counts


def test_old_events_are_removed_once_they_are_delivered(
    database: Database, webhooks: WebhookService, happen: Callable[[str], None]
) -> None:
    """What is dead or waits stays, since it can still be sent."""
    webhooks.add(URL)
    happen("photo.published")
    happen("photo.refused")
    (sending,) = lease(database)
    with database.transaction() as tx:
        DeliveryRepository(tx).update(after(sending.delivery, Attempt(status=200), now=NOW))
        assert 0 == DeliveryRepository(tx).remove_before(NOW, limit=10)
        assert 1 == DeliveryRepository(tx).remove_before(NOW + timedelta(days=1), limit=10)
    assert [DeliveryState.PENDING] == [each.delivery.state for each in webhooks.deliveries()]


def test_an_unknown_event_is_refused_with_the_one_that_was_meant(webhooks: WebhookService) -> None:
    """Else nothing would ever be sent, and nobody would know."""
    with pytest.raises(EndpointInvalid, match=r"photo\.published"):
        webhooks.add(URL, events=["photo.publish"])


def test_an_endpoint_that_is_not_there_is_said(webhooks: WebhookService) -> None:
    """For each action on it."""
    for action in (webhooks.remove, webhooks.test, lambda each: webhooks.set_enabled(each, True)):
        with pytest.raises(EndpointNotFound):
            action("nothing")
