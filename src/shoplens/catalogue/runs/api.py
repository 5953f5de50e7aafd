"""The JSON API of runs over the catalogue: start one, follow it, cancel it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final, Self

from fastapi import APIRouter, Path, Query, Request
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded, note, principal_of, requester_of
from shoplens.accounts.entities import Permission
from shoplens.catalogue.api import ChannelName
from shoplens.catalogue.entities import CatalogueRun
from shoplens.catalogue.runs.service import RunService
from shoplens.catalogue.service import Catalogue
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response

_MOST: Final = 100


class RunIn(BodySchema):
    """What a run is for: the products without a suggestion, or, with `again`, all that nobody decided."""

    again: bool = False
    channel: str | None = Field(default=None, max_length=100)


class CatalogueRunOut(Schema):
    """A run over the catalogue. It has ended where `finished_at` is set.

    `suggested` of `planned` products have a suggestion by now, `failed` could not get one.
    """

    id: str
    channel: str
    created_at: datetime
    requested_by: str
    again: bool
    planned: int
    suggested: int
    failed: int
    model: str | None = Field(description="The version with which it began; null until it has started.")
    tree: int | None
    started_at: datetime | None
    heartbeat_at: datetime | None = Field(description="When its process last showed that it is alive.")
    finished_at: datetime | None
    cancelled_by: str | None
    failure: str | None = Field(description="Why the last attempt was interrupted; the log has the details.")

    @classmethod
    def of(cls, run: CatalogueRun, runs: RunService) -> Self:
        """The run with what is known of its process."""
        found = cls.model_validate(run)
        return found.model_copy(update={"failure": runs.trouble(run)})


class CatalogueRunPageOut(Schema):
    """Runs, newest first."""

    runs: list[CatalogueRunOut]


RunId = Annotated[str, Path(max_length=64)]


def run_router(catalogue: Catalogue) -> APIRouter:
    """/catalogue/runs."""
    router = api_router(prefix="/catalogue/runs", tags=["catalogue"])
    reading, administering = [guarded(Permission.CATALOGUE_READ)], [guarded(Permission.CATALOGUE_ADMIN)]
    runs = catalogue.runs

    @router.post(
        "",
        dependencies=administering,
        status_code=202,
        operation_id="start_catalogue_run",
        response_model=CatalogueRunOut,
        responses={202: {"headers": {"Location": {"schema": {"type": "string"}, "description": "URL of the run."}}}},
        summary="Start a run over the catalogue",
    )
    def start(request: Request, body: RunIn) -> Response:
        """Suggest a category for every product that waits, in a process of its own; an interrupted run is resumed.

        Responds 409 `run_in_progress` while a run of the channel is active, and 409 `nothing_waiting` if no product
        waits.
        """
        channel = catalogue.channel(body.channel).name
        run = runs.start(channel, again=body.again, requested_by=requester_of(request, "http"))
        note(request, "catalogue.run_started", target=run.id, channel=channel, again=body.again)
        response = json_response(CatalogueRunOut.of(run, runs), status=202)
        response.headers["Location"] = f"/catalogue/runs/{run.id}"
        return response

    @router.get(
        "",
        dependencies=reading,
        operation_id="list_catalogue_runs",
        response_model=CatalogueRunPageOut,
        summary="The newest runs over the catalogue",
    )
    def newest(channel: ChannelName = None, limit: Annotated[int, Query(ge=1, le=_MOST)] = 20) -> Response:
        """The newest first."""
        found = runs.newest(catalogue.channel(channel).name, limit=limit)
        return json_response(CatalogueRunPageOut(runs=[CatalogueRunOut.of(each, runs) for each in found]))

    @router.get(
        "/{run_id}",
        dependencies=reading,
        operation_id="get_catalogue_run",
        response_model=CatalogueRunOut,
        summary="One run over the catalogue",
    )
    def one(run_id: RunId) -> Response:
        """How far it is."""
        return json_response(CatalogueRunOut.of(runs.get(run_id), runs))

    @router.post(
        "/{run_id}/cancel",
        dependencies=administering,
        operation_id="cancel_catalogue_run",
        response_model=CatalogueRunOut,
        summary="Cancel a run over the catalogue",
    )
    def cancel(request: Request, run_id: RunId) -> Response:
        """What it has not looked at is left out; the suggestions that it made stay."""
        run = runs.cancel(run_id, by=principal_of(request).name)
        note(request, "catalogue.run_cancelled", target=run.id, channel=run.channel)
        return json_response(CatalogueRunOut.of(run, runs))

    return router
