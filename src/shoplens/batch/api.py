"""The JSON API of batches: import photos, start and follow runs, export results, and label items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Final, Literal, Self

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import Field
from starlette.responses import HTMLResponse, Response, StreamingResponse

from shoplens.accounts.access import guarded, note, requester_of
from shoplens.accounts.entities import Permission
from shoplens.batch.browse import MAX_PAGE, RunSummary, RunView
from shoplens.batch.entities import BatchItem, ItemFilter, ItemState, References, RunCounts, RunState
from shoplens.batch.export import MEDIA_TYPES, ExportFormat
from shoplens.batch.importer import Importer, ImportStatus
from shoplens.batch.service import Batch
from shoplens.batch.status import OwnerState
from shoplens.db.tables import is_id
from shoplens.errors import ImageMissing, RequestInvalid, RunNotFound, ShoplensError, Unavailable
from shoplens.predictions.entities import Answer
from shoplens.web.bodies import content_length
from shoplens.web.downloads import download
from shoplens.web.problems import public_detail
from shoplens.web.routing import api_router
from shoplens.web.schemas import ModelOut, Schema, json_response
from shoplens.web.uploads import FILE_FIELD, UploadedForm, Uploads, media_type_of, photo_too_large

MAX_FILES: Final = 500
REQUESTED_BY: Final = "http"
_MOST_RUNS: Final = 100
_MAX_REFERENCE: Final = 1_000
_EXAMPLE_ID: Final = "01k9hzv3m5x4q8d0j7w2r6t9ab"

# The report is one file with its own style and images. It may run nothing and load nothing.
_REPORT_HEADERS: Final = {
    "Cache-Control": "private, no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox allow-top-navigation-by-user-activation allow-popups"
    ),
}
_EXPORT_CONTENT: Final[dict[str, Any]] = {media.partition(";")[0]: {} for media in MEDIA_TYPES.values()}
_REFERENCES: Final = {
    "item": "Item number of all photos.",
    "order": "Order number of all photos.",
    "reason": "Reason of the return.",
}
_INGEST_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": False,
        "description": "No body to import from the channel's source; or a form with photos to import.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FILE_FIELD],
                    "properties": {
                        FILE_FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
                        **{name: {"type": "string", "description": text} for name, text in _REFERENCES.items()},
                    },
                }
            }
        },
    }
}


def _shared(schema: type[Schema], value: object) -> dict[str, Any]:
    """The fields that `schema` and `value` both have."""
    return {name: getattr(value, name) for name in schema.model_fields if hasattr(value, name)}


class ReferencesOut(Schema):
    """What the shop calls an item; each may be unknown."""

    item: str | None = Field(examples=["4711"])
    order: str | None = Field(examples=["100234"])
    reason: str | None = Field(examples=["too small"])


class FailureOut(Schema):
    """Why a photo could not be processed. `code` is stable; `detail` is a sentence for people."""

    code: str = Field(examples=["image_corrupt"])
    detail: str = Field(examples=["The file is damaged or incomplete."])


class ItemOut(Schema):
    """One imported photo. `label` is the label that a person set, else the predicted one."""

    id: str = Field(examples=[_EXAMPLE_ID])
    received_at: datetime
    source_name: str = Field(description="The name of the imported file.", examples=["100234_4711.jpg"])
    references: ReferencesOut
    sha256: str
    bytes: int = Field(examples=[412_345])
    state: ItemState
    run_id: str | None = Field(description="The run that processed it.", examples=[_EXAMPLE_ID])
    prediction_id: str | None = Field(description="Its record: `/predictions/ID`.", examples=[_EXAMPLE_ID])
    predicted: str | None = Field(examples=["dress"])
    score: float | None = Field(examples=[0.93])
    label: str | None = Field(examples=["skirt"])
    corrected_at: datetime | None = Field(description="When a person last set or confirmed the label.")
    finished_at: datetime | None
    attempts: int = Field(description="The number of attempts so far.")
    work_ms: float | None = Field(description="The duration of its classification in milliseconds.", examples=[18.2])
    stored_as: str | None = Field(
        description="The key of its photo in the store; null for a duplicate.",
        examples=["returns/processed/skirt/01k9hzv3m5x4q8d0j7w2r6t9ab-100234_4711.jpg"],
    )
    duplicate_of: str | None = Field(description="The item with the same photo.")
    failure: FailureOut | None
    answer: Answer | None = Field(description="What a person said of it.", examples=["corrected"])
    proposed: str | None = Field(description="The category that a person missed.", examples=["scarf"])
    revision: int = Field(description="Rises when a person changes the item. Send it as `seen` to detect conflicts.")
    retriable: bool = Field(description="Quarantined, and another attempt may help.")
    retried_as: str | None = Field(description="The item that waits, or was processed, instead of this one.")

    @classmethod
    def of(cls, item: BatchItem) -> Self:
        """The `item` as JSON."""
        failure = FailureOut(code=item.failure_code, detail=item.failure or "") if item.failure_code else None
        own = {"bytes": item.byte_count, "stored_as": item.target_key or item.key, "failure": failure}
        return cls.model_validate(_shared(cls, item) | own)


class ItemPageOut(Schema):
    """A page of items, newest first; `older` and `newer` are values for `before` and `after`."""

    items: list[ItemOut]
    older: int | None
    newer: int | None


class RunCountsOut(Schema):
    """The number of photos in each state."""

    waiting: int
    processing: int
    done: int
    needs_review: int
    quarantined: int
    duplicate: int
    dismissed: int

    @classmethod
    def of(cls, counts: RunCounts) -> Self:
        """The `counts` as JSON."""
        return cls(**{state.value: counts[state] for state in ItemState})


class RunOut(Schema):
    """One run. `counts` covers everything that was received, or queued again, since the previous run.

    `received` is their sum. In a finished run nothing joins or leaves them.
    """

    id: str = Field(examples=[_EXAMPLE_ID])
    created_at: datetime
    requested_by: str = Field(examples=["http"])
    state: RunState
    model: ModelOut | None = Field(description="Set when the run has started.")
    policy_version: str | None = Field(examples=["18608add0b55"])
    planned: int = Field(description="The number of photos to process.", examples=[10_000])
    received: int = Field(description="The sum of `counts`.", examples=[10_120])
    counts: RunCountsOut
    started_at: datetime | None
    last_item_at: datetime | None = Field(description="When it last finished a photo.")
    finished_at: datetime | None
    heartbeat: int = Field(description="Rises with each heartbeat of the process that works on it.")
    heartbeat_at: datetime | None
    stalled: bool = Field(description="The process is alive, but finishes no photo.")
    worker: OwnerState = Field(
        description="The process that works on it; `silent` means that its heartbeat is overdue."
    )
    failure: str | None = Field(description="Why the last attempt was interrupted; the log has the details.")

    @classmethod
    def of(cls, view: RunSummary | RunView, batch: Batch) -> Self:
        """A run as JSON, with what `batch` knows of its process."""
        run = view.run
        own = {
            "counts": RunCountsOut.of(view.counts),
            "received": view.counts.received,
            "worker": batch.owner_of(run),
            "failure": run.failure or batch.launcher.trouble(run.id),
        }
        if isinstance(view, RunView):
            states = {
                label: {state: view.labels.get((state, label), 0) for state in ItemState}
                for label in sorted({label for _, label in view.labels})
            }
            own["answers"] = {answer: view.answers.get(answer, 0) for answer in Answer}
            own["labels"] = {label: RunCountsOut.of(RunCounts(by_state=counts)) for label, counts in states.items()}
        return cls.model_validate(_shared(cls, run) | _shared(cls, view) | own)


class RunProgressOut(RunOut):
    """A run with its progress."""

    settled: int = Field(description="Processed photos.", examples=[4_200])
    left: int = Field(description="Photos still to be processed.", examples=[5_800])
    progress: float = Field(description="From 0 to 1.", examples=[0.42])
    rate_per_s: float | None = Field(description="Photos per second, on average over the run.", examples=[31.5])
    seconds_left: float | None = Field(examples=[184.1])
    last_item_ago_s: float | None = Field(examples=[0.4])
    answers: dict[Answer, int] = Field(description="How many photos people answered for, by answer.")
    labels: dict[str, RunCountsOut] = Field(
        description="The counts by category.",
        examples=[{"dress": {state.value: 0 for state in ItemState} | {"done": 310, "needs_review": 12}}],
    )


class RunPageOut(Schema):
    """Runs, newest first; `older` is a value for `before`."""

    runs: list[RunOut]
    older: str | None


class IngestOut(Schema):
    """An import from the channel's source, finished or running."""

    state: Literal["running", "finished"]
    started_at: datetime
    counts: dict[str, int] = Field(
        description=(
            "Files by outcome: `taken` wait for a run, `duplicates` repeat another photo, `quarantined` are empty or "
            "too large, `known` were imported before, `not_ready`, `unreadable` and `refused` stay in the source; "
            "`not_removed` were imported but could not be removed. Empty before the first commit."
        ),
        examples=[{"taken": 118, "duplicates": 2, "quarantined": 0, "known": 0, "not_ready": 1}],
    )
    seen: int = Field(examples=[121])
    bytes: int = Field(examples=[48_000_000])
    duration_s: float = Field(examples=[6.4])
    notes: list[str] = Field(description="What needs attention.")

    @classmethod
    def of(cls, status: ImportStatus) -> Self:
        """The `status` of an import as JSON."""
        summary = status.summary
        return cls(
            state="running" if status.running else "finished",
            started_at=status.started_at,
            counts=dict(summary.counts) if summary else {},
            seen=summary.seen if summary else 0,
            bytes=summary.byte_count if summary else 0,
            duration_s=round(summary.duration_s, 3) if summary else 0.0,
            notes=list(summary.notes) if summary else [],
        )


