"""GET /health/live, /health/ready and /metrics: for load balancers, people on call and Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import Field
from starlette.responses import Response

from shoplens.telemetry.health import CheckHealth
from shoplens.telemetry.metrics import Metrics
from shoplens.web.schemas import Schema, json_response


class HealthOut(Schema):
    """Whether the process can work, with a sentence for every part that is not well."""

    status: str = Field(examples=["ready"])
    parts: dict[str, str] = Field(examples=[{"engine": "ok", "database": "ok", "storage": "ok"}])


def operations_router(health: CheckHealth, metrics: Metrics) -> APIRouter:
    """All routes for operating the server."""
    router = APIRouter(tags=["operations"])

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> HealthOut:
        """Returns 200 as long as the process can respond at all."""
        return HealthOut(status="live", parts={})

    @router.get(
        "/health/ready",
        response_model=HealthOut,
        responses={503: {"model": HealthOut, "description": "A part is not well; the body says which and why."}},
        summary="Can the process do its work?",
    )
    async def ready() -> Response:
        """Checks that the models are loaded and that database and store are reachable."""
        found = await health()
        body = HealthOut(
            status="ready" if found.ready else "not ready",
            parts={part: found.faults.get(part, "ok") for part in found.parts},
        )
        return json_response(body, status=200 if found.ready else 503)

    @router.get("/metrics", response_class=Response, summary="Metrics for Prometheus")
    def exposition() -> Response:
        """Prometheus' text format."""
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return router
