"""GET /health/live, /health/ready and /metrics: for load balancers, people on call and Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded_metrics, identify_quietly, public
from shoplens.errors import ShoplensError
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import EXPOSITION_TYPE, Metrics
from shoplens.web.problems import public_detail, wants_page
from shoplens.web.rendering import page
from shoplens.web.schemas import Schema, json_response

_PROBE_TIMEOUT_S = 2.0
_log = get_logger(__name__)


class HealthOut(Schema):
    """Whether the process can work, with a sentence for every part that does not. The log has the details.

    `models` has a sentence for every model that cannot follow its champion: an earlier version of it answers.
    """

    status: str = Field(examples=["ready"])
    parts: dict[str, str] = Field(examples=[{"engine": "ok", "database": "ok", "storage": "ok"}])
    models: dict[str, str] = Field(default_factory=dict)


def operations_router(
    probes: Mapping[str, Callable[[], Awaitable[None]]],
    metrics: Metrics,
    *,
    metrics_open_to: tuple[str, ...],
    model_faults: Callable[[], dict[str, str]],
) -> APIRouter:
    """All routes for operating the server. A probe raises one of our errors if its part does not work.

    The addresses and networks `metrics_open_to` may read the metrics without an account.
    """
    router = APIRouter(tags=["operations"])
    logged: dict[str, str | None] = {}

    @router.get("/health/live", dependencies=[public], summary="Is the process alive?")
    async def live() -> HealthOut:
        """Returns 200 as long as the process can respond at all."""
        return HealthOut(status="live", parts={})

    @router.get(
        "/health/ready",
        dependencies=[public],
        response_model=HealthOut,
        responses={503: {"model": HealthOut, "description": "A part does not work; the body says which and why."}},
        summary="Can the process do its work?",
    )
    async def ready(request: Request) -> Response:
        """Checks that the models are loaded and that database and store are reachable. Browsers get a page."""

        async def state(part: str, probe: Callable[[], Awaitable[None]]) -> str:
            detail = None
            try:
                async with asyncio.timeout(_PROBE_TIMEOUT_S):
                    await probe()
            except TimeoutError:
                detail = shown = f"There was no answer within {_PROBE_TIMEOUT_S:g} s."
            except ShoplensError as error:
                detail, shown = str(error), public_detail(error, None)
            else:
                shown = "ok"
            if logged.get(part) != detail:  # not at each probe: load balancers ask every second
                logged[part] = detail
                _log.warning("health.part_changed", part=part, detail=detail or "ok")
            return shown

        states = await asyncio.gather(*(state(part, probe) for part, probe in probes.items()))
        is_ready = set(states) <= {"ok"}
        body = HealthOut(
            status="ready" if is_ready else "not ready",
            parts=dict(zip(probes, states, strict=True)),
            models=model_faults(),
        )
        response = json_response(body, status=200 if is_ready else 503)
        if wants_page(request.headers.get("accept", "")):
            await identify_quietly(request)
            response = page("status.html", status=response.status_code, health=body)
        response.headers["Vary"] = "Accept"
        return response

    @router.get(
        "/metrics",
        dependencies=[guarded_metrics(metrics_open_to)],
        response_class=Response,
        operation_id="get_metrics",
        summary="Metrics for Prometheus",
    )
    def exposition() -> Response:
        """Prometheus' text format."""
        return Response(metrics.exposition(), media_type=EXPOSITION_TYPE)

    return router
