"""GET /predictions…: stored predictions, one or a page of them, their photos, and the CSV export."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from starlette.responses import Response, StreamingResponse

from shoplens.db.ids import is_id
from shoplens.errors import PredictionNotFound, RequestInvalid
from shoplens.platform.server import Platform
from shoplens.predictions.browse import MAX_PAGE
from shoplens.predictions.entities import RecordFilter
from shoplens.predictions.photos import PhotoFile, Size
from shoplens.predictions.policy import Outcome
from shoplens.web.schemas import RecordOut, RecordPageOut, record_json

# What was uploaded is never trusted as a page of ours, whatever a browser makes of it.
_FOR_EVER = "private, max-age=31536000, immutable"
_PHOTO_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "inline",
}

RecordId = Annotated[str, Path(max_length=64, description="The prediction's id.")]


def record_filter(
    channel: Annotated[str | None, Query(max_length=100)] = None,
    label: Annotated[str | None, Query(max_length=200, description="The best label.")] = None,
    decision: Annotated[Outcome | None, Query()] = None,
    since: Annotated[datetime | None, Query(description="From this time on; UTC where no zone is given.")] = None,
    until: Annotated[datetime | None, Query(description="Up to, not including, this time.")] = None,
) -> RecordFilter:
    """The filter in the query of a request."""
    return RecordFilter(channel=channel, label=label, outcome=decision, since=since, until=until)


Wanted = Annotated[RecordFilter, Depends(record_filter)]
Cursor = Annotated[str | None, Query(max_length=64)]


def records_router(platform: Platform) -> APIRouter:
    """All routes that read records."""
    router = APIRouter(tags=["records"])

    @router.get("/predictions", response_model=RecordPageOut, summary="A page of predictions, newest first")
    def page(
        wanted: Wanted,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        before: Cursor = None,
        after: Cursor = None,
    ) -> dict[str, Any]:
        """Page by the cursors `older` and `newer` of the answer."""
        found = platform.browse.page(wanted, limit=limit, before=_cursor(before), after=_cursor(after))
        return {
            "items": [record_json(record, found.feedback.get(record.id, [])) for record in found.records],
            "older": found.older,
            "newer": found.newer,
        }

    @router.get("/predictions.csv", response_class=StreamingResponse, summary="Predictions as CSV")
    def export(wanted: Wanted) -> StreamingResponse:
        """Every prediction that matches, newest first, safe to open in a spreadsheet."""
        return csv_response(platform.export.records(wanted), "predictions.csv")

    @router.get("/predictions/{prediction_id}", response_model=RecordOut, summary="One prediction")
    def one(prediction_id: RecordId) -> dict[str, Any]:
        """A stored prediction with what people said of it."""
        return record_json(*platform.browse.get(_known(prediction_id)))

    @router.get(
        "/predictions/{prediction_id}/image",
        response_class=Response,
        responses={200: {"content": {"image/*": {}}}},
        summary="The photo of a prediction",
    )
    def image(prediction_id: RecordId, size: Size = Size.VIEW) -> Response:
        """The kept photo: `thumbnail` and `view` are JPEG without metadata, `original` is as it was sent."""
        record, _ = platform.browse.get(_known(prediction_id))
        photo = platform.photos.fetch(record, size)
        return photo_answer(photo, cache=_FOR_EVER)

    return router


def photo_answer(photo: PhotoFile, *, cache: str) -> Response:
    """A photo as somebody sent it, or a copy of it; `cache` is how long a browser may keep it."""
    headers = {**_PHOTO_HEADERS, "Cache-Control": cache}
    return Response(photo.data, media_type=photo.media_type, headers=headers)


def csv_response(chunks: Any, name: str) -> StreamingResponse:
    """A streamed CSV download."""
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(chunks, media_type="text/csv; charset=utf-8", headers=headers)


def _known(prediction_id: str) -> str:
    if not is_id(prediction_id):
        raise PredictionNotFound(f"{prediction_id!r} is not the id of a prediction.")
    return prediction_id


def _cursor(text: str | None) -> str | None:
    if text is not None and not is_id(text):
        raise RequestInvalid(f"{text!r} is not a cursor; use `older` or `newer` of a page.")
    return text
