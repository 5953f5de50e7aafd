"""POST /batch/ingest: import photos from the source of a channel, or the photos of a form."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from shoplens.batch.api import ChannelName
from shoplens.batch.api_schemas import IngestOut, UploadsOut, item_json
from shoplens.batch.entities import References
from shoplens.batch.importer import Importer, ImportStatus
from shoplens.errors import ImageMissing, RequestInvalid, ShoplensError, Unavailable
from shoplens.platform.server import Platform
from shoplens.web.uploads import (
    FILE_FIELD,
    UploadedForm,
    Uploads,
    content_length_of,
    media_type_of,
    photo_too_large,
)

MAX_FILES: Final = 500
_REFERENCES: Final = {
    "item": "Item number of all photos.",
    "order": "Order number of all photos.",
    "reason": "Reason of the return.",
}
_MAX_REFERENCE: Final = 1_000
_FILES: Final = {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
_FORM: Final = {
    "type": "object",
    "required": [FILE_FIELD],
    "properties": {
        FILE_FIELD: _FILES,
        **{name: {"type": "string", "description": text} for name, text in _REFERENCES.items()},
    },
}
_REQUEST_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": False,
        "description": "No body to import from the channel's source; or a form with photos to import.",
        "content": {"multipart/form-data": {"schema": _FORM}},
    }
}


def batch_ingest_router(platform: Platform, uploads: Uploads) -> APIRouter:
    """The route that imports photos."""
    router = APIRouter(tags=["batch"])
    limits, batch = platform.limits, platform.batch

    @router.post(
        "/batch/ingest",
        response_model=None,
        responses={
            200: {"model": IngestOut | UploadsOut, "description": "The import is finished."},
            202: {"model": IngestOut, "description": "The import is running. Repeat the request to get its progress."},
        },
        openapi_extra=_REQUEST_BODY,
        summary="Import photos",
    )
    async def ingest(request: Request, channel: ChannelName = None) -> Response:
        """Import photos from the channel's source, or the photos of a form.

        Without a body, an import from the source starts; if one is running, the request joins it. The photos of a form
        are imported at once, each with an outcome of its own.
        """
        target = batch.channel(channel)
        if media_type_of(request) == "multipart/form-data":
            received = uploads.form(
                request, max_bytes=limits.max_queued_bytes, max_files=MAX_FILES, max_fields=len(_REFERENCES)
            )
            async with received as form:
                photos = [photo async for photo in _import_each(target.importer, form, limits.max_image_bytes)]
            return Response(orjson.dumps({"photos": photos}), media_type="application/json")
        if content_length_of(request) or "transfer-encoding" in request.headers:
            raise RequestInvalid(
                f"Send photos as a form: curl -F {FILE_FIELD}=@photo.jpg …; or no body to import from the source."
            )
        await asyncio.wait([asyncio.wrap_future(target.imports.start())], timeout=batch.ingest_answer_s)
        status = target.imports.status()
        assert status is not None
        if status.error is not None:
            raise status.error
        body = orjson.dumps(_status_json(status))
        return Response(body, status_code=202 if status.running else 200, media_type="application/json")

    return router


async def _import_each(importer: Importer, form: UploadedForm, max_image_bytes: int) -> AsyncIterator[dict[str, Any]]:
    """An UploadOut per file. Raises Unavailable if the first file cannot be imported for such a reason."""
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
            photo = {"name": name, "item": item_json(item), "code": item.failure_code, "detail": item.failure}
        except ShoplensError as error:
            if index == 0 and isinstance(error, Unavailable):
                raise
            photo = {"name": name, "item": None, "code": error.code, "detail": str(error)}
        yield photo


def _references(fields: Mapping[str, str]) -> References:
    """The fields that describe all photos of a form. Raises RequestInvalid for a field that is too long."""
    values = {name: fields.get(name, "").replace("\x00", "").strip() for name in _REFERENCES}
    for name, value in values.items():
        if len(value) > _MAX_REFERENCE:
            raise RequestInvalid(f"The field {name!r} has more than {_MAX_REFERENCE} characters.")
    return References(**{name: value or None for name, value in values.items()})


def _status_json(status: ImportStatus) -> dict[str, Any]:
    """An IngestOut."""
    summary = status.summary
    return {
        "state": "running" if status.running else "finished",
        "started_at": status.started_at,
        "counts": summary.counts if summary else {},
        "seen": summary.seen if summary else 0,
        "bytes": summary.byte_count if summary else 0,
        "duration_s": round(summary.duration_s, 3) if summary else 0.0,
        "notes": list(summary.notes) if summary else [],
    }
