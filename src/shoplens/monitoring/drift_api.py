"""`GET /monitoring/drift` and `GET /monitoring/accuracy`: what the pages show, for programs."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.monitoring.accuracy import Estimate
from shoplens.monitoring.accuracy_service import DAYS as ACCURACY_DAYS
from shoplens.monitoring.accuracy_service import AccuracyReport, AccuracyService
from shoplens.monitoring.drift_repository import DriftDay
from shoplens.monitoring.drift_service import DAYS, MOST_DAYS, DriftReport, DriftService
from shoplens.monitoring.profile import Measure
from shoplens.monitoring.threshold import ThresholdPoint
from shoplens.web.schemas import Schema, json_response

ChannelName = Annotated[str | None, Query(max_length=200, description="Unset: the first channel.")]
Goal = Annotated[float, Query(gt=0, le=0.5, description="Highest share of wrong labels among automatic decisions.")]


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


class DriftOut(Schema):
    """The days of a channel, oldest first. A day that is missing was not computed."""

    channel: str
    since: date
    until: date = Field(description="Not included.")
    days: list[DriftDayOut]
    tests: BundleComparisonOut | None

    @classmethod
    def of_report(cls, report: DriftReport, address: Callable[[str, str], str]) -> Self:
        """The report."""
        return cls(
            channel=report.channel,
            since=report.since,
            until=report.until,
            days=[DriftDayOut.of(day, address=address) for day in report.days],
            tests=None if report.tests is None else BundleComparisonOut.model_validate(report.tests),
        )


class EstimateOut(Schema):
    """A share with its interval of 95 % confidence."""

    value: float
    low: float
    high: float
    answers: int = Field(description="Answers of people that it is made from.")
    samples: int = Field(description="Samples that it stands for.")


class ThresholdPointOut(Schema):
    """What would hold with this threshold."""

    at: float
    automatic: float = Field(description="Share of samples without a person.")
    wrong: float | None = Field(description="Share of these that is wrong; null where too few answers are there.")
    at_most: float = Field(description="Its upper bound with 95 % confidence.")
    answers: int


class AccuracyOut(Schema):
    """How often the model of a channel is right in production. Estimates are null while answers are too few."""

    channel: str
    since: datetime
    until: datetime
    model: str | None
    audit_share: float = Field(description="Share of accepted samples that people check at random: see the settings.")
    accept_at: float | None
    checks: int = Field(description="Random checks so far.")
    checks_answered: int
    automatic: EstimateOut | None = Field(description="Accuracy of what the thresholds accept.")
    reviewed: EstimateOut | None = Field(description="Accuracy of the label of what thresholds send to people.")
    overall: EstimateOut | None = Field(description="Accuracy of all labels but those of rejected samples.")
    naive: float | None = Field(description="Share of right answers as they are: people see mostly doubtful samples.")
    unchecked: int = Field(description="Samples accepted while nobody checked; the estimates leave them out.")
    rejected: int = Field(description="Rejected samples, which the estimates leave out.")
    goal: float
    choice: ThresholdPointOut | None = Field(description="The lowest threshold that keeps the goal, if any does.")
    answers_needed: int = Field(description="Right answers in a row that would show the goal.")
    curve: list[ThresholdPointOut]

    @classmethod
    def of_report(cls, report: AccuracyReport, goal: float) -> Self:
        """The report with the choice for a goal."""
        found, choice = report.production, report.choose(goal)
        return cls(
            channel=report.channel,
            since=report.since,
            until=report.until,
            model=report.model,
            audit_share=report.audit_share,
            accept_at=report.accept_at,
            checks=0 if found is None else found.checks,
            checks_answered=0 if found is None else len(found.checked.answers),
            automatic=_estimate(report.automatic),
            reviewed=_estimate(report.reviewed),
            overall=_estimate(report.overall),
            naive=report.naive,
            unchecked=0 if found is None else found.unchecked,
            rejected=0 if found is None else found.rejected,
            goal=goal,
            choice=None if choice.point is None else _point(choice.point),
            answers_needed=choice.needed,
            curve=[_point(point) for point in report.points],
        )


def drift_router(drift: DriftService, accuracy: AccuracyService, address: Callable[[str, str], str]) -> APIRouter:
    """/monitoring/drift and /monitoring/accuracy. `address` is the page of a sample of a channel."""
    router = APIRouter(prefix="/monitoring", tags=["monitoring"], dependencies=[guarded(Permission.MONITORING_READ)])

    @router.get("/drift", operation_id="get_drift", response_model=DriftOut, summary="What changed, day by day")
    def days(
        channel: ChannelName = None, days: Annotated[int, Query(ge=1, le=MOST_DAYS)] = DAYS, day: date | None = None
    ) -> Response:
        """The last days of a channel, or those up to `day`, with the measures that differ from the month before."""
        report = drift.of(drift.channel(channel).name, days=days, day=day)
        return json_response(DriftOut.of_report(report, address))

    @router.get("/accuracy", operation_id="get_accuracy", response_model=AccuracyOut, summary="Accuracy in production")
    def share_right(
        channel: ChannelName = None,
        days: Annotated[int, Query(ge=1, le=MOST_DAYS)] = ACCURACY_DAYS,
        goal: Goal = 0.01,
    ) -> Response:
        """From the answers of people, corrected for how they were chosen, with a threshold for a goal."""
        report = accuracy.of(accuracy.channel(channel).name, days=days)
        return json_response(AccuracyOut.of_report(report, goal))

    return router


def _estimate(estimate: Estimate | None) -> EstimateOut | None:
    return None if estimate is None else EstimateOut.model_validate(estimate)


def _point(point: ThresholdPoint) -> ThresholdPointOut:
    return ThresholdPointOut.model_validate(point)
