"""The pages that people use: Classify, Records, Returns and Models, over the same services as the JSON API."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.responses import HTMLResponse, RedirectResponse

from shoplens.batch.pages import batch_router
from shoplens.batch.pages_item import batch_item_router
from shoplens.errors import NotFound
from shoplens.platform.server import Platform
from shoplens.predictions.pages import classify_router
from shoplens.predictions.pages_records import records_router
from shoplens.registry.pages import models_router
from shoplens.web.assets import STATIC_DIR, STATIC_URL, HashedFiles
from shoplens.web.rendering import PageRoute

__all__ = ["STATIC_DIR", "console_router", "mount_console"]


def console_router(platform: Platform) -> APIRouter:
    """All pages; none of them is part of the documented API."""
    router = APIRouter(include_in_schema=False, route_class=PageRoute)
    for build_router in (classify_router, records_router, batch_item_router, batch_router, models_router):
        router.include_router(build_router(platform))
    router.include_router(_rest())
    return router


def _rest() -> APIRouter:
    """The console's other addresses; it comes last, since it matches all of them."""
    router = APIRouter(route_class=PageRoute)

    @router.get("/console")
    def start() -> RedirectResponse:
        return RedirectResponse("/", status_code=307)

    @router.get("/console/{anything:path}")
    def nothing(anything: str) -> HTMLResponse:
        raise NotFound(f"There is no page {anything[:100]!r} in this console.")

    return router


def mount_console(app: FastAPI, platform: Platform) -> None:
    """Add the pages and their files to `app`."""
    app.include_router(console_router(platform))
    app.mount(STATIC_URL, HashedFiles(directory=STATIC_DIR), name="static")
