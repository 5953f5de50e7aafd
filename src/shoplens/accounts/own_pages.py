"""A person's own page: password, second factor, and where they are signed in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import SignedInPerson
from shoplens.accounts.errors import CodeWrong, PasswordUnfit, PasswordWrong
from shoplens.accounts.pages import FormText, client_of, refused, require_same, unstored, with_session
from shoplens.accounts.passwords import LEAST_CHARS
from shoplens.accounts.people import PeopleService
from shoplens.accounts.sessions import SHOWN_CHARS, SessionService, hash_of
from shoplens.accounts.sign_in import SignInService
from shoplens.accounts.totp import Enrolment, SecondFactorService, qr_image
from shoplens.errors import TooManyTries
from shoplens.messages import marked
from shoplens.web.rendering import page
from shoplens.web.routing import page_router
from shoplens.web.session_cookie import forget_session, session_token

_PAGE: Final = "/account"
_DONE: Final = {
    "password": marked("Your password is changed. You are signed out everywhere else."),
    "second-factor-removed": marked("Your second factor is removed."),
    "session": marked("The session is ended."),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnServices:
    """What the page shows and changes."""

    people: PeopleService
    sessions: SessionService
    sign_ins: SignInService
    second_factor: SecondFactorService

    def page(self, request: Request, person_id: str, *, error: str | None = None, part: str = "") -> HTMLResponse:
        """The page, with an error beside the form `part`."""
        token = session_token(request)
        return page(
            "account.html",
            person=self.people.get(person_id),
            sessions=self.sessions.of(person_id),
            current=hash_of(token) if token else None,
            shown_chars=SHOWN_CHARS,
            codes_left=self.second_factor.recovery_codes_left(person_id),
            least_chars=LEAST_CHARS,
            error=error,
            part=part,
            done=_DONE.get(request.query_params.get("done", "")),
        )


def own_pages(services: OwnServices) -> APIRouter:
    """The page /account, its password, and its sessions."""
    router = page_router()
    sessions, sign_ins = services.sessions, services.sign_ins

    @router.get(_PAGE)
    def show(request: Request, person: SignedInPerson) -> HTMLResponse:
        return services.page(request, person.id)

    @router.post(_PAGE + "/password")
    def change_password(
        request: Request, person: SignedInPerson, old: FormText = "", password: FormText = "", again: FormText = ""
    ) -> Response:
        try:
            require_same(password, again)
            sign_ins.check_password(person.id, old, client=client_of(request))
            changed = services.people.change_password(person.id, password)
        except (PasswordUnfit, PasswordWrong, TooManyTries) as error:
            return refused(services.page(request, person.id, error=str(error), part="password"), error)
        signed_in = sign_ins.open_for(changed, client=client_of(request))
        response = RedirectResponse(f"{_PAGE}?done=password", status_code=303)
        return with_session(response, request, signed_in, lasts=sessions.limits.absolute)

    @router.post(_PAGE + "/sessions/end-all")
    def end_all(request: Request, person: SignedInPerson) -> Response:
        sessions.end_all(person.id)
        response = RedirectResponse("/sign-in?out=everywhere", status_code=303)
        forget_session(response, request)
        return response

    @router.post(_PAGE + "/sessions/{session_id}/end")
    def end_one(person: SignedInPerson, session_id: str) -> Response:
        sessions.end_one(person.id, session_id)
        return RedirectResponse(f"{_PAGE}?done=session", status_code=303)

    return router


def second_factor_pages(services: OwnServices) -> APIRouter:
    """Add and remove the own second factor."""
    router = page_router()

    @router.post(_PAGE + "/second-factor")
    def begin(person: SignedInPerson) -> Response:
        return _enrolment_page(services.second_factor.begin(person.id))

    @router.post(_PAGE + "/second-factor/confirm")
    def confirm(request: Request, person: SignedInPerson, code: FormText = "") -> Response:
        try:
            codes = services.second_factor.confirm(person.id, code)
        except CodeWrong as error:
            return refused(_enrolment_page(services.second_factor.begun(person.id), error=str(error)), error)
        response = page("recovery_codes.html", codes=codes, renewed=False)
        if (token := session_token(request)) is None:  # a bearer token stays as it is
            return unstored(response)
        renewed = services.sign_ins.renew(token, client=client_of(request))
        return with_session(response, request, renewed, lasts=services.sessions.limits.absolute)

    @router.post(_PAGE + "/second-factor/recovery-codes")
    def renew_codes(request: Request, person: SignedInPerson, password: FormText = "") -> Response:
        try:
            services.sign_ins.check_password(person.id, password, client=client_of(request))
        except (PasswordWrong, TooManyTries) as error:
            return refused(services.page(request, person.id, error=str(error), part="recovery-codes"), error)
        codes = services.second_factor.renew_codes(person.id)
        return unstored(page("recovery_codes.html", codes=codes, renewed=True))

    @router.post(_PAGE + "/second-factor/remove")
    def remove(request: Request, person: SignedInPerson, password: FormText = "") -> Response:
        try:
            services.sign_ins.check_password(person.id, password, client=client_of(request))
        except (PasswordWrong, TooManyTries) as error:
            return refused(services.page(request, person.id, error=str(error), part="second-factor"), error)
        services.second_factor.remove(person.id, by=person)
        return RedirectResponse(f"{_PAGE}?done=second-factor-removed", status_code=303)

    return router


def _enrolment_page(enrolment: Enrolment, *, error: str | None = None) -> Response:
    return unstored(page("second_factor.html", secret=enrolment.secret, qr=qr_image(enrolment.uri), error=error))
