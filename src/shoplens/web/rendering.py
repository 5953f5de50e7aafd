"""Fill the templates: every page, the error page among them, comes out of here, escaped."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import jinja2
import structlog
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse, Response

import shoplens
from shoplens.batch import pages_words as batch_words
from shoplens.errors import QueueFull, ShoplensError
from shoplens.web import presenting
from shoplens.web.assets import static_url
from shoplens.web.problems import status_of

# Pages show what is in the database now. Not "no-store", so that "back" finds the page as it was left.
_PAGE_HEADERS = {"Cache-Control": "private, no-cache"}
_HEADINGS = {404: "Not here", 422: "That cannot be shown", 503: "Not available now"}
_log = structlog.get_logger(__name__)

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("shoplens.web", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    words = (
        presenting.percent, presenting.bar_width, presenting.certainty, presenting.reason, presenting.thresholds,
        presenting.question, presenting.title_case, presenting.size, presenting.milliseconds, presenting.instant,
        presenting.plain_time, presenting.preprocessing, presenting.condensed, presenting.top_labels,
    )  # fmt: skip
    words_of_batch = (
        batch_words.state_word, batch_words.run_word, batch_words.count, batch_words.photos,
        batch_words.duration, batch_words.took, batch_words.references,
    )  # fmt: skip
    environment.filters.update({word.__name__: word for word in (*words, *words_of_batch)})
    environment.globals.update(
        static_url=static_url,
        version=shoplens.__version__,
        outcome_words=presenting.OUTCOME_WORDS,
        keep_words=presenting.KEEP_WORDS,
        not_sure_below=presenting.NOT_SURE_BELOW,
        share=batch_words.share,
    )
    return environment


_TEMPLATES = _environment()


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """The page `template` with `values`; asked for anew at each visit."""
    html = _TEMPLATES.get_template(template).render(**values)
    return HTMLResponse(html, status_code=status, headers=_PAGE_HEADERS)


def error_page(error: ShoplensError, *, request_id: str | None = None) -> HTMLResponse:
    """A page for a person: what went wrong in a sentence, and where to go from here."""
    status = status_of(type(error))
    heading = _HEADINGS.get(status, "That did not work")
    response = page(
        "error.html", status=status, heading=heading, detail=str(error), code=error.code, request_id=request_id
    )
    if isinstance(error, QueueFull):
        response.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return response


class PageRoute(APIRoute):
    """A route that answers people, so its errors are pages and not JSON."""

    def get_route_handler(self) -> Handler:
        """The route's handler with our errors turned into pages."""
        handle = super().get_route_handler()

        async def handle_as_page(request: Request) -> Response:
            try:
                return await handle(request)
            except ShoplensError as error:
                _log.info("page.refused", path=request.url.path, code=error.code)
                return error_page(error, request_id=request_id_of(request))

        return handle_as_page


def request_id_of(request: Request) -> str | None:
    """The id that the log has for this request."""
    request_id: str | None = request.scope.get("state", {}).get("request_id")
    return request_id