class UploadOut(Schema):
    """The outcome of one photo of a form. `item` is null if it was not imported; `code` is the error, if any."""

    name: str = Field(examples=["100234_4711.jpg"])
    item: ItemOut | None
    code: str | None = Field(examples=["image_too_large"])
    detail: str | None


class UploadsOut(Schema):
    """The outcomes of the photos of a form, in their order."""

    photos: list[UploadOut]


def item_filter(
    state: Annotated[ItemState | None, Query()] = None,
    label: Annotated[
        str | None, Query(max_length=200, description="The label that a person set, else the predicted one.")
    ] = None,
    text: Annotated[str | None, Query(max_length=200, description="The beginning of an item or order number.")] = None,
) -> ItemFilter:
    """The filter in the query of a request."""
    return ItemFilter(state=state, label=label, text=text)


def _known_run(run_id: Annotated[str, Path(max_length=64, description="The run's id.")]) -> str:
    if not is_id(run_id):
        raise RunNotFound(f"{run_id!r} is not the id of a run.")
    return run_id


ChannelName = Annotated[
    str | None, Query(max_length=200, description="The channel. Optional if only one has a batch side.")
]
Wanted = Annotated[ItemFilter, Depends(item_filter)]
RunId = Annotated[str, Depends(_known_run)]
Cursor = Annotated[int | None, Query(ge=0, lt=1 << 63)]


