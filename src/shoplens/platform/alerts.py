"""Build what tells people that something is wrong from the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from shoplens.db import Database
from shoplens.errors import Misconfigured
from shoplens.monitoring.accuracy.service import AccuracyService
from shoplens.monitoring.alerts.episodes import Timing
from shoplens.monitoring.alerts.facts import Facts
from shoplens.monitoring.alerts.reading import ReadFacts, WatchGauges
from shoplens.monitoring.alerts.rules import BY_NAME
from shoplens.monitoring.alerts.service import AlertRules, AlertService
from shoplens.monitoring.alerts.watcher import AlertWatcher
from shoplens.monitoring.series.service import MonitoringService
from shoplens.platform.batch import build_planner, read_statuses
from shoplens.platform.mail import mail_recipients, mail_server
from shoplens.platform.parts import build_database, utc_now
from shoplens.registry.live import FollowedModel
from shoplens.settings import Settings
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

_QUARANTINE: Final = timedelta(minutes=15)
_STEPS: Final = 3
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alerts:
    """What shows alerts, and what looks for them: it does nothing until it is started."""

    service: AlertService
    watcher: AlertWatcher


def build_alerts(
    settings: Settings,
    database: Database,
    metrics: Metrics,
    *,
    series: MonitoringService,
    accuracy: AccuracyService,
    followed: Callable[[], Sequence[FollowedModel]],
) -> Alerts:
    """For a server. Raises Misconfigured."""
    planner = build_planner(settings, database)
    facts = ReadFacts(
        database=database,
        channels=tuple(series.channels),
        has_workers=settings.redis_url is not None,
        least_accuracy=settings.alerts.least_accuracy,
        statuses=read_statuses(settings, database),
        missed=planner.missed,
        followed=followed,
        accuracy=accuracy,
        disk=series.disk,
        quarantined_jobs=lambda: _quarantined_jobs(settings),
        clock=utc_now,
    )
    service = AlertService(database, _rules(settings), facts=facts, clock=utc_now)
    gauges = WatchGauges(database=database, metrics=metrics, missed=planner.missed, disk=series.disk, clock=utc_now)
    return Alerts(service=service, watcher=AlertWatcher(service, metrics, looks=settings.alerts.watch, also=gauges))


@contextmanager
def open_alerts(settings: Settings) -> Iterator[AlertService]:
    """What shows alerts, for a command: it does not look. Raises Misconfigured and DatabaseUnavailable."""
    with closing(build_database(settings)) as database:
        yield AlertService(database, _rules(settings), facts=Facts, clock=utc_now)


def _rules(settings: Settings) -> AlertRules:
    wanted = settings.alerts
    for name in wanted.off:
        if name.partition("/")[0] not in BY_NAME:
            raise Misconfigured(f"alerts.off: there is no alert {name[:100]!r}; known: {', '.join(BY_NAME)}.")
    running = {name for name, each in settings.channels.items() if each.batch is not None or each.catalogue is not None}
    for channel in mail_recipients(settings).reports:
        if channel not in running:
            known = ", ".join(sorted(running))
            raise Misconfigured(f"mail.reports: no channel with runs is called {channel[:100]!r}; known: {known}.")
    return AlertRules(
        every_s=wanted.every_s,
        timing=Timing(
            resolve_after_s=wanted.resolve_after_s,
            repeat_after_s=wanted.repeat_hours * 3600,
            longest_step_s=_STEPS * max(wanted.every_s, 30.0),
        ),
        off=wanted.off,
        server=mail_server(settings),
        recipients=mail_recipients(settings).alerts,
        public_url=settings.public_url or "",
        language_tag=settings.language,
    )


def _quarantined_jobs(settings: Settings) -> int | None:
    """Messages that web servers and workers quarantined in Redis in the last minutes; None where it does not answer."""
    if settings.redis_url is None:
        return 0
    from redis import Redis, RedisError

    since_ms = int((utc_now() - _QUARANTINE).timestamp() * 1000)
    try:
        with Redis.from_url(settings.redis_url, socket_timeout=2, socket_connect_timeout=2) as client:
            return len(client.xrange(f"{settings.redis_prefix}:quarantine", min=str(since_ms)))
    except RedisError as error:
        _log.debug("alerts.quarantine_unknown", reason=type(error).__name__)
        return None
