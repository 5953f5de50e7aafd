"""POST /predict: a photo in, honest labels out."""

from __future__ import annotations

import time
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from shoplens.platform.server import Platform
from shoplens.web.schemas import PhotoIn, PredictionOut, prediction_json
from shoplens.web.uploads import FILE_FIELD, Uploads

MAX_TOP_K = 100

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The photo, in any of these forms. Its format is told by its content, never by its name.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [FILE_FIELD],
                    "properties": {FILE_FIELD: {"type": "string", "format": "binary"}},
                }
            },
            "application/json": {"schema": PhotoIn.model_json_schema()},
            "image/jpeg": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }
}


def predict_router(platform: Platform) -> APIRouter:
    """The route with its upload bounds."""
    router = APIRouter(tags=["predictions"])
    limits = platform.limits
    uploads = Uploads(
        max_image_bytes=limits.max_image_bytes,
        max_queued_bytes=limits.max_queued_bytes,
        timeout_s=limits.upload_timeout_s,
    )

    @router.post(
        "/predict",
        response_model=None,
        responses={200: {"model": PredictionOut}},
        openapi_extra=_REQUEST_BODY,
        summary="Classify a photo",
    )
    async def predict(
        request: Request,
        channel: Annotated[str | None, Query(description="Which channel; the default one if left out.")] = None,
        top_k: Annotated[int, Query(ge=1, le=MAX_TOP_K, description="How many labels.")] = 5,
        timeout_s: Annotated[
            float | None,
            Query(ge=0.001, le=3600, description="Longest time for the answer; never more than the server's own."),
        ] = None,
    ) -> Response:
        """Classify one photo. When this answers 200, the prediction is in the database."""
        chosen = platform.classify.channel(channel)
        with uploads.admit(request) as most:
            photo = await uploads.read(request, most)
            received = time.perf_counter()
            record = await platform.classify(
                photo,
                channel=chosen.name,
                top_k=top_k,
                timeout_s=min(timeout_s or limits.deadline_s, limits.deadline_s),
            )
        platform.metrics.prediction_seconds.observe(time.perf_counter() - received)
        return Response(orjson.dumps(prediction_json(record, top_k=top_k)), media_type="application/json")

    return router
