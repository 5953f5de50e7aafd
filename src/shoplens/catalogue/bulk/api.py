"""The JSON API of bulk acceptances: count, start, follow, cancel and undo them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Path, Request
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded, note, principal_of
from shoplens.accounts.entities import Permission
from shoplens.catalogue.api import ChannelName
from shoplens.catalogue.repository import ProductFilter
from shoplens.catalogue.service import Catalogue
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response


class AcceptIn(BodySchema):
    """Which suggestions are accepted: all of at least `min_score` on products that nobody decided, or some of them."""

    min_score: float = Field(ge=0, le=1, examples=[0.95])
    category: str | None = Field(
        default=None, max_length=300, description="Only products whose answer is this category or below it."
    )
    text: str | None = Field(
        default=None, max_length=500, description="Only products with these words in reference, title or description."
    )
    kind: Literal["photo", "text", "both"] | None = Field(default=None, description="Only by what the model saw.")
    model: str | None = Field(default=None, max_length=200, description="Only suggestions of this `name@version`.")
    import_id: str | None = Field(default=None, max_length=64, description="Only products of this import.")
    dry_run: bool = Field(default=False, description="Only count: `planned` is how many would be accepted.")
    channel: str | None = Field(default=None, max_length=100)


class AcceptanceOut(Schema):
    """A bulk acceptance, or, with `undoes`, the taking back of one. It has ended where `finished_at` is set.

    `done` of `planned` products are accepted or taken back. It may be fewer in the end: what somebody decided, or what
    got another suggestion meanwhile, is left out.
    """

    id: str | None = Field(description="Null: it was only counted.")
    channel: str
    planned: int
    done: int = 0
    created_at: datetime | None = None
    by_name: str | None = None
    undoes: str | None = None
    finished_at: datetime | None = None
    cancelled_by: str | None = None
    error: str | None = None


AcceptanceId = Annotated[str, Path(max_length=64)]


def bulk_router(catalogue: Catalogue) -> APIRouter:
    """POST /catalogue/accept and /catalogue/acceptances…."""
    router = api_router(prefix="/catalogue", tags=["catalogue"], dependencies=[guarded(Permission.CATALOGUE_WRITE)])

    @router.post(
        "/accept",
        status_code=202,
        response_model=AcceptanceOut,
        responses={200: {"model": AcceptanceOut, "description": "With `dry_run`: only counted."}},
        summary="Accept many suggestions",
    )
    def accept(request: Request, body: AcceptIn) -> Response:
        """In the background, some hundred per transaction; it goes on after a crash.

        Suggestions that come after the request are left out. One acceptance of a channel is at work at a time: 409
        `bulk_running`.
        """
        channel = catalogue.channel(body.channel).name
        categories = None if body.category is None else catalogue.products.below(channel, body.category)
        filters = body.model_dump(exclude={"category", "dry_run", "channel"})
        wanted = ProductFilter(channel=channel, categories=categories, **filters)
        if body.dry_run:
            return json_response(AcceptanceOut(id=None, channel=channel, planned=catalogue.bulk.count(wanted)))
        job = catalogue.bulk.start(wanted, by=principal_of(request))
        note(request, "catalogue.accepted_many", target=job.id, channel=channel, planned=job.planned, **filters)
        return json_response(AcceptanceOut.model_validate(job), status=202)

    @router.get("/acceptances", response_model=list[AcceptanceOut], summary="The newest bulk acceptances")
    def acceptances(channel: ChannelName = None) -> Response:
        """The newest twenty first."""
        found = catalogue.bulk.newest(catalogue.channel(channel).name)
        shown = [AcceptanceOut.model_validate(each).model_dump(mode="json") for each in found]
        return Response(orjson.dumps(shown), media_type="application/json")

    @router.get("/acceptances/{acceptance_id}", response_model=AcceptanceOut, summary="One bulk acceptance")
    def one(acceptance_id: AcceptanceId) -> Response:
        """How far it is."""
        return json_response(AcceptanceOut.model_validate(catalogue.bulk.get(acceptance_id)))

    @router.post(
        "/acceptances/{acceptance_id}/undo",
        status_code=202,
        response_model=AcceptanceOut,
        summary="Take a bulk acceptance back",
    )
    def undo(request: Request, acceptance_id: AcceptanceId) -> Response:
        """In the background, but for products on which somebody decided since. Only who accepted them may."""
        job = catalogue.bulk.undo(acceptance_id, by=principal_of(request))
        note(request, "catalogue.took_back_many", target=acceptance_id, channel=job.channel, planned=job.planned)
        return json_response(AcceptanceOut.model_validate(job), status=202)

    @router.post(
        "/acceptances/{acceptance_id}/cancel", response_model=AcceptanceOut, summary="Cancel a bulk acceptance"
    )
    def cancel(request: Request, acceptance_id: AcceptanceId) -> Response:
        """What is not done yet is left out; what is done stays."""
        job = catalogue.bulk.cancel(acceptance_id, by=principal_of(request))
        return json_response(AcceptanceOut.model_validate(job))

    return router
