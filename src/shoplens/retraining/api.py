"""The JSON API of retrainings: start and cancel one, which there were, what they found, a person's yes or no."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query, Request
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded, note, requester_of, requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.registry.entities import MAX_WHY
from shoplens.retraining.entities import RetrainingState, Stage
from shoplens.retraining.report import Report
from shoplens.retraining.service import MAX_RUNS, RetrainingService, RunView
from shoplens.retraining.starting import RetrainingStarter
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response

ModelsAdmin = Annotated[Principal, Depends(requires(Permission.MODELS_ADMIN))]


class RetrainingOut(Schema):
    """One retraining. `champion` is the model that it was compared with."""

    id: str
    created_at: datetime
    channel: str
    model: str
    candidate: str = Field(description="The version that it made.", examples=["1.4.0"])
    champion: str | None = Field(examples=["clothing@1.3.0"])
    requested_by: str
    recipe: str
    dry_run: bool
    state: RetrainingState
    stage: Stage
    interrupted: bool = Field(description="Its process ended; the next start continues it.")
    label_set: int | None
    labels: int | None
    test_set: int | None
    test_samples: int | None
    passed: bool | None = Field(description="What the gate said; null before it.")
    accuracy: float | None
    accuracy_before: float | None
    finished_at: datetime | None
    failure_code: str | None
    failure: str | None
    decided_at: datetime | None
    decided_by: str | None
    decided_why: str | None
    tracked_as: str | None = Field(description="The run in MLflow.")

    @classmethod
    def of(cls, view: RunView) -> Self:
        """The same fields."""
        names = [name for name in cls.model_fields if name != "interrupted"]
        return cls(interrupted=view.interrupted, **{name: getattr(view.run, name) for name in names})


class CheckOut(Schema):
    """One thing that the gate asks for."""

    code: str = Field(examples=["no_class_worse"])
    passed: bool
    sentence: str


class ClassChangeOut(Schema):
    """The F1 of one class before and after."""

    label: str
    samples: int
    before: float
    after: float


class RetrainingReportOut(Schema):
    """What a retraining found."""

    run: RetrainingOut
    trained_on: int | None = Field(description="Samples; null before the gate, as all that follows.")
    left_out: dict[str, int] | None = Field(description="Labels that were not used, by reason.")
    checks: list[CheckOut] | None
    classes: list[ClassChangeOut] | None
    only_new: int | None = Field(description="Test samples that only the new model has right.")
    only_old: int | None
    p_value: float | None = Field(description="Of McNemar's exact test.")
    gain_low: float | None = Field(description="Lower confidence bound of the gain in accuracy.")
    notes: list[str] | None = Field(description="Sentences on the comparison.")
    shadow: list[CheckOut] | None = Field(description="The checks after its time as challenger; empty before its end.")

    @classmethod
    def of_report(cls, view: RunView, report: Report | None) -> Self:
        """With the parts of the report, where there is one."""
        run = RetrainingOut.of(view)
        if report is None:
            nothing = dict.fromkeys(name for name in cls.model_fields if name != "run")
            return cls(run=run, **nothing)
        result = report.gate
        return cls(
            run=run,
            trained_on=report.trained_on,
            left_out=dict(report.left_out),
            checks=[CheckOut.model_validate(each) for each in result.checks],
            classes=[ClassChangeOut.model_validate(each) for each in result.classes],
            only_new=result.only_new,
            only_old=result.only_old,
            p_value=result.p_value,
            gain_low=result.gain_low,
            notes=list(report.notes),
            shadow=[CheckOut.model_validate(each) for each in report.shadow],
        )


class RetrainingIn(BodySchema):
    """What is asked for when a retraining is started."""

    channel: str = Field(max_length=100, examples=["returns"])
    dry_run: bool = Field(default=False, description="Train and judge, but publish nothing.")


class RetrainingAnswerIn(BodySchema):
    """A person's answer to a model that passed the gate."""

    why: str = Field(default="", max_length=MAX_WHY, description="The history keeps it.", examples=["Better on shoes"])


def retraining_router(retraining: RetrainingService, starter: RetrainingStarter) -> APIRouter:
    """Routes for programs that start retrainings, watch them and decide on them."""
    router = api_router(prefix="/retraining", tags=["models"])
    readers = [guarded(Permission.MODELS_READ)]

    @router.post(
        "/runs",
        status_code=202,
        operation_id="start_retraining",
        response_model=RetrainingOut,
        dependencies=[guarded(Permission.MODELS_ADMIN)],
        responses={202: {"headers": {"Location": {"schema": {"type": "string"}, "description": "URL of the run."}}}},
        summary="Train the model of a channel again",
    )
    def start(request: Request, body: RetrainingIn) -> Response:
        """Train in a process of its own, from what people said; an interrupted retraining of the model goes on.

        Responds 409 `retraining_running` while the model is retrained, and 409 `retraining_not_possible` where the
        settings of the channel or what is installed do not allow it.
        """
        run = starter.start(body.channel, by=requester_of(request, "http"), dry_run=body.dry_run)
        note(request, "retraining.started", target=run.id, channel=run.channel, dry_run=run.dry_run)
        response = json_response(RetrainingOut.of(RunView(run=run, interrupted=False)), status=202)
        response.headers["Location"] = f"/retraining/runs/{run.id}"
        return response

    @router.get("/runs", operation_id="list_retrainings", summary="The retrainings", dependencies=readers)
    def runs(channel: str | None = None, limit: Annotated[int, Query(ge=1, le=MAX_RUNS)] = 50) -> list[RetrainingOut]:
        """Newest first."""
        return [RetrainingOut.of(view) for view in retraining.all(channel, limit=limit)]

    @router.get(
        "/runs/{run_id}", operation_id="get_retraining", summary="What a retraining found", dependencies=readers
    )
    def run(run_id: str) -> RetrainingReportOut:
        """The gate's checks with their figures, and each class before and after."""
        return RetrainingReportOut.of_report(retraining.get(run_id), retraining.report(run_id))

    @router.post("/runs/{run_id}/cancel", operation_id="cancel_retraining", summary="End a retraining that is at work")
    def cancel(request: Request, run_id: str, principal: ModelsAdmin) -> RetrainingOut:
        """Its process ends at its next step, and publishes nothing. Refused (409) where it has ended or publishes."""
        view = retraining.cancel(run_id, by=principal)
        note(request, "retraining.cancelled", target=run_id)
        return RetrainingOut.of(view)

    @router.post("/runs/{run_id}/approve", operation_id="approve_retraining", summary="Let its model go live")
    def approve(run_id: str, body: RetrainingAnswerIn, principal: ModelsAdmin) -> RetrainingOut:
        """Refused (409) where another model became champion since the comparison."""
        return RetrainingOut.of(retraining.approve(run_id, by=principal, why=body.why))

    @router.post("/runs/{run_id}/reject", operation_id="reject_retraining", summary="Its model does not go live")
    def reject(run_id: str, body: RetrainingAnswerIn, principal: ModelsAdmin) -> RetrainingOut:
        """The model stays in the registry and is no longer the challenger."""
        return RetrainingOut.of(retraining.reject(run_id, by=principal, why=body.why))

    return router
