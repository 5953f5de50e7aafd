"""Choosing the language of the pages, and the texts of their scripts in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from shoplens.accounts.access import public
from shoplens.errors import NotFound, RequestInvalid
from shoplens.messages import DEFAULT, LANGUAGES, script_texts
from shoplens.web.language import COOKIE, texts_hash
from shoplens.web.routing import page_router

_LASTS: timedelta = timedelta(days=365)


def language_pages() -> APIRouter:
    """POST /console/language and GET /console/texts/{tag}.js."""
    router = page_router(dependencies=[public])

    @router.post("/console/language")
    def choose(request: Request, language: Annotated[str, Form(max_length=20)]) -> Response:
        """Keep the choice in a cookie, and go back to the page where it was made."""
        if language not in LANGUAGES:
            raise RequestInvalid(f"There is no language {language!r} here. Languages: {', '.join(LANGUAGES)}.")
        response = RedirectResponse(_page_before(request), status_code=303)
        response.set_cookie(
            COOKIE,
            language,
            max_age=int(_LASTS.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response

    @router.get("/console/texts/{tag}.js")
    def texts(tag: str, v: str = "") -> Response:
        """What scripts show, for `static/messages.js`; cached for a year under the hash of its file."""
        if tag not in LANGUAGES or tag == DEFAULT:
            raise NotFound(f"There are no texts in the language {tag[:20]!r}.")
        cached = "public, max-age=31536000, immutable" if v == texts_hash(tag) else "no-cache"
        script = b"globalThis.shoplensTexts = " + orjson.dumps(script_texts(tag)) + b";\n"
        return Response(script, media_type="text/javascript", headers={"Cache-Control": cached})

    return router


def _page_before(request: Request) -> str:
    """Path and query of the page that sent the form. A page of another site is none: nobody is led away."""
    parts = urlsplit(request.headers.get("referer", ""))
    if parts.netloc != request.headers["host"] or not parts.path.startswith("/") or parts.path.startswith("//"):
        return "/"
    return f"{parts.path}?{parts.query}".rstrip("?")
