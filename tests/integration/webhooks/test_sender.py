"""Events reach real receivers, whatever those do: hang, redirect, fail, or go away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from standardwebhooks import Webhook

from servers.otlp import running_receiver
from servers.receivers import Receiver, running_event_receiver
from shoplens.db import Database
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.tracing import trace, tracing
from shoplens.webhooks.entities import DeliveryState
from shoplens.webhooks.outbox import emit
from shoplens.webhooks.sender import WebhookSender
from shoplens.webhooks.service import WebhookService
from shoplens.webhooks.targets import Target, Targets

PATIENCE_S = 60
TARGETS = Targets(["127.0.0.0/8"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    with running_event_receiver() as running:
        yield running


@pytest.fixture
def webhooks(database: Database) -> WebhookService:
    """What looks after the endpoints of this test."""
    return WebhookService(database, targets=TARGETS, event_types=("photo.published",), clock=lambda: datetime.now(UTC))


@pytest.fixture
def start(database: Database) -> Iterator[Callable[..., WebhookSender]]:
    """Start senders, which end with the test. `ahead` is how far their clock goes ahead, to skip waiting."""
    started: list[WebhookSender] = []

    def begin(*, ahead: timedelta = timedelta(), attempt_s: float = 15) -> WebhookSender:
        sender = WebhookSender(
            database,
            targets=TARGETS,
            clock=lambda: datetime.now(UTC) + ahead,
            metrics=Metrics(),
            attempt_s=attempt_s,
        )
        sender.start()
        started.append(sender)
        return sender

    yield begin
    for each in started:
        each.close()


def happen(database: Database, count: int = 1) -> None:
    """Emit events, each in a transaction of its own."""
    for number in range(count):
        with database.transaction() as tx:
            emit(tx, "photo.published", {"number": number}, now=datetime.now(UTC))


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it is so."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up_at, "it did not happen in time"
        time.sleep(0.02)


def counts(webhooks: WebhookService) -> dict[DeliveryState, int]:
    """The deliveries of the only endpoint by state."""
    return dict(webhooks.endpoints()[0].counts)


def test_an_endpoint_gets_its_next_event_when_it_has_answered(
    database: Database, webhooks: WebhookService, receiver: Receiver, start: Callable[..., WebhookSender]
) -> None:
    """Without a pause between them: after a night with thousands of photos a shop must not wait for hours."""
    webhooks.add(f"{receiver.url}/hooks")
    happen(database, 40)
    start()
    began = time.monotonic()
    wait_for(lambda: counts(webhooks) == {DeliveryState.DELIVERED: 40})
    assert time.monotonic() - began < 20


def test_a_receiver_gets_each_event_signed_and_in_order(
    database: Database, webhooks: WebhookService, receiver: Receiver, start: Callable[..., WebhookSender]
) -> None:
    """Checked with the reference library."""
    endpoint = webhooks.add(f"{receiver.url}/hooks")
    start()
    happen(database, 5)
    wait_for(lambda: counts(webhooks) == {DeliveryState.DELIVERED: 5})
    verify = Webhook(endpoint.secret).verify
    assert [0, 1, 2, 3, 4] == [verify(body, headers)["data"]["number"] for headers, body in receiver.events]
    assert receiver.events[0][0]["host"] == receiver.url.removeprefix("http://")


def test_an_endpoint_that_hangs_costs_the_others_nothing(
    database: Database, webhooks: WebhookService, receiver: Receiver, start: Callable[..., WebhookSender]
) -> None:
    """Nor the end of the process."""
    released = threading.Event()
    receiver.answer = lambda path: 204 + (path == "/hangs" and released.wait(PATIENCE_S))
    hanging, quick = webhooks.add(f"{receiver.url}/hangs"), webhooks.add(f"{receiver.url}/quick")
    sender = start(attempt_s=3)
    happen(database, 4)
    wait_for(lambda: webhooks.endpoints()[1].counts == {DeliveryState.DELIVERED: 4})
    assert DeliveryState.DELIVERED not in webhooks.endpoints()[0].counts
    wait_for(lambda: any("no answer within 3 s" in (each.delivery.last_error or "") for each in webhooks.deliveries()))
    sender.close()
    released.set()
    assert {hanging.id, quick.id} == {each.delivery.endpoint_id for each in webhooks.deliveries()}


@pytest.mark.parametrize("status", [500, 302, 404])
def test_what_is_not_taken_is_tried_again_and_redirects_are_not_followed(
    database: Database, webhooks: WebhookService, receiver: Receiver, start: Callable[..., WebhookSender], status: int
) -> None:
    """The event keeps its id, so that the receiver knows a repetition."""
    receiver.headers = {"location": f"{receiver.url}/elsewhere"} if status == 302 else {}
    receiver.answer = lambda _: status
    webhooks.add(f"{receiver.url}/hooks")
    first = start()
    happen(database)
    wait_for(lambda: len(receiver.events) == 1 and webhooks.deliveries()[0].delivery.attempts == 1)
    assert f"It answered {status}" in str(webhooks.deliveries()[0].delivery.last_error)
    first.close()
    receiver.answer = lambda _: 204
    start(ahead=timedelta(minutes=1))
    wait_for(lambda: counts(webhooks) == {DeliveryState.DELIVERED: 1})
    assert 1 == len({headers["webhook-id"] for headers, _ in receiver.events})
    assert ["/hooks", "/hooks"] == receiver.paths


def test_an_endpoint_that_is_gone_gets_no_more(
    database: Database, webhooks: WebhookService, receiver: Receiver, start: Callable[..., WebhookSender]
) -> None:
    """410 disables it."""
    receiver.answer = lambda _: 410
    webhooks.add(f"{receiver.url}/hooks")
    start()
    happen(database)
    wait_for(lambda: counts(webhooks) == {DeliveryState.DEAD: 1})
    assert webhooks.endpoints()[0].endpoint.disabled_at is not None


def test_a_name_that_leads_to_a_private_address_is_not_called(
    database: Database, receiver: Receiver, start: Callable[..., WebhookSender]
) -> None:
    """It is resolved at each attempt, since it may have been public when the endpoint was added."""
    anywhere = WebhookService(
        database, targets=Targets(["127.0.0.0/8"]), event_types=(), clock=lambda: datetime.now(UTC)
    )
    anywhere.add(receiver.url.replace("127.0.0.1", "localhost"))
    strict = WebhookSender(
        database, targets=Targets(["10.0.0.0/8"]), clock=lambda: datetime.now(UTC), metrics=Metrics()
    )
    strict.start()
    happen(database)
    wait_for(lambda: "not a public address" in str(anywhere.deliveries()[0].delivery.last_error))
    strict.close()
    assert [] == receiver.events


def test_two_processes_send_each_event_once(
    database: Database, webhooks: WebhookService, receiver: Receiver, start: Callable[..., WebhookSender]
) -> None:
    """While both are alive."""
    for _ in range(3):
        webhooks.add(receiver.url)
    start()
    start()
    happen(database, 10)
    wait_for(lambda: all(each.counts == {DeliveryState.DELIVERED: 10} for each in webhooks.endpoints()))
    assert 30 == len(receiver.events)


def test_a_receiver_gets_the_trace_of_the_attempt(
    database: Database,
    webhooks: WebhookService,
    receiver: Receiver,
    start: Callable[..., WebhookSender],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that its own trace continues ours, which links to that in which the event happened.

    The trace does not hold the address, which may be secret.
    """
    with running_receiver() as traces:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", traces.url)
        with tracing(on=True, service="shop"):
            webhooks.add(f"{receiver.url}/hooks/secret-part")
            sender = start()
            with trace("POST /photos"):
                happen(database)
            happen(database)
            wait_for(lambda: counts(webhooks) == {DeliveryState.DELIVERED: 2})
            sender.close()
    request, attempt, alone = sorted(traces.spans, key=lambda each: each.started_ns)
    assert ("POST /photos", ((request.trace, request.id),), ()) == (request.name, attempt.links, alone.links)
    assert 3 == len({each.trace for each in traces.spans})
    assert ["00", attempt.trace, attempt.id] == receiver.events[0][0]["traceparent"].split("-")[:3]
    assert ("POST webhook", 204) == (attempt.name, attempt.attributes["http.response.status_code"])
    assert "secret-part" not in str(attempt)


def test_a_fault_that_nobody_expected_ends_neither_other_events_nor_the_sender(
    database: Database, webhooks: WebhookService, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged with the delivery; what broke the whole loop is logged, too, and the loop begins again."""

    class FaultyTargets(Targets):
        def resolve(self, url: str) -> Target:
            if "faulty" in url:
                raise KeyError(url)
            return super().resolve(url)

    webhooks.add(f"{receiver.url}/faulty")
    webhooks.add(f"{receiver.url}/hooks")
    clocks = iter([RuntimeError("the clock cannot be read")])

    def clock() -> datetime:
        if (fault := next(clocks, None)) is not None:
            raise fault
        return datetime.now(UTC)

    happen(database, 3)
    sender = WebhookSender(database, targets=FaultyTargets(["127.0.0.0/8"]), clock=clock, metrics=Metrics())
    sender.start()
    try:
        wait_for(lambda: webhooks.endpoints()[1].counts == {DeliveryState.DELIVERED: 3})
    finally:
        sender.close()
    said = " ".join(record.getMessage() for record in caplog.records if record.levelname == "ERROR")
    assert "task.failed" in said
    assert "webhook.not_noted" in said
    assert {"/hooks"} == set(receiver.paths)
