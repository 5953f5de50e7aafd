"""The cookie that holds the token of a session. There is none before somebody signs in."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from fastapi import Request
from starlette.responses import Response

from shoplens.errors import RequestForbidden

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Of requests that change nothing."""
_NAME: Final = "shoplens_session"
_SECURE_NAME: Final = f"__Host-{_NAME}"
"""Browsers take such a cookie only over HTTPS from this very host, for all paths: no other host can set it."""


def session_token(request: Request) -> str | None:
    """The token in the session cookie of `request`; None without one."""
    return request.cookies.get(_name(request)) or None


def remember_session(response: Response, request: Request, token: str, *, lasts: timedelta) -> None:
    """Let the browser send `token` from now on, but not with what pages of other sites send here."""
    response.set_cookie(
        _name(request),
        token,
        max_age=int(lasts.total_seconds()),
        path="/",
        httponly=True,
        samesite="lax",
        secure=_is_https(request),
    )


def forget_session(response: Response, request: Request) -> None:
    """Let the browser remove the cookie."""
    response.delete_cookie(_name(request), path="/", httponly=True, samesite="lax", secure=_is_https(request))


def require_sent_by_own_page(request: Request) -> None:
    """Raises RequestForbidden for a request that could change something and does not say which page sends it.

    The middleware has refused those that name another site. Every browser of today names it; a program sends no cookie.
    """
    said = request.headers.get("origin") or request.headers.get("sec-fetch-site")
    if request.method not in SAFE_METHODS and not said:
        raise RequestForbidden(
            "The request has a session cookie but neither the header Origin nor Sec-Fetch-Site, so another site may "
            "have caused it. Use a browser of today, or send an API key instead of the cookie."
        )


def _name(request: Request) -> str:
    return _SECURE_NAME if _is_https(request) else _NAME


def _is_https(request: Request) -> bool:
    """Behind a proxy that ends TLS: if it is among the `trusted_proxies` and says so."""
    return request.url.scheme == "https"
