"""The JSON API of predictions: classify a photo, read records and their photos, export, and give feedback."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.routing import APIRoute
from pydantic import ConfigDict, Field
from starlette.responses import Response, StreamingResponse

from shoplens.accounts.access import guarded, note, require, reviewer_of
from shoplens.accounts.entities import Permission
from shoplens.db.tables import is_id
from shoplens.errors import PredictionNotFound, RequestInvalid
from shoplens.predictions.entities import (
    Channel,
    Feedback,
    FeedbackValue,
    Keep,
    PredictionRecord,
    RecordFilter,
    photos_need,
)
from shoplens.predictions.export import ExportTables
from shoplens.predictions.feedback import NewFeedback
from shoplens.predictions.filter_bar import model_of
from shoplens.predictions.image_store import ImageFile, ImageSize, ImageStore
from shoplens.predictions.photo_urls import PhotoUrls
from shoplens.predictions.policy import Outcome
from shoplens.predictions.records import MAX_PAGE, RecordService
from shoplens.predictions.service import PredictionService
from shoplens.telemetry.metrics import Metrics
from shoplens.web.downloads import download
from shoplens.web.problems import status_of_exception
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, ModelOut, Moment, Schema, json_response
from shoplens.web.shares import address_of
from shoplens.web.uploads import FILE_FIELD, TEXT_FIELD, URL_FIELD, Uploads

MAX_TOP_K = 100
_CSV = "text/csv; charset=utf-8"


class LabelOut(Schema):
    """One label with its score between 0 and 1."""

    label: str = Field(examples=["golden retriever"])
    score: float = Field(examples=[0.87])


class DecisionOut(Schema):
    """The outcome of the channel's policy, with the label and the threshold that decided."""

    outcome: Outcome
    label: str | None = Field(examples=["nsfw"])
    threshold: float | None = Field(examples=[0.85])
    policy_version: str = Field(examples=["18608add0b55"])
    random_check: bool = Field(
        default=False, description="Chance sent it to a person, not a threshold: see the setting `audit_share`."
    )


class ImageOut(Schema):
    """Facts about the photo. Width and height are in pixels, after its EXIF orientation is applied."""

    format: str = Field(examples=["jpeg"])
    width: int = Field(examples=[4032])
    height: int = Field(examples=[3024])
    bytes: int = Field(examples=[2_600_000])
    sha256: str
    phash: str = Field(examples=["c3a1f07e3c1e0f87"])
    kept: Keep = Field(description="What is stored of it; `nothing` also after retention deleted it.")


class TimingOut(Schema):
    """Where the time went, in milliseconds."""

    queue_ms: float
    pixels_ms: float
    inference_ms: float
    total_ms: float


class PredictionOut(Schema):
    """A classified sample. `image` is null for a text without a photo, `text` for a photo without a text."""

    id: str = Field(examples=["01k9hzv3m5x4q8d0j7w2r6t9ab"])
    created_at: datetime
    channel: str = Field(examples=["look"])
    model: ModelOut
    labels: list[LabelOut]
    decision: DecisionOut
    image: ImageOut | None
    text: str | None = Field(examples=["Red cotton shirt"])
    file_name: str | None = Field(description="How the photo was called.", examples=["IMG_2031.jpg"])
    timing: TimingOut

    @classmethod
    def of(cls, record: PredictionRecord, *, top_k: int | None = None, **more: Any) -> Self:
        """The `record` with its best `top_k` labels; all stored ones where None."""
        image = record.image
        return cls(
            id=record.id,
            created_at=record.created_at,
            channel=record.channel,
            model=ModelOut.model_validate(record.model),
            labels=[LabelOut.model_validate(each) for each in record.labels[:top_k]],
            decision=DecisionOut.model_validate(record.decision),
            image=ImageOut(
                format=image.format,
                width=image.width,
                height=image.height,
                bytes=image.byte_count,
                sha256=image.sha256,
                phash=image.phash,
                kept=record.keep if record.photo_deleted_at is None else Keep.NOTHING,
            )
            if record.has_photo
            else None,
            text=record.text,
            file_name=record.file_name,
            timing=TimingOut.model_validate(record.timing),
            **more,
        )


