"""Join the JSON API and the console to one application over a platform that is already built."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI

import shoplens
from shoplens.batch.api import batch_router
from shoplens.batch.api_ingest import batch_ingest_router
from shoplens.batch.api_items import returned_items_router
from shoplens.errors import ShoplensError
from shoplens.platform.server import Platform
from shoplens.predictions.api import predict_router
from shoplens.predictions.api_feedback import feedback_router
from shoplens.predictions.api_records import records_router
from shoplens.registry.api import models_router
from shoplens.web.console import mount_console
from shoplens.web.middleware import Entrance
from shoplens.web.operations import operations_router
from shoplens.web.problems import MEDIA_TYPE, handle_problems
from shoplens.web.schemas import ProblemOut

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "description": "The request cannot be answered; `code` says why.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}},
    },
    "5XX": {
        "description": "The server cannot answer now; `code` says why.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemOut"}}},
    },
}


class _Application(FastAPI):
    """Adds the shape of our problems to the document, where every operation refers to it."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        document = super().openapi()
        document["components"]["schemas"].setdefault("ProblemOut", ProblemOut.model_json_schema())
        return document


_ROUTERS = (
    predict_router,
    records_router,
    feedback_router,
    batch_ingest_router,
    batch_router,
    returned_items_router,
    models_router,
    operations_router,
)
_log = structlog.get_logger(__name__)


def create_app(platform: Platform) -> FastAPI:
    """The application. It goes on with a run that nobody works on, and closes the platform when the server stops."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        resuming = asyncio.create_task(asyncio.to_thread(_resume, platform))
        yield
        await resuming
        await platform.close()

    app = _Application(
        title="Shoplens",
        version=shoplens.__version__,
        summary="Image classification that a shop runs itself.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=_PROBLEMS,
    )
    for build_router in _ROUTERS:
        app.include_router(build_router(platform))
    mount_console(app, platform)
    handle_problems(app, platform.metrics)
    app.add_middleware(Entrance, allowed_hosts=platform.limits.allowed_hosts, metrics=platform.metrics)
    return app


def _resume(platform: Platform) -> None:
    try:
        platform.batch.resume()
    except ShoplensError as error:  # the server is of use without it, and says by itself what is away
        _log.warning("night.not_resumed", code=error.code, reason=str(error))
