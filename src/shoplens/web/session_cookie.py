"""The cookie that holds the token of a session. There is none before somebody signs in."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from fastapi import Request
from starlette.responses import Response

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


def _name(request: Request) -> str:
    return _SECURE_NAME if _is_https(request) else _NAME


def _is_https(request: Request) -> bool:
    """Behind a proxy that ends TLS: if it is among the `trusted_proxies` and says so."""
    return request.url.scheme == "https"