class FeedbackOut(Schema):
    """What a person says of a prediction."""

    id: str
    created_at: datetime
    prediction_id: str
    verdict: FeedbackValue
    label: str | None
    comment: str | None
    proposed: str | None


class RecordOut(PredictionOut):
    """A stored prediction with its feedback."""

    feedback: list[FeedbackOut]

    @classmethod
    def with_feedback(cls, record: PredictionRecord, feedback: Sequence[Feedback]) -> Self:
        """The `record` with all stored labels."""
        return cls.of(record, feedback=[FeedbackOut.model_validate(each) for each in feedback])


class RecordPageOut(Schema):
    """A page, newest first; `older` and `newer` are values for `before` and `after`."""

    items: list[RecordOut]
    older: str | None
    newer: str | None
    total: int = Field(description="How many records match, counted up to 10,000.", examples=[3_104])
    total_is_exact: bool = Field(description="Whether there are not more than that.")


class PhotoIn(BodySchema):
    """A photo as JSON: itself, or its address where the server allows such."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"oneOf": [{"required": ["image"]}, {"required": ["url"]}]}
    )
    image: str | None = Field(
        default=None, description="The photo as base64; a `data:` URL is fine too.", examples=["…"]
    )
    url: str | None = Field(
        default=None,
        description="In place of `image`: the address of the photo, below one of those in the setting "
        "`photo_urls.url_prefixes`; 422 `photo_not_fetched` for any other.",
    )


class FeedbackIn(BodySchema):
    """Feedback on a prediction. Only `prediction_id` is required; the verdict is `wrong` by default.

    `none` means that none of the model's labels fits, `unusable` that the photo shows nothing that could be labelled.
    """

    prediction_id: str = Field(max_length=64, examples=["01k9hzv3m5x4q8d0j7w2r6t9ab"])
    verdict: FeedbackValue = FeedbackValue.WRONG
    label: str | None = Field(default=None, description="The correct label.", examples=["golden retriever"])
    comment: str | None = Field(default=None, examples=["A dog, not a bear."])
    proposed: str | None = Field(
        default=None, description="With `none`: the label that is missing. It is not used for training.",
        examples=["scarf"],
    )  # fmt: skip
    seen: str | None = Field(
        default=None,
        max_length=64,
        description=(
            'The id of the newest feedback that you were shown, "" if there was none: 409 `item_changed` if there is '
            "newer feedback. Optional."
        ),
    )


_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PREDICT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The photo, in any of these forms; a form may have a text, too. The photo's format is detected "
        "from its content, never its name.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        FILE_FIELD: {"type": "string", "format": "binary"},
                        TEXT_FIELD: {
                            "type": "string",
                            "description": "For a model that takes texts: a title and, after the first line break, a "
                            "description. The photo may then be missing.",
                        },
                        URL_FIELD: {
                            "type": "string",
                            "description": "In place of the photo: its address, below one of those in the setting "
                            "`photo_urls.url_prefixes`.",
                        },
                    },
                }
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/PhotoIn"}},
            "image/jpeg": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }
}

# Uploaded bytes are never trusted as a page of ours, whatever a browser makes of them.
_PHOTO_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Content-Disposition": "inline",
}
# Photos of customers stay on nobody's disk for long. A gallery that is scrolled back and forth loads each once.
_PHOTO_CACHE = "private, max-age=300"


def predict_router(
    predictions: PredictionService, uploads: Uploads, metrics: Metrics, *, photo_urls: PhotoUrls, deadline_s: float
) -> APIRouter:
    """POST /predict. `deadline_s` is the longest time for a response."""
    router = api_router(tags=["predictions"], route_class=_counted(metrics), dependencies=[guarded(Permission.PREDICT)])

    @router.post(
        "/predict",
        response_model=None,
        responses={200: {"model": PredictionOut}},
        openapi_extra=_PREDICT_BODY,
        operation_id="classify_photo",
        summary="Classify a photo",
    )
    async def predict(
        request: Request,
        *,
        channel: Annotated[str | None, Query(description="Which channel; the default one if left out.")] = None,
        model: Annotated[
            str | None,
            Query(
                max_length=160,
                description="`name@version` of the channel's model, for this request alone; unset: what is live.",
            ),
        ] = None,
        file_name: Annotated[
            str | None,
            Query(max_length=1_000, description="How the photo is called; unset: the file name in a form."),
        ] = None,
        top_k: Annotated[int, Query(ge=1, le=MAX_TOP_K, description="How many labels.")] = 5,
        timeout_s: Annotated[
            float | None,
            Query(ge=0.001, le=3600, description="Longest time for the response; at most the server's own limit."),
        ] = None,
    ) -> Response:
        """Classify one photo, and with a form also a text, where the channel's model takes one. When this returns 200,
        the prediction is in the database.
        """
        chosen = predictions.channel(channel)
        async with uploads.sample(request, fetch=photo_urls.fetch) as sample:
            received = time.perf_counter()
            time_left_s = min(timeout_s or deadline_s, deadline_s)
            record = await predictions.classify(
                sample.photo,
                text=sample.text,
                file_name=sample.file_name if file_name is None else file_name,
                channel=chosen,
                version=model,
                top_k=top_k,
                timeout_s=time_left_s,
                client=address_of(request),
            )
        metrics.prediction_seconds.observe(time.perf_counter() - received)
        return json_response(PredictionOut.of(record, top_k=top_k))

    return router


def record_filter(  # noqa: PLR0917  FastAPI calls it by name
    channel: Annotated[str | None, Query(max_length=100)] = None,
    label: Annotated[str | None, Query(max_length=200, description="The best label.")] = None,
    decision: Annotated[Outcome | None, Query()] = None,
    since: Annotated[Moment | None, Query(description="From this time on; UTC where no zone is given.")] = None,
    until: Annotated[Moment | None, Query(description="Up to, not including, this time.")] = None,
    text: Annotated[
        str | None,
        Query(
            max_length=200,
            description="What to search for: the beginning of a file name, order or item number, or a label.",
        ),
    ] = None,
    truth: Annotated[
        str | None, Query(max_length=200, description="The label that a person said it really is.")
    ] = None,
    model: Annotated[
        str | None,
        Query(max_length=200, description="With `truth`: the model that they said it of, as `clothing@1.0.1`."),
    ] = None,
) -> RecordFilter:
    """The filter in the query of a request."""
    cleaned = (text or "").replace("\x00", "").strip() or None
    answered = (truth or "").replace("\x00", "").strip() or None
    return RecordFilter(
        channel=channel, label=label, outcome=decision, since=since, until=until, text=cleaned, truth=answered,
        model=model_of(model, answered),
    )  # fmt: skip


def _known_id(prediction_id: Annotated[str, Path(max_length=64, description="The prediction's id.")]) -> str:
    if not is_id(prediction_id):
        raise PredictionNotFound(f"{prediction_id!r} is not the id of a prediction.")
    return prediction_id


Wanted = Annotated[RecordFilter, Depends(record_filter)]
KnownId = Annotated[str, Depends(_known_id)]
Cursor = Annotated[str | None, Query(max_length=64)]


def records_router(
    records: RecordService, images: ImageStore, export: ExportTables, *, channels: Mapping[str, Channel]
) -> APIRouter:
    """GET /predictions…: stored predictions, their photos, and the CSV export."""
    router = api_router(tags=["records"], dependencies=[guarded(Permission.RECORDS_READ)])

    @router.get("/predictions", response_model=RecordPageOut, summary="A page of predictions, newest first")
    def page(
        wanted: Wanted,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        before: Cursor = None,
        after: Cursor = None,
    ) -> Response:
        """Page by the cursors `older` and `newer` of the response."""
        for cursor in (before, after):
            if cursor is not None and not is_id(cursor):
                raise RequestInvalid(f"{cursor!r} is not a cursor. Use `older` or `newer` of a page.")
        found = records.page(wanted, limit=limit, before=before, after=after)
        items = [RecordOut.with_feedback(each, found.feedback.get(each.id, [])) for each in found.records]
        body = RecordPageOut(
            items=items, older=found.older, newer=found.newer, total=found.total, total_is_exact=found.total_is_exact
        )
        return json_response(body)

    @router.get("/predictions.csv", response_class=StreamingResponse, summary="Predictions as CSV")
    def export_csv(request: Request, wanted: Wanted) -> StreamingResponse:
        """Every prediction that matches, newest first, safe to open in a spreadsheet."""
        note(request, "predictions.exported", query=request.url.query)
        return download(export.records(records.resolved(wanted)), name="predictions.csv", media_type=_CSV)

    @router.get("/predictions/{prediction_id}", response_model=RecordOut, summary="One prediction")
    def one(prediction_id: KnownId) -> Response:
        """A stored prediction with its feedback."""
        return json_response(RecordOut.with_feedback(*records.get(prediction_id)))

    @router.get(
        "/predictions/{prediction_id}/image",
        response_class=Response,
        responses={200: {"content": {"image/*": {}}}},
        summary="The photo of a prediction",
    )
    def image(request: Request, prediction_id: KnownId, size: ImageSize = ImageSize.VIEW) -> Response:
        """The stored photo: `thumbnail` and `view` are JPEG without metadata, `original` is as it was sent.

        Photos of a channel with a moderation side are for people with the permission moderation:review.
        """
        record, _ = records.get(prediction_id)
        require(request, photos_need(channels, record.channel))
        return photo_answer(request, images.open_record(record, size))

    return router


def feedback_router(records: RecordService, export: ExportTables) -> APIRouter:
    """POST /feedback and GET /feedback.csv."""
    router = api_router(tags=["feedback"])

    @router.post(
        "/feedback",
        status_code=201,
        dependencies=[guarded(Permission.FEEDBACK_WRITE)],
        response_model=FeedbackOut,
        summary="Give feedback on a prediction",
    )
    def give(request: Request, body: FeedbackIn) -> Response:
        """The feedback is stored when this returns 201. It also answers for the batch item of the prediction."""
        stored = records.give_feedback(NewFeedback(**body.model_dump(), by=reviewer_of(request)))
        return json_response(FeedbackOut.model_validate(stored), status=201)

    @router.get(
        "/feedback.csv",
        dependencies=[guarded(Permission.RECORDS_READ)],
        response_class=StreamingResponse,
        summary="All feedback as CSV",
    )
    def export_csv(request: Request) -> StreamingResponse:
        """Image path, prediction and feedback, safe to open in a spreadsheet."""
        note(request, "feedback.exported")
        return download(export.feedback(), name="feedback.csv", media_type=_CSV)

    return router


def photo_answer(request: Request, photo: ImageFile) -> Response:
    """An uploaded photo, or a copy of it; 304 without it where the client has this very one."""
    etag = f'"{hashlib.blake2b(photo.data, digest_size=16).hexdigest()}"'
    headers = {**_PHOTO_HEADERS, "Cache-Control": _PHOTO_CACHE, "ETag": etag}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(photo.data, media_type=photo.media_type, headers=headers)


def _counted(metrics: Metrics) -> type[APIRoute]:
    """A route class that counts the requests for a prediction by status, refusals and failures included."""

    class CountedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_and_count(request: Request) -> Response:
                try:
                    response = await handle(request)
                except (Exception, asyncio.CancelledError) as error:
                    metrics.predictions.labels(status=str(status_of_exception(error))).inc()
                    raise
                metrics.predictions.labels(status=str(response.status_code)).inc()
                return response

            return handle_and_count

    return CountedRoute
