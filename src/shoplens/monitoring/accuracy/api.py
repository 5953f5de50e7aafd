"""`GET /monitoring/accuracy`: what the page Accuracy shows, for programs."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded
from shoplens.accounts.entities import Permission
from shoplens.monitoring.accuracy.estimates import Estimate
from shoplens.monitoring.accuracy.service import DAYS, PERIODS, AccuracyReport, AccuracyService
from shoplens.monitoring.accuracy.threshold import ThresholdPoint
from shoplens.monitoring.series.entities import Job
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema, json_response

ChannelName = Annotated[str | None, Query(max_length=200, description="Unset: the first channel.")]
Goal = Annotated[float, Query(gt=0, le=0.5, description="Highest share of wrong labels among automatic decisions.")]


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
    job: Job = Field(description="Whose decisions these are.")
    since: datetime
    until: datetime
    model: str | None = Field(description="What decided; the version of the policy in moderation.")
    audit_share: float = Field(description="Share of accepted samples that people check at random: see the settings.")
    accept_at: float | None
    checks: int = Field(description="Random checks so far.")
    checks_answered: int
    automatic: EstimateOut | None = Field(description="Accuracy of what needed no person.")
    by_state: dict[str, EstimateOut | None] = Field(description="The same apart, for what moderation did with photos.")
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
            job=report.job,
            since=report.since,
            until=report.until,
            model=report.model,
            audit_share=report.audit_share,
            accept_at=report.accept_at,
            checks=0 if found is None else found.checks,
            checks_answered=0 if found is None else len(found.checked.answers),
            automatic=_estimate(report.automatic),
            by_state={state: _estimate(estimate) for state, estimate in report.by_state.items()},
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


def accuracy_router(accuracy: AccuracyService) -> APIRouter:
    """/monitoring/accuracy."""
    router = api_router(prefix="/monitoring", tags=["monitoring"], dependencies=[guarded(Permission.MONITORING_READ)])

    @router.get("/accuracy", operation_id="get_accuracy", response_model=AccuracyOut, summary="Accuracy in production")
    def share_right(
        channel: ChannelName = None,
        days: Annotated[int, Query(description=f"One of {', '.join(map(str, PERIODS))}.")] = DAYS,
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
