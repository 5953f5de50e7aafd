"""Turn every error into problem+json (RFC 9457): one table from class to status, found along the MRO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from shoplens import errors
from shoplens.errors import QueueFull, RequestInvalid, ShoplensError
from shoplens.telemetry.metrics import Metrics

MEDIA_TYPE = "application/problem+json"

STATUS: Mapping[type[ShoplensError], int] = {
    ShoplensError: 500,
    errors.SampleError: 422,
    errors.ImageTooLarge: 413,
    errors.ImageTooManyPixels: 413,
    errors.ImageUnsupported: 415,
    errors.ImageNeedsExtra: 415,
    errors.RequestInvalid: 422,
    errors.UploadTooSlow: 408,
    errors.RequestForbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.BundleError: 500,
    errors.TrainingError: 500,
    errors.Overloaded: 503,
    errors.QueueFull: 429,
    errors.DeadlineExceeded: 504,
    errors.Unavailable: 503,
    errors.Misconfigured: 500,
}

_RETRY_UNAVAILABLE_S = 5
_log = structlog.get_logger(__name__)


def status_of(error: type[ShoplensError]) -> int:
    """The status of an error class, its own or its nearest ancestor's."""
    return next(STATUS[ancestor] for ancestor in error.__mro__ if ancestor in STATUS)


def problem(status: int, code: str, detail: str, *, request_id: str | None, retry_after_s: float | None) -> Response:
    """A problem+json response; `retry_after_s` becomes a Retry-After header in whole seconds."""
    body: dict[str, Any] = {
        "type": f"urn:shoplens:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
    }
    headers = {}
    if retry_after_s is not None:
        body["retry_after_s"] = round(retry_after_s, 3)
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    return Response(orjson.dumps(body), status_code=status, media_type=MEDIA_TYPE, headers=headers)


def problem_of(error: ShoplensError, *, request_id: str | None) -> Response:
    """The response for one of our errors."""
    status = status_of(type(error))
    retry_after_s = error.retry_after_s if isinstance(error, QueueFull) else None
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        retry_after_s = _RETRY_UNAVAILABLE_S
    return problem(status, error.code, str(error), request_id=request_id, retry_after_s=retry_after_s)


def handle_problems(app: FastAPI, metrics: Metrics) -> None:
    """Install the handlers for our errors, for invalid parameters, and for the framework's own refusals."""

    async def on_shoplens_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ShoplensError)
        metrics.failures.labels(code=error.code).inc()
        if status_of(type(error)) == HTTPStatus.INTERNAL_SERVER_ERROR:
            _log.error("request.failed", code=error.code, detail=str(error), exc_info=error.__cause__ or error)
        return problem_of(error, request_id=_request_id(request))

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return await on_shoplens_error(request, RequestInvalid(f"The request is not valid: {faults}."))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = HTTPStatus(error.status_code).name.lower()
        metrics.failures.labels(code=code).inc()
        response = problem(
            error.status_code, code, str(error.detail), request_id=_request_id(request), retry_after_s=None
        )
        response.headers.update(error.headers or {})
        return response

    app.add_exception_handler(ShoplensError, on_shoplens_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)


def _request_id(request: Request) -> str | None:
    request_id: str | None = request.scope.get("state", {}).get("request_id")
    return request_id
