"""Read the facts that the rules look at, from the database and from what this process knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shoplens.batch.status import RunStatus
from shoplens.db import Database
from shoplens.mail.repository import MailRepository
from shoplens.monitoring.accuracy.service import AccuracyService
from shoplens.monitoring.alerts.facts import Facts
from shoplens.monitoring.drift.charts import WORDS
from shoplens.monitoring.drift.repository import DriftRepository
from shoplens.monitoring.series.entities import MINUTE_S, SERVER, Counts, SeriesKey, total
from shoplens.monitoring.series.forecast import DiskForecast
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.registry.live import FollowedModel
from shoplens.telemetry.metrics import Metrics
from shoplens.webhooks.repository import DeliveryRepository

_REQUESTS_S: Final = 5 * MINUTE_S
_SLOW_S: Final = 10 * MINUTE_S
_DRIFT: Final = timedelta(days=7)
"""An alarm that is older than this says nothing of now."""
DEAD_FOR: Final = timedelta(days=1)
"""For so long an event or mail that was given up counts as waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadFacts:
    """Call it for the facts. Blocks; raises DatabaseUnavailable. `quarantined_jobs` is None where it cannot be known.

    `statuses` are those of every channel with a batch side, `missed` those of every channel with a schedule, `disk` the
    forecast.
    """

    database: Database
    channels: Sequence[str]
    has_workers: bool
    least_accuracy: float
    statuses: Callable[[], Mapping[str, RunStatus]]
    missed: Callable[[], Mapping[str, datetime | None]]
    followed: Callable[[], Sequence[FollowedModel]]
    accuracy: AccuracyService
    disk: Callable[[], DiskForecast]
    quarantined_jobs: Callable[[], int | None]
    clock: Callable[[], datetime]

    def __call__(self) -> Facts:
        """All of them, as they are now."""
        now = self.clock()
        # A minute is written down when it ends; the one before may still be missing.
        until_s = int(now.timestamp()) // MINUTE_S * MINUTE_S
        with self.database.reading() as tx:
            series = SeriesRepository(tx)
            states = series.states(
                step_s=MINUTE_S, bucket_s=MINUTE_S, since_s=until_s - 2 * MINUTE_S, until_s=until_s + MINUTE_S
            )
            recent = series.by_series(step_s=MINUTE_S, since_s=until_s - _REQUESTS_S, until_s=until_s)
            slow = series.by_series(step_s=MINUTE_S, since_s=until_s - _SLOW_S, until_s=until_s)
            drift = DriftRepository(tx).last_alarms(self.channels, (now - _DRIFT).date())
            webhook_at = DeliveryRepository(tx).oldest_at(dead_since=now - DEAD_FOR)
            mail_at = MailRepository(tx).oldest_at(dead_since=now - DEAD_FOR)
        watched = bool(states)
        estimates = {name: self.accuracy.of(name).automatic for name in self.channels}
        return Facts(
            server=recent.get(SeriesKey(SERVER), Counts()) if watched else None,
            channels=_by_channel(recent) if watched else None,
            slow=_by_channel(slow) if watched else None,
            state=states[max(states)].state if states else None,
            has_workers=self.has_workers,
            runs=self.statuses(),
            missed={channel: at for channel, at in self.missed().items() if at is not None},
            refused={each.name: each.fault or "" for each in self.followed() if each.refused},
            drift={
                channel: (day, [WORDS[each].name for each in measures]) for channel, (day, measures) in drift.items()
            },
            accuracy={name: (each.value, each.high) for name, each in estimates.items() if each is not None},
            least_accuracy=self.least_accuracy,
            disk=self.disk(),
            webhook_age_s=_age_s(webhook_at, now),
            mail_age_s=_age_s(mail_at, now),
            quarantined_jobs=self.quarantined_jobs(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchGauges:
    """Call it to set the gauges of the forecast, the outboxes and planned runs. Blocks; raises DatabaseUnavailable."""

    database: Database
    metrics: Metrics
    missed: Callable[[], Mapping[str, datetime | None]]
    disk: Callable[[], DiskForecast]
    clock: Callable[[], datetime]

    def __call__(self) -> None:
        """Set them."""
        now = self.clock()
        with self.database.reading() as tx:
            oldest = {
                "webhook": DeliveryRepository(tx).oldest_at(dead_since=now - DEAD_FOR),
                "mail": MailRepository(tx).oldest_at(dead_since=now - DEAD_FOR),
            }
        for way, at in oldest.items():
            self.metrics.outbox_seconds.labels(way).set(_age_s(at, now))
        for channel, missed_at in self.missed().items():
            self.metrics.batch_run_missed.labels(channel).set(missed_at is not None)
        days = self.disk().days_left
        self.metrics.disk_days.set(float("nan") if days is None else days)


def _by_channel(counts: Mapping[SeriesKey, Counts]) -> dict[str, Counts]:
    names = sorted({key.channel for key in counts if key.channel != SERVER})
    return {name: total(each for key, each in counts.items() if key.channel == name) for name in names}


def _age_s(since: datetime | None, now: datetime) -> float:
    """Never negative, although clocks may jump."""
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
