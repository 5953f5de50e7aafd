"""GET /health/live, /health/ready, /status and /metrics: for load balancers, people and Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import guarded_metrics, identify_quietly, public
from shoplens.errors import ShoplensError
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import EXPOSITION_TYPE, Metrics
from shoplens.web.language import speak
from shoplens.web.problems import public_detail, wants_page
from shoplens.web.rendering import page
from shoplens.web.routing import api_router
from shoplens.web.schemas import Schema, json_response

_PROBE_TIMEOUT_S = 2.0
_RECENT_S = 5.0
_log = get_logger(__name__)


class HealthOut(Schema):
    """Whether the process can work, with a sentence for every part that does not. The log has the details.

    `models` has a sentence for every model that cannot follow its champion: an earlier version of it answers.
    """

    status: str = Field(examples=["ready"])
    parts: dict[str, str] = Field(examples=[{"engine": "ok", "database": "ok", "storage": "ok"}])
    models: dict[str, str] = Field(default_factory=dict)


class _Health:
    """What the probes say, and since when each part has been as it is, as far as this process has seen."""

    def __init__(
        self, probes: Mapping[str, Callable[[], Awaitable[None]]], model_faults: Callable[[], dict[str, str]]
    ) -> None:
        self._probes = probes
        self._model_faults = model_faults
        self._details: dict[str, str] = {}
        self._last: tuple[float, HealthOut] | None = None
        self._started = datetime.now(UTC)
        self._changed: dict[str, datetime] = {}

    async def look(self) -> HealthOut:
        """Ask every part now."""
        states = await asyncio.gather(*(self._state(part, probe) for part, probe in self._probes.items()))
        found = HealthOut(
            status="ready" if set(states) <= {"ok"} else "not ready",
            parts=dict(zip(self._probes, states, strict=True)),
            models=self._model_faults(),
        )
        self._last = time.monotonic(), found
        return found

    async def recent(self) -> HealthOut:
        """The same, at most a few seconds old: anybody may ask for the page, and a probe writes."""
        if self._last is not None and time.monotonic() - self._last[0] < _RECENT_S:
            return self._last[1]
        return await self.look()

    def since(self, part: str) -> datetime:
        """When it came to work, or no longer did; the start of this process where it never changed."""
        return self._changed.get(part, self._started)

    async def _state(self, part: str, probe: Callable[[], Awaitable[None]]) -> str:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await probe()
        except TimeoutError:
            detail = shown = f"There was no answer within {_PROBE_TIMEOUT_S:g} s."
        except ShoplensError as error:
            detail, shown = str(error), public_detail(error, None)
        else:
            detail = shown = "ok"
        before = self._details.get(part, "ok")
        if before != detail:  # not at each probe: load balancers ask every second
            self._details[part] = detail
            _log.warning("health.part_changed", part=part, detail=detail)
            if "ok" in (before, detail):
                self._changed[part] = datetime.now(UTC)
        return shown


def _status_of(health: HealthOut) -> int:
    return 200 if health.status == "ready" else 503


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
    router = api_router(tags=["operations"], any_parameters=True)
    health = _Health(probes, model_faults)

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
        body = await health.look()
        response = json_response(body, status=_status_of(body))
        if wants_page(request.headers.get("accept", "")):
            response = await status_page(request, body)
        response.headers["Vary"] = "Accept"
        return response

    @router.get("/status", dependencies=[public], include_in_schema=False)
    async def status(request: Request) -> Response:
        return await status_page(request, await health.recent())

    async def status_page(request: Request, body: HealthOut) -> Response:
        speak(request.scope)
        await identify_quietly(request)
        return page(
            "status.html",
            status=_status_of(body),
            health=body,
            since=health.since,
            workers=metrics.workers_alive(),
        )

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
