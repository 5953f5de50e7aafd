"""Fill the templates: pages with escaped values, the error page, filters for numbers and times, and static files."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import humanize
import jinja2
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import shoplens
from shoplens import messages
from shoplens.errors import NotAuthenticated, PermissionDenied, ShoplensError
from shoplens.messages import (
    LANGUAGES,
    gettext,
    known,
    language,
    localised,
    long_day,
    marked,
    medium_day,
    whole_number,
)
from shoplens.messages.page_texts import add_messages
from shoplens.telemetry.logs import get_logger
from shoplens.web.language import VARY, script_texts_url, speak
from shoplens.web.problems import (
    logged_path,
    problem_of,
    public_detail,
    request_id_of,
    retry_after_s_of,
    status_of,
    wants_page,
)

STATIC_DIR = Path(__file__).parent / "static"
STATIC_URL = "/static"

_PACKAGE = Path(shoplens.__file__).parent
# Pages show what is in the database now. Not "no-store", so that "back" finds the page as it was left.
_PAGE_HEADERS = {"Cache-Control": "private, no-cache"}
_HEADINGS = {
    401: marked("Not signed in"),
    403: marked("Not allowed"),
    404: marked("Page not found"),
    405: marked("Not possible here"),
    422: marked("Invalid request"),
    429: marked("Too many requests"),
    503: marked("Temporarily unavailable"),
}
_HASH_DIGITS = 12
_log = get_logger(__name__)

sections: ContextVar[frozenset[str]] = ContextVar("sections", default=frozenset())
"""Parts of the console that the application of this request has only with some settings."""

badges: ContextVar[Callable[[], Mapping[str, int]]] = ContextVar("badges", default=dict)
"""What asks for a person, by the name of its page in the navigation. It must not wait."""

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def page(template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """The page `template` with `values`. Browsers revalidate it at each visit."""
    html = _TEMPLATES.get_template(template).render(**values)
    headers = {**_PAGE_HEADERS, "Content-Language": language.get(), "Vary": VARY}
    return HTMLResponse(html, status_code=status, headers=headers)


_FILTERS: Final[dict[str, Callable[..., Any]]] = {}
"""Those of all features; they may take the place of Jinja's own."""


def add_filters(*filters: Callable[..., Any], **constants: Any) -> None:
    """Make a feature's own filters, under their names, and constants known to all templates.

    Raises ValueError for the name of another filter: the pages of its feature would break.
    """
    for each in filters:
        if _FILTERS.setdefault(each.__name__, each) is not each:
            raise ValueError(f"There is a filter {each.__name__} already; call this one by a name of its own.")
    _TEMPLATES.filters.update(_FILTERS)
    _TEMPLATES.globals.update(constants)


def error_page(error: ShoplensError, *, request_id: str | None = None) -> HTMLResponse:
    """A page for a person: what went wrong in a sentence, and where to go from here."""
    detail = public_detail(error, request_id)
    response = problem_page(status_of(type(error)), error.code, detail, request_id=request_id)
    retry_after_s = retry_after_s_of(error)
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    return response


def problem_page(status: int, code: str, detail: str, *, request_id: str | None) -> HTMLResponse:
    """The same for any refusal."""
    heading = gettext(_HEADINGS.get(status, marked("Something went wrong")))
    return page("error.html", status=status, heading=heading, detail=known(detail), code=code, request_id=request_id)


def sign_in(request: Request) -> Response:
    """Send a browser to the sign-in page, and from there back to what it asked for."""
    wanted = f"{request.url.path}?{request.url.query}".rstrip("?") if request.method in ("GET", "HEAD") else "/"
    suffix = "" if wanted == "/" else f"?next={quote(wanted, safe='/')}"
    return RedirectResponse(f"/sign-in{suffix}", status_code=303, headers={"Cache-Control": "no-store"})


