"""The facts that alerts look at are those that the database has; what nobody wrote down is not known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shoplens.batch.repository import ItemRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.batch.schedule import Planner, Schedule
from shoplens.batch.status import RunStatus
from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database
from shoplens.mail.entities import MailKind, Message
from shoplens.mail.outbox import post
from shoplens.monitoring.accuracy.service import AccuracyService
from shoplens.monitoring.alerts.episodes import Timing
from shoplens.monitoring.alerts.facts import Facts
from shoplens.monitoring.alerts.reading import ReadFacts, WatchGauges
from shoplens.monitoring.alerts.service import AlertRules, AlertService
from shoplens.monitoring.series.entities import MINUTE_S, SERVER, Counts, MinuteReading, SeriesKey, ServerState
from shoplens.monitoring.series.forecast import DiskForecast, DiskTrend
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.predictions.entities import Channel
from shoplens.registry.live import FollowedModel
from shoplens.telemetry.metrics import Metrics
from shoplens.webhooks.outbox import emit
from shoplens.webhooks.repository import DeliveryRepository, EndpointRepository
from shoplens.webhooks.sender import Attempt, after
from shoplens.webhooks.service import WebhookService
from shoplens.webhooks.targets import Targets
from tests.samples import make_item, make_run, moment

NOW = datetime(2026, 5, 15, 12, 34, 30, tzinfo=UTC)
CHANNELS = {"look": Channel(name="look", model="m", title="Look", question="?")}
DISK = DiskForecast(trend=DiskTrend.FILLING, free_bytes=1, total_bytes=2, days_left=3.5, full_at=NOW)


@pytest.fixture
def read(database: Database) -> Callable[..., Facts]:
    """The facts at the fixed time."""

    def facts(**more: Any) -> Facts:
        plain: dict[str, Any] = {
            "database": database, "channels": ("look",), "has_workers": False, "least_accuracy": 0.9,
            "statuses": lambda: {"look": RunStatus(waiting=7)}, "missed": dict, "followed": tuple, "disk": lambda: DISK,
            "accuracy": AccuracyService(
                database, channels=CHANNELS, jobs={}, policy_of=lambda name: CHANNELS[name].policy, clock=lambda: NOW
            ),
            "quarantined_jobs": lambda: None, "clock": lambda: NOW, **more,
        }  # fmt: skip
        return ReadFacts(**plain)()

    return facts


def written(database: Database, ago_min: int, counts: dict[SeriesKey, Counts], queue: int = 0) -> None:
    """What a server wrote down so many minutes ago."""
    at = int(NOW.timestamp()) // MINUTE_S * MINUTE_S - ago_min * MINUTE_S
    with database.transaction() as tx:
        SeriesRepository(tx).add([MinuteReading(begins_s=at, counts=counts, state=ServerState(queue=queue))])


def test_requests_are_those_of_the_last_minutes_of_all_models(database: Database, read: Callable[..., Facts]) -> None:
    """Five for shares, ten for latency; older ones are over."""
    for ago in (1, 4, 8, 30):
        counts = {
            SeriesKey("look", "a"): Counts(answered=10),
            SeriesKey("look", "b"): Counts(failed=1),
            SeriesKey(SERVER): Counts(answered=12),
        }
        written(database, ago, counts, queue=ago)
    found = read()
    assert {"look": Counts(answered=20, failed=2)} == found.channels
    assert {"look": Counts(answered=30, failed=3)} == found.slow
    assert Counts(answered=24) == found.server
    assert ServerState(queue=1) == found.state
    assert {"look": RunStatus(waiting=7)} == found.runs


def test_a_server_that_wrote_nothing_down_knows_nothing(database: Database, read: Callable[..., Facts]) -> None:
    """Neither that there were no requests, nor that the queue is empty; old minutes say nothing of now."""
    written(database, 30, {SeriesKey(SERVER): Counts(answered=1)})
    found = read()
    assert (None, None, None, None, None) == (
        found.server, found.channels, found.slow, found.state, found.quarantined_jobs,
    )  # fmt: skip


def test_a_refused_champion_is_named_with_its_fault(read: Callable[..., Facts]) -> None:
    """One that only waits for the registry is not refused."""
    model = FollowedModel(name="m", serving=ModelRef(name="m", version="1"), fault="It failed.", refused=True)
    away = replace(model, name="n", refused=False, fault="The registry is away.")
    assert {"m": "It failed."} == read(followed=lambda: (model, away)).refused


def test_a_planned_run_that_did_not_begin_is_an_alert_until_one_begins(
    database: Database, read: Callable[..., Facts]
) -> None:
    """From the items that wait and the schedule to the alert, the gauge for Prometheus, and the end of both."""
    now = moment(3 * 3600)
    schedules = {"returns": Schedule(expression="0 13 * * *", zone=UTC)}
    missed = Planner(database, schedules, clock=lambda: now, last_trigger=lambda _: None).missed
    timing = Timing(resolve_after_s=0, repeat_after_s=86_400, longest_step_s=90)
    rules = AlertRules(every_s=30, timing=timing, server=None, recipients=(), public_url="")
    alerts = AlertService(database, rules, facts=lambda: read(missed=missed), clock=lambda: now)
    metrics = Metrics()
    gauges = WatchGauges(database=database, metrics=metrics, missed=missed, disk=lambda: DISK, clock=lambda: now)

    def firing() -> list[tuple[str, str]]:
        nonlocal now
        now += timedelta(seconds=31)
        alerts.look_if_due()
        gauges()
        return [(each.rule, each.subject) for each in alerts.view().firing]

    assert [] == firing()
    with database.transaction() as tx:
        ItemRepository(tx).add_many([make_item(1)])
    assert [("ShoplensRunMissed", "returns")] == firing()
    assert 'shoplens_batch_run_missed{channel="returns"} 1.0' in metrics.exposition().decode()
    with database.transaction() as tx:
        RunRepository(tx).add(make_run(-3600))  # it began before the planned time, and works on
    assert [] == firing()
    assert 'shoplens_batch_run_missed{channel="returns"} 0.0' in metrics.exposition().decode()


def test_the_oldest_event_and_mail_that_nobody_took_are_known(database: Database, read: Callable[..., Facts]) -> None:
    """Also those that were given up today; not those of endpoints that are disabled."""
    clock = lambda: NOW  # noqa: E731
    webhooks = WebhookService(database, targets=Targets(["127.0.0.0/8"]), event_types=("x",), clock=clock)
    endpoint = webhooks.add("http://127.0.0.1:9/hooks")
    assert (0.0, 0.0) == (read().webhook_age_s, read().mail_age_s)
    with database.transaction() as tx:
        emit(tx, "x", {}, now=NOW - timedelta(hours=2))
        post(
            tx, Message(subject="x", sections=()), kind=MailKind.ALERT, about="x", sender="s@shop.example",
            recipients=("a@shop.example",), now=NOW - timedelta(hours=3),
        )  # fmt: skip
    assert (7_200.0, 10_800.0) == (read().webhook_age_s, read().mail_age_s)
    metrics = Metrics()
    WatchGauges(database=database, metrics=metrics, missed=dict, disk=lambda: DISK, clock=clock)()
    shown = metrics.exposition().decode()
    assert 'shoplens_outbox_oldest_seconds{way="webhook"} 7200.0' in shown
    assert 'shoplens_outbox_oldest_seconds{way="mail"} 10800.0' in shown
    assert "shoplens_disk_days_left 3.5" in shown
    with database.transaction() as tx:
        (sending,) = DeliveryRepository(tx).lease(now=NOW, until=NOW + timedelta(minutes=1), busy=(), limit=5)
        given_up = after(sending.delivery, Attempt(status=410, error="gone", is_gone=True), now=NOW)
        DeliveryRepository(tx).update(given_up)
    assert 7_200.0 == read().webhook_age_s
    assert 0.0 == read(clock=lambda: NOW + timedelta(days=2)).webhook_age_s
    with database.transaction() as tx:
        EndpointRepository(tx).change(endpoint.id, disabled_at=NOW)
    assert 0.0 == read().webhook_age_s
