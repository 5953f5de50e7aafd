"""The way to an OpenID provider and back."""

from __future__ import annotations

import base64
import binascii
import secrets
from datetime import timedelta
from typing import Annotated, Final

import orjson
from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from shoplens.accounts.access import public
from shoplens.accounts.errors import OpenIdRefused
from shoplens.accounts.openid import Attempt
from shoplens.accounts.openid_people import OpenIdSignIn
from shoplens.accounts.pages import client_of, local_path, start_of, unstored, with_session
from shoplens.errors import ShoplensError
from shoplens.web.problems import request_id_of
from shoplens.web.rendering import error_page
from shoplens.web.routing import page_router
from shoplens.web.session_cookie import session_token

_BEGIN: Final = "/sign-in/openid"
_BACK: Final = "/sign-in/openid/callback"
_COOKIE: Final = "shoplens_openid"
_LASTS: Final = timedelta(minutes=10)
_MOST_COOKIE_CHARS: Final = 3_000


def openid_pages(openid: OpenIdSignIn) -> APIRouter:
    """Sign in with the provider."""
    router = page_router(dependencies=[public])

    def redirect_uri(request: Request) -> str:
        public_url = openid.provider.config.public_url
        return (public_url or f"{request.url.scheme}://{request.headers.get('host', '')}") + _BACK

    @router.get(_BEGIN)
    def begin(request: Request, next: str = "/") -> Response:
        url, attempt = openid.provider.begin(redirect_uri(request))
        response = RedirectResponse(url, status_code=303)
        response.set_cookie(
            _COOKIE,
            _written(attempt, local_path(next)),
            max_age=int(_LASTS.total_seconds()),
            path=_BEGIN,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return unstored(response)

    @router.get(_BACK)
    def back(
        request: Request,
        code: Annotated[str, Query(max_length=4_000)] = "",
        state: Annotated[str, Query(max_length=200)] = "",
        error: Annotated[str, Query(max_length=200)] = "",
    ) -> Response:
        try:
            attempt, next_path = _read(request.cookies.get(_COOKIE, ""))
            if not secrets.compare_digest(attempt.state.encode(), state.encode()):
                raise OpenIdRefused("This sign-in was not begun in this browser, or took too long. Sign in again.")
            if error or not code:
                raise OpenIdRefused("The provider did not sign you in. Sign in again, or ask an admin.")
            client, uri = client_of(request), redirect_uri(request)
            signed_in = openid.finish(attempt, code=code, redirect_uri=uri, client=client)
        except ShoplensError as refusal:
            response: Response = error_page(refusal, request_id=request_id_of(request))
        else:
            if before := session_token(request):
                openid.end(before)
            onward = RedirectResponse(start_of(signed_in.person, next_path), status_code=303)
            response = with_session(onward, request, signed_in, lasts=openid.session_lasts)
        response.delete_cookie(_COOKIE, path=_BEGIN)
        return unstored(response)

    return router


def _written(attempt: Attempt, next_path: str) -> str:
    fields = {"state": attempt.state, "nonce": attempt.nonce, "verifier": attempt.verifier, "next": next_path}
    return base64.urlsafe_b64encode(orjson.dumps(fields)).decode()


def _read(cookie: str) -> tuple[Attempt, str]:
    """Raises OpenIdRefused."""
    try:
        fields = orjson.loads(base64.urlsafe_b64decode(cookie[:_MOST_COOKIE_CHARS]))
        attempt = Attempt(**{name: str(fields[name]) for name in ("state", "nonce", "verifier")})
        return attempt, local_path(str(fields["next"]))
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise OpenIdRefused("This sign-in was not begun in this browser, or took too long. Sign in again.") from None
