"""The page People, for admins: who may sign in, and with which role."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from shoplens.accounts.access import requires
from shoplens.accounts.entities import Permission, Principal, Role
from shoplens.accounts.pages import FormText, unstored
from shoplens.accounts.people import NewLink, PeopleService
from shoplens.accounts.totp import SecondFactorService
from shoplens.errors import Conflict, RequestInvalid, ShoplensError
from shoplens.messages import marked
from shoplens.web.problems import status_of
from shoplens.web.rendering import page
from shoplens.web.routing import page_router

_PAGE: Final = "/console/people"
_DONE: Final = {
    "role": marked("The role is changed. It counts from the next request on."),
    "disable": marked("The person is disabled and signed out everywhere."),
    "enable": marked("The person may sign in again."),
    "second-factor": marked("The second factor is removed. The next sign-in needs the password only."),
}
ROLE_WORDS: Final[Mapping[Role, str]] = {
    Role.ADMIN: marked("Admin: everything, also people, keys and the audit log"),
    Role.MODERATOR: marked("Moderator: decides shoppers' photos"),
    Role.CLERK: marked("Clerk: returns"),
    Role.MERCHANDISER: marked("Merchandiser: products and their categories"),
    Role.VIEWER: marked("Viewer: reads records, runs and models"),
}

Admin = Annotated[Principal, Depends(requires(Permission.ACCOUNTS_ADMIN))]


def people_pages(people: PeopleService) -> APIRouter:
    """The page, and what makes one-time links."""
    router = page_router()

    @router.get(_PAGE)
    def show(request: Request, _: Admin) -> Response:
        return _overview(request, people)

    @router.post(_PAGE)
    def add(
        request: Request, by: Admin, name: FormText = "", role: FormText = Role.VIEWER, email: FormText = ""
    ) -> Response:
        try:
            person = people.add(name, known_role(role), by=by, email=email)
        except (Conflict, RequestInvalid) as error:
            return _overview(request, people, error=error, typed={"name": name, "role": role, "email": email})
        return _overview(request, people, link=people.make_link(person.id, by=by))

    @router.post(_PAGE + "/{person_id}/reset")
    def reset(request: Request, by: Admin, person_id: str) -> Response:
        return _overview(request, people, link=people.make_link(person_id, by=by))

    return router


def people_change_pages(people: PeopleService, second_factor: SecondFactorService) -> APIRouter:
    """The forms that change a person."""
    router = page_router()

    def changed(request: Request, change: Callable[[], object], done: str) -> Response:
        try:
            change()
        except (Conflict, RequestInvalid) as error:
            return _overview(request, people, error=error)
        return RedirectResponse(f"{_PAGE}?done={done}", status_code=303)

    @router.post(_PAGE + "/{person_id}/role")
    def change_role(request: Request, by: Admin, person_id: str, role: FormText = "") -> Response:
        return changed(request, lambda: people.change(person_id, by=by, role=known_role(role)), "role")

    @router.post(_PAGE + "/{person_id}/second-factor/remove")
    def remove_second_factor(request: Request, by: Admin, person_id: str) -> Response:
        return changed(request, lambda: second_factor.remove(person_id, by=by), "second-factor")

    @router.post(_PAGE + "/{person_id}/disable")
    def disable(request: Request, by: Admin, person_id: str) -> Response:
        return changed(request, lambda: people.change(person_id, by=by, disabled=True), "disable")

    @router.post(_PAGE + "/{person_id}/enable")
    def enable(request: Request, by: Admin, person_id: str) -> Response:
        return changed(request, lambda: people.change(person_id, by=by, disabled=False), "enable")

    return router


def _overview(
    request: Request,
    people: PeopleService,
    *,
    link: NewLink | None = None,
    error: ShoplensError | None = None,
    typed: Mapping[str, str] | None = None,
) -> Response:
    everybody = people.all()
    response: HTMLResponse = page(
        "people.html",
        status=status_of(type(error)) if error else 200,
        people=everybody,
        locked=people.locked(everybody),
        roles=ROLE_WORDS,
        link=None if link is None else address_of_link(request, link),
        linked=link,
        error=None if error is None else str(error),
        done=_DONE.get(request.query_params.get("done", "")),
        typed={"name": "", "email": "", "role": Role.VIEWER if everybody else Role.ADMIN, **(typed or {})},
    )
    return unstored(response) if link else response


def address_of_link(request: Request, link: NewLink) -> str:
    """The whole address of a one-time link, as the admin reaches this server."""
    return f"{request.url.scheme}://{request.headers.get('host', '')}{link.path}"


def known_role(role: str) -> Role:
    """Raises RequestInvalid."""
    if role not in set(Role):
        raise RequestInvalid(f"There is no role {role[:40]!r}. Roles: {', '.join(Role)}.")
    return Role(role)
