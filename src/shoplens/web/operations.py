"""GET /health/live, /health/ready and /metrics: for load balancers, people on call and Prometheus."""

from __future__ import annotations

import orjson
from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from shoplens.platform.server import Platform
from shoplens.web.schemas import HealthOut


def operations_router(platform: Platform) -> APIRouter:
    """All routes for operating the server."""
    router = APIRouter(tags=["operations"])

    @router.get("/health/live", response_model=HealthOut, summary="Is the process alive?")
    async def live() -> dict[str, object]:
        """Answers as long as the process can answer anything."""
        return {"status": "live", "parts": {}}

    @router.get(
        "/health/ready",
        response_model=HealthOut,
        responses={503: {"model": HealthOut, "description": "A part is not well; the body says which and why."}},
        summary="Can the process do its work?",
    )
    async def ready() -> Response:
        """Models loaded and warm, database and store reachable."""
        health = await platform.health()
        body = {
            "status": "ready" if health.ready else "not ready",
            "parts": {part: health.faults.get(part, "ok") for part in health.parts},
        }
        return Response(orjson.dumps(body), 200 if health.ready else 503, media_type="application/json")

    @router.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
    def metrics() -> Response:
        """The text format."""
        return Response(platform.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return router
