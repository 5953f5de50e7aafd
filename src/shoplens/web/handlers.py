"""Answer every error: a page for people with a browser, problem+json (RFC 9457) for programs."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from shoplens.accounts.access import identify_quietly
from shoplens.errors import NotAuthenticated, RequestInvalid, ShoplensError
from shoplens.messages import marked
from shoplens.telemetry.metrics import Metrics
from shoplens.web.language import PAGE_LANGUAGE, VARY, speak
from shoplens.web.problems import note_failure, problem, problem_of, request_id_of, wants_page
from shoplens.web.rendering import error_page, problem_page, sign_in

_NOTHING_HERE = marked("There is nothing at this address.")
_WRONG_METHOD = marked("This address does not take such requests.")


def error_answer(
    error: ShoplensError, scope: MutableMapping[str, Any], *, accept: str, request_id: str | None
) -> Response:
    """The response for one of our errors, in the form that the client accepts, and a page in its language."""
    if wants_page(accept):
        speak(scope)
    response = (error_page if wants_page(accept) else problem_of)(error, request_id=request_id)
    response.headers["Vary"] = f"Accept, {VARY}, {PAGE_LANGUAGE}"
    return response


async def answer_error(request: Request, error: ShoplensError) -> Response:
    """The same for a request that reached the application: a browser without a session is sent to the sign-in page."""
    accept = request.headers.get("accept", "")
    if isinstance(error, NotAuthenticated) and wants_page(accept):
        return sign_in(request)
    if wants_page(accept):
        await identify_quietly(request)
    return error_answer(error, request.scope, accept=accept, request_id=request_id_of(request))


def handle_problems(app: FastAPI, metrics: Metrics) -> None:
    """Install the handlers for our errors, for invalid parameters, and for the framework's own refusals."""

    async def on_shoplens_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, ShoplensError)
        note_failure(error, metrics)
        return await answer_error(request, error)

    async def on_invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in error.errors()
        )
        return await on_shoplens_error(request, RequestInvalid(f"The request is not valid: {faults}."))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        # FastAPI says "there was an error parsing the body" for whatever is raised while it reads one.
        if isinstance(error.__cause__, ShoplensError):
            return await on_shoplens_error(request, error.__cause__)
        if isinstance(error.__cause__, ClientDisconnect):
            raise error.__cause__
        metrics.failures.labels(code=HTTPStatus(error.status_code).name.lower()).inc()
        await identify_quietly(request)  # the page shows the entries that the person may use
        return _http_answer(error.status_code, str(error.detail), request, error.headers or {})

    app.add_exception_handler(ShoplensError, on_shoplens_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)


def _http_answer(status: int, detail: str, request: Request, headers: Mapping[str, str]) -> Response:
    """The response for a refusal of the framework, such as 404 and 405."""
    sentences = {HTTPStatus.NOT_FOUND: _NOTHING_HERE, HTTPStatus.METHOD_NOT_ALLOWED: _WRONG_METHOD}
    sentence = sentences.get(HTTPStatus(status), detail)
    code, request_id = HTTPStatus(status).name.lower(), request_id_of(request)
    if wants_page(request.headers.get("accept", "")):
        speak(request.scope)
        response: Response = problem_page(status, code, sentence, request_id=request_id)
    else:
        response = problem(status, code, sentence, request_id=request_id)
    response.headers.update({**headers, "Vary": f"Accept, {VARY}, {PAGE_LANGUAGE}"})
    return response
