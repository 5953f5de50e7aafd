"""The pages Drift and Accuracy of monitoring."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query
from starlette.responses import HTMLResponse

from shoplens.accounts.access import requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.monitoring.accuracy_service import AccuracyService
from shoplens.monitoring.drift import LEAST_DAYS, LEAST_ROWS
from shoplens.monitoring.drift_charts import WORDS, changed_names, measures_of, threshold_chart
from shoplens.monitoring.drift_service import DriftService
from shoplens.monitoring.profile import NAMED, Measure
from shoplens.predictions.entities import Channel, photos_need
from shoplens.web.rendering import PageRoute, add_filters, page

HOME: Final = "/console/monitoring"
GOALS: Final = (0.005, 0.01, 0.02, 0.05, 0.1)

Reader = Annotated[Principal, Depends(requires(Permission.MONITORING_READ))]
ChannelName = Annotated[str, Query(max_length=200)]


class SampleAddresses:
    """Where the page and the thumbnail of a sample are: those of moderated channels are in moderation."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = channels

    def page(self, channel: str, sample_id: str) -> str:
        """The page in the console."""
        place = "moderation/photos" if self._moderated(channel) else "records"
        return f"/console/{place}/{quote(sample_id)}"

    def thumbnail(self, channel: str, sample_id: str) -> str:
        """The small photo, which asks for the permission of its channel."""
        place = "moderation/photos" if self._moderated(channel) else "predictions"
        return f"/{place}/{quote(sample_id)}/image?size=thumbnail"

    def _moderated(self, channel: str) -> bool:
        return photos_need(self._channels, channel) is Permission.MODERATION_REVIEW


def drift_pages(drift: DriftService, accuracy: AccuracyService) -> APIRouter:
    """Both pages, with a section per channel."""
    router = APIRouter(route_class=PageRoute)
    addresses = SampleAddresses(drift.channels)

    @router.get(f"{HOME}/drift")
    def days(principal: Reader, channel: ChannelName = "", day: date | None = None) -> HTMLResponse:
        chosen = drift.channel(channel or None)
        report = drift.of(chosen.name, day=day)
        return page(
            "drift.html",
            channel=chosen,
            channels=list(drift.channels.values()),
            report=report,
            measures=measures_of(report),
            names={measure: changed_names(report, measure) for measure in NAMED},
            may_see=principal.may(photos_need(drift.channels, chosen.name)),
            addresses=addresses,
            least_days=LEAST_DAYS,
            least_rows=LEAST_ROWS,
        )

    @router.get(f"{HOME}/accuracy")
    def share_right(
        _: Reader, channel: ChannelName = "", goal: Annotated[float, Query(gt=0, le=0.5)] = 0.01
    ) -> HTMLResponse:
        chosen = accuracy.channel(channel or None)
        report = accuracy.of(chosen.name)
        choice = report.choose(goal)
        now = None if report.accept_at is None else report.accept_at
        current = next((point for point in report.points if now is not None and abs(point.at - now) < 0.005), None)
        return page(
            "accuracy.html",
            channel=chosen,
            channels=list(accuracy.channels.values()),
            report=report,
            found=report.production,
            choice=choice,
            current=current,
            chart=threshold_chart(report, choice.point),
            goal=goal,
            goals=GOALS,
        )

    return router


def measure_name(measure: Measure) -> str:
    """For people to read."""
    return WORDS[measure].name


add_filters(measure_name)
