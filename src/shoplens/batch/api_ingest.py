"""POST /batch/ingest: bring photos in from the usual source, or the ones that are sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from shoplens.batch.api import ChannelName
from shoplens.batch.api_schemas import IngestOut, UploadsOut, item_json
from shoplens.batch.api_upload import PhotoForms, SentPhotos, has_form
from shoplens.batch.bring_in import Arrivals, BringIn
from shoplens.batch.entities import References
from shoplens.errors import ImageTooLarge, ShoplensError, Unavailable
from shoplens.platform.batch import BatchChannel
from shoplens.platform.server import Platform
from shoplens.web.uploads import FILE_FIELD

_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": False,
        "description": "Nothing, to have the usual source looked at; or photos, which are taken at once.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FILE_FIELD],
                    "properties": {
                        FILE_FIELD: {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1},
                        "item": {"type": "string", "description": "The item reference of all these photos."},
                        "order": {"type": "string", "description": "The order reference of all these photos."},
                        "reason": {"type": "string", "description": "Why it was sent back."},
                    },
                }
            }
        },
    }
}


def batch_ingest_router(platform: Platform) -> APIRouter:
    """The route with its bounds."""
    router = APIRouter(tags=["batch"])
    limits, batch = platform.limits, platform.batch
    forms = PhotoForms(
        max_body_bytes=limits.max_queued_bytes,
        max_image_bytes=limits.max_image_bytes,
        timeout_s=limits.upload_timeout_s,
    )

    @router.post(
        "/batch/ingest",
        response_model=None,
        responses={
            200: {"model": IngestOut | UploadsOut, "description": "It is done."},
            202: {"model": IngestOut, "description": "It goes on by itself. Ask again to hear more."},
        },
        openapi_extra=_REQUEST_BODY,
        summary="Bring photos in",
    )
    async def ingest(request: Request, channel: ChannelName = None) -> Response:
        """Without a body the usual source is looked at, by one ingest at a time, which every further call joins.

        Photos that are sent are taken at once, with an outcome for each: one that is bad costs only itself.
        """
        here = batch.channel(channel)
        if not has_form(request):
            arrivals = await _brought_in(here.bring_in, batch.ingest_answer_s)
            return _answer(_ingest_json(arrivals), status=202 if arrivals.running else 200)
        async with forms.receive(request) as sent:
            return _answer({"photos": [outcome async for outcome in _taken(platform, here, sent)]}, status=200)

    return router


async def _brought_in(bring_in: BringIn, patience_s: float) -> Arrivals:
    """How it stands at its end, or after a while. Raises what ended it early."""
    await asyncio.wait([asyncio.wrap_future(bring_in.join())], timeout=patience_s)
    arrivals = bring_in.standing()
    assert arrivals is not None
    if arrivals.error is not None:
        raise arrivals.error
    return arrivals


async def _taken(platform: Platform, here: BatchChannel, sent: SentPhotos) -> AsyncIterator[Mapping[str, Any]]:
    """An outcome per file. Raises Unavailable where not even the first one could be taken for such a reason."""
    for index, file in enumerate(sent.files):
        name = file.filename or "photo"
        try:
            outcome = await _take(platform, here, file, name, sent.references)
        except ShoplensError as error:
            if index == 0 and isinstance(error, Unavailable):
                raise
            outcome = {"name": name, "item": None, "code": error.code, "detail": str(error)}
        yield outcome


async def _take(
    platform: Platform, here: BatchChannel, file: UploadFile, name: str, references: References
) -> dict[str, Any]:
    limit = platform.limits.max_image_bytes
    if (file.size or 0) > limit:
        raise ImageTooLarge(f"The photo has more than {limit:,} bytes, which is the limit here.")
    data = await file.read()
    item = await asyncio.to_thread(here.ingest.take_one, data, name=name, references=references)
    return {"name": name, "item": item_json(item), "code": item.failure_code, "detail": item.failure}


def _ingest_json(arrivals: Arrivals) -> dict[str, Any]:
    summary = arrivals.summary
    return {
        "state": "running" if arrivals.running else "finished",
        "started_at": arrivals.started_at,
        "counts": dict(summary.counts) if summary else {},
        "seen": summary.seen if summary else 0,
        "bytes": summary.byte_count if summary else 0,
        "duration_s": round(summary.duration_s, 3) if summary else 0.0,
        "notes": list(summary.notes) if summary else [],
    }


def _answer(body: Mapping[str, Any], *, status: int) -> Response:
    return Response(orjson.dumps(body), status_code=status, media_type="application/json")
