"""The JSON API of label sets: build, list, export."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path
from pydantic import Field
from starlette.responses import Response, StreamingResponse

from shoplens.accounts.access import guarded, requires
from shoplens.accounts.entities import Permission, Principal
from shoplens.labels.service import LabelService
from shoplens.web.downloads import download
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema, json_response

Version = Annotated[int, Path(ge=1, le=1_000_000_000)]


class LabelSetOut(Schema):
    """One version of the labels of a channel."""

    channel: str = Field(examples=["reviews"])
    version: int
    created_at: datetime
    created_by: str
    labels: int
    digest: str = Field(description="The SHA-256 over all labels: the same labels have the same one.")
    changed_at: datetime | None = Field(description="When erased samples were last taken out; null: never.")


def labels_router(labels: LabelService) -> APIRouter:
    """Label sets of all channels."""
    router = api_router(prefix="/labels", tags=["labels"], dependencies=[guarded(Permission.LABELS_READ)])

    @router.get("/{channel}/sets", operation_id="list_label_sets", summary="The label sets of a channel")
    def all_sets(channel: str) -> list[LabelSetOut]:
        """Newest first."""
        return [LabelSetOut.model_validate(each) for each in labels.all(channel)]

    @router.post(
        "/{channel}/sets",
        status_code=201,
        response_model=LabelSetOut,
        operation_id="build_label_set",
        summary="Build a label set",
    )
    def build(channel: str, by: Annotated[Principal, Depends(requires(Permission.LABELS_READ))]) -> Response:
        """Freezes what people have said until now. Returns the newest set where nothing has changed since."""
        return json_response(LabelSetOut.model_validate(labels.build(channel, by=by)), status=201)

    @router.get(
        "/{channel}/sets/{version}.csv",
        response_class=StreamingResponse,
        operation_id="export_label_set_csv",
        summary="A label set as CSV",
    )
    def as_csv(channel: str, version: Version) -> StreamingResponse:
        """One row per sample."""
        found = labels.get(channel, version)
        name = f"labels-{channel}-{version}.csv"
        return download(labels.csv(found), name=name, media_type="text/csv; charset=utf-8")

    @router.get(
        "/{channel}/sets/{version}.parquet",
        response_class=StreamingResponse,
        operation_id="export_label_set_parquet",
        summary="A label set as Parquet",
    )
    def as_parquet(channel: str, version: Version) -> StreamingResponse:
        """The same columns, typed."""
        found = labels.get(channel, version)
        name = f"labels-{channel}-{version}.parquet"
        return download(labels.parquet(found), name=name, media_type="application/vnd.apache.parquet")

    return router
