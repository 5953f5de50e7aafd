"""The page Monitoring. It works without a script: ranges and channels are links."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.advice import no_channel
from shoplens.monitoring.series import charts
from shoplens.monitoring.series.entities import Range, SeriesKey
from shoplens.monitoring.series.service import LISTED_RUNS, MonitoringService
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

HOME: Final = "/console/monitoring"


def latency_words(seconds: float | None) -> str:
    """A latency, or that there is none."""
    return "–" if seconds is None else charts.duration(seconds)


add_filters(latency_words, charts.long_duration)


def monitoring_pages(
    monitoring: MonitoringService, *, records: bool, prometheus_url: str | None, grafana_url: str | None
) -> APIRouter:
    """GET /console/monitoring. `records`: this server writes its figures down."""
    router = page_router(dependencies=[guarded(Permission.MONITORING_READ)])

    @router.get(HOME)
    def show(
        chosen: Annotated[str, Query(alias="range", max_length=10)] = Range.DAY.value.name,
        channel: Annotated[str, Query(max_length=100)] = "",
    ) -> HTMLResponse:
        wanted = Range.named(chosen)
        known_channel(channel, monitoring)
        view = monitoring.series(wanted, SeriesKey(channel))
        days, runs = monitoring.days(wanted, channel), monitoring.runs(wanted, channel)
        drawn = charts.series_charts(view, monitoring.live.changes(channel), has_workers=monitoring.has_workers)
        return page(
            "monitoring.html",
            view=view,
            charts_of=drawn | charts.day_charts(days) | charts.run_charts(runs),
            days=days,
            jobs=monitoring.jobs(wanted, channel),
            runs=runs,
            listed_runs=runs[:LISTED_RUNS],
            disk=monitoring.disk(),
            live=[each for each in monitoring.live.now() if channel in ("", each.channel)],
            ranges=list(Range),
            channels=monitoring.channels,
            channel=channel,
            records=records,
            prometheus_url=prometheus_url,
            grafana_url=grafana_url,
            address=lambda range_, name: f"{HOME}?{urlencode({'range': range_.value.name, 'channel': name})}",
        )

    return router


def known_channel(name: str, monitoring: MonitoringService) -> None:
    """Raises ChannelNotFound for a channel that is not set up; "" means all of them."""
    if name and name not in monitoring.channels:
        raise no_channel(name, monitoring.channels)
