"""Turn every error into problem+json (RFC 9457): one table from error class to HTTP status."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from http import HTTPStatus

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Scope

from shoplens import errors
from shoplens.errors import QueueFull, RequestInvalid, ShoplensError, TooManyTries
from shoplens.messages import known, marked
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

MEDIA_TYPE = "application/problem+json"
CLIENT_CLOSED_REQUEST = 499  # nginx's number for a client that left before the response
INTERNAL_ERROR_DETAIL = "Something went wrong on the server. The log has the details under this request id."

STATUS: Mapping[type[ShoplensError], int] = {
    ShoplensError: 500,
    errors.SampleError: 422,
    errors.ImageTooLarge: 413,
    errors.ImageTooManyPixels: 413,
    errors.ImageUnsupported: 415,
    errors.ImageNeedsExtra: 415,
    errors.ImageChanged: 410,
    errors.RequestInvalid: 422,
    errors.RequestMalformed: 400,
    errors.HeadersTooLarge: 431,
    errors.AddressTooLong: 414,
    errors.BodyTooLarge: 413,
    errors.BodyUnsupported: 415,
    errors.UploadTooSlow: 408,
    errors.RequestForbidden: 403,
    errors.NotAuthenticated: 401,
    errors.PermissionDenied: 403,
    errors.TooManyTries: 429,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.BundleError: 500,
    errors.Overloaded: 503,
    errors.QueueFull: 429,
    errors.DeadlineExceeded: 504,
    errors.Unavailable: 503,
    errors.Misconfigured: 500,
}

_RETRY_UNAVAILABLE_S = 5
_log = get_logger(__name__)


class ProblemOut(BaseModel):
    """An error (RFC 9457). `code` is stable; `detail` is a sentence for people."""

    type: str = Field(examples=["urn:shoplens:error:image_too_large"])
    title: str = Field(examples=["Content Too Large"])
    status: int = Field(examples=[413])
    detail: str
    code: str = Field(examples=["image_too_large"])
    request_id: str | None
    retry_after_s: float | None = None


def wants_page(accept: str) -> bool:
    """Whether a browser asks for something to show: it names HTML, where programs name JSON or take anything."""
    return "text/html" in accept and not accept.startswith("application/json")


def status_of(error: type[ShoplensError]) -> int:
    """The status of an error class, its own or its nearest ancestor's."""
    return next(STATUS[ancestor] for ancestor in error.__mro__ if ancestor in STATUS)


def status_of_exception(error: BaseException) -> int:
    """The status of a request that raised `error`, which may be an error of a library too."""
    if isinstance(error, ShoplensError):
        return status_of(type(error))
    if isinstance(error, RequestValidationError):
        return status_of(RequestInvalid)
    if isinstance(error, ClientDisconnect | asyncio.CancelledError):
        return CLIENT_CLOSED_REQUEST
    return error.status_code if isinstance(error, HTTPException) else HTTPStatus.INTERNAL_SERVER_ERROR


def public_detail(error: ShoplensError, request_id: str | None) -> str:
    """What a client may read of `error`: parts that hold addresses or paths keep their details for the log."""
    is_shortened = error.public_message is not None
    return marked(f"{error.public} Reference: {request_id}.") if is_shortened and request_id else error.public


def logged_path(scope: Scope) -> str:
    """The path of a request for a log: without the customer that it names, or the token that it carries."""
    path: str = scope["path"]
    for beginning in getattr(getattr(scope.get("app"), "state", None), "private_paths", ()):
        if path.startswith(beginning):
            return f"{beginning}…"
    return path


def request_id_of(request: Request) -> str | None:
    """The id under which the log has this request."""
    request_id: str | None = request.scope.get("state", {}).get("request_id")
    return request_id


def problem(
    status: int, code: str, detail: str, *, request_id: str | None, retry_after_s: float | None = None
) -> Response:
    """A problem+json response, in English but for scripts of pages.

    `retry_after_s` also becomes a Retry-After header in whole seconds.
    """
    body = ProblemOut(
        type=f"urn:shoplens:error:{code}",
        title=HTTPStatus(status).phrase,
        status=status,
        detail=known(detail),
        code=code,
        request_id=request_id,
    )
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else {}
    if retry_after_s is not None:
        body.retry_after_s = round(retry_after_s, 3)
        headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    return Response(body.model_dump_json(exclude_unset=True), status, media_type=MEDIA_TYPE, headers=headers)


def retry_after_s_of(error: ShoplensError) -> float | None:
    """How long a client should wait before its next try; None where a new try changes nothing."""
    if isinstance(error, QueueFull | TooManyTries):
        return error.retry_after_s
    return _RETRY_UNAVAILABLE_S if status_of(type(error)) == HTTPStatus.SERVICE_UNAVAILABLE else None


def problem_of(error: ShoplensError, *, request_id: str | None) -> Response:
    """The response for one of our errors."""
    status = status_of(type(error))
    retry_after_s = retry_after_s_of(error)
    detail = public_detail(error, request_id)
    return problem(status, error.code, detail, request_id=request_id, retry_after_s=retry_after_s)


def note_failure(error: ShoplensError, metrics: Metrics) -> None:
    """Count `error`, and log what its response does not say."""
    metrics.failures.labels(code=error.code).inc()
    if status_of(type(error)) == HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.error("request.failed", code=error.code, detail=str(error), exc_info=error.__cause__ or error)
    elif error.public_message is not None:
        _log.warning("request.failed", code=error.code, detail=str(error))
