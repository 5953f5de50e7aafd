"""A number for each browser, so that two people who review at once get different photos. It proves nothing.

It is no login and opens nothing: it only tells one browser from another where there are no accounts.
"""

from __future__ import annotations

import re
import secrets
from typing import Final

from fastapi import Request
from starlette.responses import Response

COOKIE: Final = "shoplens_browser"
_LASTS_S: Final = 30 * 86_400
_FORM: Final = re.compile(r"[0-9a-f]{32}")


def browser_of(request: Request) -> str | None:
    """The number of the browser that sent `request`; None if it has none yet."""
    number = request.cookies.get(COOKIE, "")
    return number if _FORM.fullmatch(number) else None


def new_browser() -> str:
    """A number that no other browser has."""
    return secrets.token_hex(16)


def remember(response: Response, number: str, *, secure: bool) -> None:
    """Let the browser send `number` with its next requests; not with those that another site makes it send.

    The id of a signed-in person is no such number, and needs no cookie of its own.
    """
    if _FORM.fullmatch(number):
        response.set_cookie(COOKIE, number, max_age=_LASTS_S, httponly=True, samesite="strict", secure=secure)
