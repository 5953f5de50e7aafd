"""`GET /monitoring/drift`: what the page Drift shows, for programs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.monitoring.drift.profile import Measure
from shoplens.monitoring.drift.repository import DriftDay
from shoplens.monitoring.drift.service import DAYS, MOST_DAYS, DriftReport, DriftService
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema, json_response

ChannelName = Annotated[str | None, Query(max_length=200, description="Unset: the first channel.")]


class FindingOut(Schema):
    """One measure of one day against the days before it."""

    measure: Measure
    distance: float
    usual: float = Field(description="What days without drift have in the middle.")
    limit: float = Field(description="The distance from which on it is an alarm.")
    p_value: float = Field(description="The probability of such a distance without drift.")
    samples: int
    reference_samples: int
    alarm: bool


class StrangePhotoOut(Schema):
    """A photo that is far from those of the reference. `distance` is 0 to about 1."""

    id: str
    distance: float
    address: str | None = Field(description="Its page in the console.")


class DriftDayOut(Schema):
    """A day (UTC) of a channel. A measure without enough samples, or without a reference yet, is left out."""

    day: date
    channel: str
    model: str = Field(description="The one that answered most.", examples=["clothing@1.0.0"])
    samples: int
    photos: int = Field(description="Photos that were looked at, at most 512.")
    alarm: bool
    findings: list[FindingOut]
    strangest: list[StrangePhotoOut]

    @classmethod
    def of(cls, day: DriftDay, *, address: Callable[[str, str], str] | None) -> Self:
        """With the pages of photos where `address` gives them."""
        return cls(
            day=day.day,
            channel=day.channel,
            model=day.model,
            samples=day.profile.rows,
            photos=day.profile.photos,
            alarm=bool(day.alarms),
            findings=[FindingOut.model_validate(finding) for finding in day.findings],
            strangest=[
                StrangePhotoOut(id=each, distance=far, address=address(day.channel, each) if address else None)
                for each, far in day.strangest
            ],
        )


class BundleComparisonOut(Schema):
    """The last seven days beside the photos with which the model was measured. It never alarms."""

    data: str
    samples: int
    classes: float | None = Field(description="Jensen-Shannon distance of the predicted labels, 0 to 1.")
    confidence: float | None = Field(description="Greatest difference in the share of samples above a score.")


class NormalOut(Schema):
    """A change that a person said is expected: days are compared with those from that day on."""

    day: date
    created_at: datetime
    created_by: str
    reason: str


class DriftOut(Schema):
    """The days of a channel, oldest first. A day that is missing was not computed."""

    channel: str
    since: date
    until: date = Field(description="Not included.")
    days: list[DriftDayOut]
    tests: BundleComparisonOut | None
    normal: NormalOut | None = Field(description="Null: nobody said that a change is expected.")

    @classmethod
    def of_report(cls, report: DriftReport, address: Callable[[str, str], str]) -> Self:
        """The report."""
        return cls(
            channel=report.channel,
            since=report.since,
            until=report.until,
            days=[DriftDayOut.of(day, address=address) for day in report.days],
            tests=None if report.tests is None else BundleComparisonOut.model_validate(report.tests),
            normal=None if report.normal is None else NormalOut.model_validate(report.normal),
        )


def drift_router(drift: DriftService, address: Callable[[str, str], str]) -> APIRouter:
    """/monitoring/drift. `address` is the page of a sample of a channel."""
    router = api_router(prefix="/monitoring", tags=["monitoring"], dependencies=[guarded(Permission.MONITORING_READ)])

    @router.get("/drift", operation_id="get_drift", response_model=DriftOut, summary="What changed, day by day")
    def days(
        channel: ChannelName = None, days: Annotated[int, Query(ge=1, le=MOST_DAYS)] = DAYS, day: date | None = None
    ) -> Response:
        """The last days of a channel, or those up to `day`, with the measures that differ from the month before."""
        report = drift.of(drift.channel(channel).name, days=days, day=day)
        return json_response(DriftOut.of_report(report, address))

    return router
