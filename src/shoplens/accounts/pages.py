"""The pages with which people sign in and out, and set a password with a one-time link."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Annotated, Final
from urllib.parse import quote

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import identify_quietly, public
from shoplens.accounts.entities import Person, Principal, PrincipalKind, Role
from shoplens.accounts.errors import PasswordUnfit, SignInRefused
from shoplens.accounts.passwords import LEAST_CHARS
from shoplens.accounts.people import PeopleService
from shoplens.accounts.sessions import Client, SessionService, SignedIn
from shoplens.accounts.sign_in import SignInService
from shoplens.errors import NotAuthenticated, ShoplensError, TooManyTries
from shoplens.messages import marked
from shoplens.web.problems import status_of
from shoplens.web.rendering import page
from shoplens.web.routing import page_router
from shoplens.web.session_cookie import forget_session, remember_session, require_sent_by_own_page, session_token
from shoplens.web.shares import address_of

Visitor = Annotated[Principal | None, Depends(identify_quietly)]
FormText = Annotated[str, Form(max_length=1_000)]

_SIGN_IN: Final = "/sign-in"
_CODE: Final = "/sign-in/code"
_LOCAL_PATH: Final = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]*")
_MOST_NEXT_CHARS: Final = 1_000
_DONE: Final = {
    "signed-out": marked("You are signed out."),
    "everywhere": marked("You are signed out everywhere."),
    "late": marked("The sign-in took too long. Begin again."),
    "password-set": marked("Your password is set. Sign in with it."),
}
_CODE_LASTS: Final = timedelta(minutes=10)


def client_of(request: Request) -> Client:
    """Where the request comes from."""
    return Client(address=address_of(request) or None, user_agent=request.headers.get("user-agent"))


def local_path(wanted: str) -> str:
    """`wanted` if it is a path of this server, else the start page: nobody is led away after signing in."""
    is_own = len(wanted) <= _MOST_NEXT_CHARS and _LOCAL_PATH.fullmatch(wanted) and not wanted.startswith(_SIGN_IN)
    return wanted if is_own else "/"


def start_of(person: Person, wanted: str) -> str:
    """Where somebody who just signed in goes: to `wanted`, and a moderator who wanted nothing else to the queue."""
    return "/console/moderation" if wanted == "/" and person.role is Role.MODERATOR else wanted


def unstored(response: Response) -> Response:
    """For pages with secrets: no browser or proxy keeps a copy."""
    response.headers["Cache-Control"] = "no-store"
    return response


def refused(response: Response, error: ShoplensError) -> Response:
    """A form that is shown again, with the status of the error and how long to wait."""
    response.status_code = status_of(type(error))
    if isinstance(error, TooManyTries):
        response.headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    return unstored(response)


def with_session(response: Response, request: Request, signed_in: SignedIn, *, lasts: timedelta) -> Response:
    """Give the browser the token of the session."""
    remember_session(response, request, signed_in.token, lasts=_CODE_LASTS if signed_in.needs_totp else lasts)
    return unstored(response)


def sign_in_pages(
    people: PeopleService, sessions: SessionService, sign_ins: SignInService, *, openid_name: str | None = None
) -> APIRouter:
    """Sign in with a password, and out. `openid_name` is that of an OpenID provider, the other way to sign in."""
    router = page_router(dependencies=[public])

    def form(next_path: str, *, name: str = "", error: str | None = None, out: str = "") -> HTMLResponse:
        done = _DONE.get(out)
        return page(
            "sign_in.html",
            next=next_path,
            name=name,
            error=error,
            done=done,
            openid_name=openid_name,
            has_people=people.any_people(),
        )

    @router.get(_SIGN_IN)
    def show(visitor: Visitor, next: str = "/", out: str = "") -> Response:
        if visitor is not None and visitor.kind is PrincipalKind.PERSON:
            return RedirectResponse(local_path(next), status_code=303)
        return unstored(form(local_path(next), out=out))

    @router.post(_SIGN_IN)
    def sign_in(request: Request, name: FormText = "", password: FormText = "", next: FormText = "/") -> Response:
        require_sent_by_own_page(request)
        next_path, before = local_path(next), session_token(request)
        try:
            signed_in = sign_ins.sign_in(name, password, client=client_of(request))
        except (NotAuthenticated, TooManyTries) as error:
            return refused(form(next_path, name=name, error=str(error)), error)
        if before is not None:
            sessions.end(before)
        target = f"{_CODE}?next={quote(next_path)}" if signed_in.needs_totp else start_of(signed_in.person, next_path)
        response = RedirectResponse(target, status_code=303)
        return with_session(response, request, signed_in, lasts=sessions.limits.absolute)

    @router.post("/sign-out")
    def sign_out(request: Request) -> Response:
        require_sent_by_own_page(request)
        if token := session_token(request):
            sessions.end(token)
        response = RedirectResponse(f"{_SIGN_IN}?out=signed-out", status_code=303)
        forget_session(response, request)
        return unstored(response)

    return router


def code_pages(sessions: SessionService, sign_ins: SignInService) -> APIRouter:
    """The second step for those who have a second factor."""
    router = page_router(dependencies=[public])

    def waits(token: str | None) -> bool:
        found = sessions.find(token) if token else None
        return found is not None and found[0].needs_totp

    @router.get(_CODE)
    def show(request: Request, next: str = "/") -> Response:
        if not waits(session_token(request)):
            return RedirectResponse(_SIGN_IN, status_code=303)
        return unstored(page("sign_in_code.html", next=local_path(next), error=None))

    @router.post(_CODE)
    def confirm(request: Request, code: FormText = "", next: FormText = "/") -> Response:
        require_sent_by_own_page(request)
        next_path, token = local_path(next), session_token(request)
        if not waits(token):
            return RedirectResponse(f"{_SIGN_IN}?out=late&next={quote(next_path)}", status_code=303)
        try:
            signed_in = sign_ins.confirm(token, code, client=client_of(request))
        except (SignInRefused, TooManyTries) as error:
            return refused(page("sign_in_code.html", next=next_path, error=str(error)), error)
        response = RedirectResponse(start_of(signed_in.person, next_path), status_code=303)
        return with_session(response, request, signed_in, lasts=sessions.limits.absolute)

    return router


def reset_pages(people: PeopleService) -> APIRouter:
    """Set a password with a one-time link."""
    router = page_router(dependencies=[public])

    def form(token: str, *, error: str | None = None) -> HTMLResponse:
        person = people.person_of_link(token)
        return page("reset.html", person=person, token=token, error=error, least_chars=LEAST_CHARS)

    @router.get("/reset/{token}")
    def show(token: str) -> Response:
        return unstored(form(token))

    @router.post("/reset/{token}")
    def set_password(request: Request, token: str, password: FormText = "", again: FormText = "") -> Response:
        require_sent_by_own_page(request)
        try:
            require_same(password, again)
            people.use_link(token, password)
        except (PasswordUnfit, TooManyTries) as error:
            return refused(form(token, error=str(error)), error)
        return RedirectResponse(f"{_SIGN_IN}?out=password-set", status_code=303)

    return router


def require_same(password: str, again: str) -> None:
    """Raises PasswordUnfit where the second field differs."""
    if password != again:
        raise PasswordUnfit("The two passwords differ. Type the new password twice.")
