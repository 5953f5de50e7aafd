"""GET /health/live, /health/ready and /metrics: for load balancers, people on call and Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter
from pydantic import Field
from starlette.responses import Response

from shoplens.errors import ShoplensError
from shoplens.telemetry.metrics import EXPOSITION_TYPE, Metrics
from shoplens.web.schemas import Schema, json_response

_PROBE_TIMEOUT_S = 2.0


class HealthOut(Schema):
    """Whether the process can work, with a sentence for every part that does not."""

    status: str = Field(examples=["ready"])
    parts: dict[str, str] = Field(examples=[{"engine": "ok", "database": "ok", "storage": "ok"}])


def operations_router(probes: Mapping[str, Callable[[], Awaitable[None]]], metrics: Metrics) -> APIRouter:
    """All routes for operating the server. A probe raises one of our errors if its part does not work."""
    router = APIRouter(tags=["operations"])

    @router.get("/health/live", summary="Is the process alive?")
    async def live() -> HealthOut:
        """Returns 200 as long as the process can respond at all."""
        return HealthOut(status="live", parts={})

    @router.get(
        "/health/ready",
        response_model=HealthOut,
        responses={503: {"model": HealthOut, "description": "A part does not work; the body says which and why."}},
        summary="Can the process do its work?",
    )
    async def ready() -> Response:
        """Checks that the models are loaded and that database and store are reachable."""

        async def state(probe: Callable[[], Awaitable[None]]) -> str:
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await probe()
            except TimeoutError:
                return f"There was no answer within {_PROBE_TIMEOUT_S:g} s."
            except ShoplensError as error:
                return str(error)
            return "ok"

        states = await asyncio.gather(*map(state, probes.values()))
        is_ready = set(states) <= {"ok"}
        body = HealthOut(status="ready" if is_ready else "not ready", parts=dict(zip(probes, states, strict=True)))
        return json_response(body, status=200 if is_ready else 503)

    @router.get("/metrics", response_class=Response, operation_id="get_metrics", summary="Metrics for Prometheus")
    def exposition() -> Response:
        """Prometheus' text format."""
        return Response(metrics.exposition(), media_type=EXPOSITION_TYPE)

    return router