class PageRoute(APIRoute):
    """A route whose errors are pages for people instead of JSON."""

    def get_route_handler(self) -> Handler:
        """The route's handler with our errors turned into pages."""
        handle = super().get_route_handler()

        async def handle_as_page(request: Request) -> Response:
            speak(request.scope)
            try:
                return await handle(request)
            except ShoplensError as error:
                level = _log.warning if status_of(type(error)) >= 500 else _log.info
                level("page.refused", path=logged_path(request.scope), code=error.code, detail=str(error))
                if isinstance(error, NotAuthenticated | PermissionDenied) and not wants_page(
                    request.headers.get("accept", "")
                ):
                    return problem_of(error, request_id=request_id_of(request))  # a script of a page, or a program
                if isinstance(error, NotAuthenticated):
                    return sign_in(request)
                return error_page(error, request_id=request_id_of(request))

        return handle_as_page


def percent(share: float) -> str:
    """0.834 is "83.4%"; what would round to zero is "<0.1%"."""
    return localised("<0.1%" if 0 < share < 0.001 else f"{share:.1%}")


def bar_width(share: float) -> str:
    """The length of a bar as an SVG percentage."""
    return f"{min(max(share, 0.0), 1.0):.2%}"


def size(byte_count: int) -> str:
    """Bytes in decimal units: 1_234_567 is "1.23 MB"."""
    return localised(humanize.naturalsize(byte_count, format="%.3g"))


def milliseconds(value: float) -> str:
    """12.345 is "12 ms"; below ten with one decimal."""
    return localised(f"{value:.1f} ms" if value < 9.95 else f"{value:.0f} ms")


def requester(name: str) -> str:
    """Who asked for a run: a service without a name of its own is "http" in the database, on a page "the API"."""
    return gettext("the API") if name == "http" else known(name)


def number(value: int) -> str:
    """1204 is "1,204", and "1.204" in German."""
    return whole_number(value)


def figure(value: float, form: str) -> str:
    """A number in a form of `str.format`, as "{:.1%}" makes of 0.834 "83.4%"."""
    return localised(form.format(value))


def instant(when: datetime) -> str:
    """UTC in ISO 8601, for the `datetime` of a <time> and for addresses."""
    moment = when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds" if moment.microsecond else "seconds").replace("+00:00", "Z")


def plain_time(when: datetime) -> str:
    """The text of a <time> where no script turns it into local time."""
    return messages.plain_time(when.astimezone(UTC))


def static_url(name: str) -> str:
    """The address of a file in `static/`, with its content's hash. Raises KeyError for a file that is not there."""
    return f"{STATIC_URL}/{name}?v={_static_hashes()[name]}"


class HashedFiles(StaticFiles):
    """Static files: cached for a year under their current hash, revalidated under any other address."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file with its cache header."""
        response = await super().get_response(path, scope)
        current = _static_hashes().get(path)
        is_current = current and scope.get("query_string", b"") == f"v={current}".encode()
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if is_current else "no-cache"
        return response


@lru_cache(maxsize=1)
def _static_hashes() -> Mapping[str, str]:
    return {
        path.relative_to(STATIC_DIR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()[:_HASH_DIGITS]
        for path in sorted(STATIC_DIR.rglob("*"))
        if path.is_file()
    }


def _environment() -> jinja2.Environment:
    """Templates of `web` and of every feature; a feature's filters come through `add_filters`."""
    folders = [_PACKAGE / "web" / "templates", *sorted(_PACKAGE.glob("*/templates"))]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    add_messages(environment)
    filters = (
        percent,
        bar_width,
        size,
        milliseconds,
        number,
        figure,
        instant,
        plain_time,
        long_day,
        medium_day,
        known,
        requester,
    )
    environment.filters.update({each.__name__: each for each in filters})
    environment.globals.update(
        static_url=static_url,
        version=shoplens.__version__,
        has_section=lambda name: name in sections.get(),
        language=language.get,
        languages=LANGUAGES,
        script_texts_url=script_texts_url,
        badge_of=lambda name: badges.get()().get(name, 0),
    )
    return environment


_TEMPLATES = _environment()
