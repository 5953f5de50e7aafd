"""The page Drift of monitoring."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends, Form, Query
from starlette.responses import HTMLResponse, RedirectResponse

from shoplens.accounts.access import requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.messages import gettext
from shoplens.monitoring.drift.charts import WORDS, changed_names, measures_of
from shoplens.monitoring.drift.comparison import LEAST_DAYS, LEAST_ROWS
from shoplens.monitoring.drift.profile import NAMED, Measure
from shoplens.monitoring.drift.service import MOST_REASON, DriftService
from shoplens.predictions.entities import Channel, photos_need
from shoplens.web.rendering import add_filters, page
from shoplens.web.routing import page_router

HOME: Final = "/console/monitoring"

Reader = Annotated[Principal, Depends(requires(Permission.MONITORING_READ))]
ChannelName = Annotated[str, Query(max_length=200)]
Accepter = Annotated[Principal, Depends(requires(Permission.MONITORING_ADMIN))]
FormText = Annotated[str, Form(max_length=1_000)]


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


def drift_pages(drift: DriftService) -> APIRouter:
    """GET /console/monitoring/drift: one channel at a time."""
    router = page_router()
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
            may_accept=principal.may(Permission.MONITORING_ADMIN),
            most_reason=MOST_REASON,
        )

    @router.post(f"{HOME}/drift/normal")
    def accept_change(
        by: Accepter, channel: FormText, day: Annotated[date, Form()], reason: FormText
    ) -> RedirectResponse:
        drift.accept_change(channel, day, reason=reason, by=by)
        return _back(channel)

    @router.post(f"{HOME}/drift/normal/withdraw")
    def withdraw_change(by: Accepter, channel: FormText) -> RedirectResponse:
        drift.withdraw_change(channel, by=by)
        return _back(channel)

    return router


def _back(channel: str) -> RedirectResponse:
    return RedirectResponse(f"{HOME}/drift?{urlencode({'channel': channel})}", status_code=303)


def measure_name(measure: Measure) -> str:
    """For people to read."""
    return gettext(WORDS[measure].name)


add_filters(measure_name)