def ingest_router(batch: Batch, uploads: Uploads, *, max_image_bytes: int, max_queued_bytes: int) -> APIRouter:
    """POST /batch/ingest. A form may have `max_queued_bytes` in all."""
    router = api_router(tags=["batch"])

    @router.post(
        "/batch/ingest",
        dependencies=[guarded(Permission.BATCH_RUN)],
        response_model=None,
        responses={
            200: {"model": IngestOut | UploadsOut, "description": "The import is finished."},
            202: {"model": IngestOut, "description": "The import is running. Repeat the request to get its progress."},
        },
        openapi_extra=_INGEST_BODY,
        operation_id="import_photos",
        summary="Import photos",
    )
    async def ingest(request: Request, channel: ChannelName = None) -> Response:
        """Import photos from the channel's source, or the photos of a form.

        Without a body, an import from the source starts; if one is running, the request joins it. The photos of a form
        are imported at once, each with an outcome of its own.
        """
        target = batch.channel(channel)
        if media_type_of(request) == "multipart/form-data":
            async with uploads.form(
                request, max_bytes=max_queued_bytes, max_files=MAX_FILES, max_fields=len(_REFERENCES)
            ) as form:
                photos = [photo async for photo in _import_each(target.importer, form, max_image_bytes)]
            return json_response(UploadsOut(photos=photos))
        if content_length(request.headers) or "transfer-encoding" in request.headers:
            raise RequestInvalid(
                f"Send photos as a form: curl -F {FILE_FIELD}=@photo.jpg …; or no body to import from the source."
            )
        await asyncio.wait([asyncio.wrap_future(target.imports.start())], timeout=batch.ingest_answer_s)
        status = target.imports.status()
        assert status is not None
        if status.error is not None:
            raise status.error
        return json_response(IngestOut.of(status), status=202 if status.running else 200)

    return router


async def _import_each(importer: Importer, form: UploadedForm, max_image_bytes: int) -> AsyncIterator[UploadOut]:
    """The outcome of each file. Raises RequestInvalid, and Unavailable if that is the error of the first file."""
    if not form.files:
        raise ImageMissing(f"The form has no file in the field {FILE_FIELD!r}. Send: curl -F {FILE_FIELD}=@photo.jpg …")
    references = _references(form.fields)
    for index, file in enumerate(form.files):
        name = file.filename or "photo"
        try:
            if (file.size or 0) > max_image_bytes:
                raise photo_too_large(file.size, max_image_bytes)
            data = await file.read()
            item = await asyncio.to_thread(importer.import_photo, data, name=name, references=references)
            photo = UploadOut(name=name, item=ItemOut.of(item), code=item.failure_code, detail=item.failure)
        except ShoplensError as error:
            if index == 0 and isinstance(error, Unavailable):
                raise
            photo = UploadOut(name=name, item=None, code=error.code, detail=public_detail(error, None))
        yield photo


def _references(fields: Mapping[str, str]) -> References:
    """The fields that describe all photos of a form. Raises RequestInvalid for a field that is too long."""
    values = {name: fields.get(name, "").replace("\x00", "").strip() for name in _REFERENCES}
    for name, value in values.items():
        if len(value) > _MAX_REFERENCE:
            raise RequestInvalid(f"The field {name!r} has more than {_MAX_REFERENCE} characters.")
    return References(**{name: value or None for name, value in values.items()})


def runs_router(batch: Batch) -> APIRouter:
    """/batch/runs…: start runs, follow them, and get their results."""
    router = api_router(tags=["batch"])
    reading = [guarded(Permission.BATCH_READ)]

    @router.post(
        "/batch/runs",
        dependencies=[guarded(Permission.BATCH_RUN)],
        status_code=202,
        response_model=RunProgressOut,
        responses={202: {"headers": {"Location": {"schema": {"type": "string"}, "description": "URL of the run."}}}},
        summary="Start a run",
    )
    def start(request: Request, channel: ChannelName = None) -> Response:
        """Classify all waiting photos. The run continues if this server stops; an interrupted run is resumed.

        Responds 409 `run_in_progress` while a run of the channel is active, and 409 `nothing_waiting` without a run if
        no photo waits.
        """
        run = batch.start(batch.channel(channel).name, requested_by=requester_of(request, REQUESTED_BY))
        note(request, "run.started", target=run.id, channel=run.channel)
        response = json_response(RunProgressOut.of(batch.browse.run(run.id), batch), status=202)
        response.headers["Location"] = f"/batch/runs/{run.id}"
        return response

    @router.get("/batch/runs", dependencies=reading, response_model=RunPageOut, summary="A page of runs, newest first")
    def runs(
        channel: ChannelName = None,
        limit: Annotated[int, Query(ge=1, le=_MOST_RUNS)] = 30,
        before: Annotated[str | None, Query(max_length=64, description="The cursor `older` of a page.")] = None,
    ) -> Response:
        """Page by the cursor `older` of the response."""
        if before is not None and not is_id(before):
            raise RequestInvalid(f"{before!r} is not a cursor. Use `older` of a page.")
        found = batch.browse.runs(batch.channel(channel).name, limit=limit + 1, before=before)
        on_page = found[:limit]
        older = on_page[-1].run.id if len(found) > limit else None
        return json_response(RunPageOut(runs=[RunOut.of(each, batch) for each in on_page], older=older))

    @router.get(
        "/batch/runs/{run_id}", dependencies=reading, response_model=RunProgressOut, summary="One run with its progress"
    )
    def run(run_id: RunId) -> Response:
        """Counts, rate, time left, and the state of the process that works on it."""
        return json_response(RunProgressOut.of(batch.browse.run(run_id), batch))

    @router.post(
        "/batch/runs/{run_id}/cancel",
        dependencies=[guarded(Permission.BATCH_RUN)],
        response_model=RunProgressOut,
        summary="Cancel a run",
    )
    def cancel(request: Request, run_id: RunId) -> Response:
        """What is done stays done; the other photos wait for the next run. A run that has ended stays as it is."""
        run = batch.cancel(run_id, requester_of(request, REQUESTED_BY))
        note(request, "run.cancelled", target=run.id, channel=run.channel)
        return json_response(RunProgressOut.of(batch.browse.run(run.id), batch))

    @router.get(
        "/batch/runs/{run_id}/items", dependencies=reading, response_model=ItemPageOut, summary="The items of a run"
    )
    def items(
        run_id: RunId,
        wanted: Wanted,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        before: Cursor = None,
        after: Cursor = None,
    ) -> Response:
        """Newest first. Page by the cursors `older` and `newer` of the response."""
        found = batch.browse.items(replace(wanted, run_id=run_id), limit=limit, before=before, after=after)
        page = ItemPageOut(items=[ItemOut.of(item) for item in found.items], older=found.older, newer=found.newer)
        return json_response(page)

    @router.get(
        "/batch/runs/{run_id}/export",
        dependencies=reading,
        response_class=StreamingResponse,
        responses={200: {"content": _EXPORT_CONTENT, "description": "The table as a file."}},
        summary="The results of a run as a file",
    )
    def export(
        request: Request, run_id: RunId, wanted: Wanted, format: Annotated[ExportFormat, Query()] = ExportFormat.CSV
    ) -> StreamingResponse:
        """One row per photo, with duplicates, in the order of arrival. CSV is safe to open in a spreadsheet."""
        note(request, "run.exported", target=run_id, format=format.value)
        chunks = batch.export.stream(replace(wanted, run_id=run_id), format)
        return download(chunks, name=f"run-{run_id}.{format.value}", media_type=MEDIA_TYPES[format])

    @router.get(
        "/batch/runs/{run_id}/report", dependencies=reading, response_class=HTMLResponse, summary="The report of a run"
    )
    def report(request: Request, run_id: RunId) -> HTMLResponse:
        """A self-contained page with the current results. Its links also work from a file."""
        html = batch.report.render(run_id, server=str(request.base_url))
        return HTMLResponse(html, headers=_REPORT_HEADERS)

    return router
