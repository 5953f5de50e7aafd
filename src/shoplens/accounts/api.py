"""The JSON API of people: who they are, access tokens, and who asks."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import Field
from starlette.responses import Response

from shoplens.accounts.access import KnownPrincipal, SignedInPerson, public, requires
from shoplens.accounts.entities import Permission, Person, Principal, PrincipalKind, Role, SessionKind
from shoplens.accounts.pages import client_of
from shoplens.accounts.people import MOST_NAME_CHARS, NewLink, PeopleService
from shoplens.accounts.people_pages import address_of_link
from shoplens.accounts.sessions import SessionService
from shoplens.accounts.sign_in import SignInService
from shoplens.accounts.totp import SecondFactorService
from shoplens.errors import RequestInvalid
from shoplens.web.routing import api_router
from shoplens.web.schemas import BodySchema, Schema, json_response

Admin = Annotated[Principal, Depends(requires(Permission.ACCOUNTS_ADMIN))]


class TokenOut(Schema):
    """An access token of a person: send it as `Authorization: Bearer …`."""

    access_token: str
    token_type: str = Field(examples=["bearer"])
    expires_in: int = Field(description="Seconds for which it is valid; unused, it ends earlier.", examples=[28800])


class MeOut(Schema):
    """Who sends the request, and what they may do."""

    kind: PrincipalKind
    id: str
    name: str = Field(examples=["anna"])
    permissions: list[Permission]


class RecoveryCodesIn(BodySchema):
    """The password once more: the codes open a session in place of a code of the second factor."""

    password: str = Field(max_length=200)


class RecoveryCodesOut(Schema):
    """New recovery codes. They are shown only now, and each works once."""

    codes: list[str] = Field(examples=[["hk7m2-xqz4p-9nbvc-w3rt8"]])


class PersonOut(Schema):
    """A person with a sign-in name."""

    id: str = Field(examples=["01k9hzv3m5x4q8d0j7w2r6t9ab"])
    created_at: datetime
    name: str = Field(examples=["anna"])
    role: Role
    email: str | None
    disabled: bool
    has_password: bool
    has_second_factor: bool
    locked_until: datetime | None = Field(description="After too many failed sign-ins.")
    last_sign_in_at: datetime | None

    @classmethod
    def of(cls, person: Person) -> PersonOut:
        """Without hashes and secrets."""
        return cls(
            id=person.id,
            created_at=person.created_at,
            name=person.name,
            role=person.role,
            email=person.email,
            disabled=person.disabled_at is not None,
            has_password=person.password_hash is not None,
            has_second_factor=person.totp_confirmed_at is not None,
            locked_until=person.locked_until,
            last_sign_in_at=person.last_sign_in_at,
        )


class PeopleOut(Schema):
    """Everybody, by name."""

    people: list[PersonOut]


class LinkOut(Schema):
    """A one-time link with which the person sets a password. It is shown only now."""

    url: str = Field(examples=["https://photos.example.org/reset/5kYw0aTq…"])
    expires_at: datetime


class NewPersonOut(Schema):
    """A new person, and the link with which they set their password."""

    person: PersonOut
    link: LinkOut


class PersonIn(BodySchema):
    """A new person. The first one must be an admin."""

    name: str = Field(max_length=MOST_NAME_CHARS, description="To sign in with.", examples=["anna"])
    role: Role = Field(examples=["moderator"])
    email: str | None = Field(default=None, max_length=254)


class PersonChangeIn(BodySchema):
    """What to change; what is left out stays."""

    role: Role | None = None
    disabled: bool | None = Field(default=None, description="Who is disabled is signed out everywhere.")
    remove_second_factor: bool = Field(default=False, description="For somebody who lost their phone.")


def auth_router(sessions: SessionService, sign_ins: SignInService, second_factor: SecondFactorService) -> APIRouter:
    """Access tokens, and who asks."""
    router = api_router(tags=["people"])

    @router.post("/auth/token", operation_id="create_token", summary="Sign in for a token", dependencies=[public])
    def create_token(
        request: Request,
        form: Annotated[OAuth2PasswordRequestForm, Depends()],
        otp: Annotated[
            str | None, Form(max_length=60, description="Code of the second factor, if there is one.")
        ] = None,
    ) -> TokenOut:
        """The password flow of OAuth 2. The token acts as this person, with the role that they have at each request."""
        if form.scopes:
            raise RequestInvalid("A token has the rights of its person; leave `scope` empty, or use an API key.")
        client = client_of(request)
        opened = sign_ins.sign_in(form.username, form.password, client=client, kind=SessionKind.TOKEN, code=otp)
        lasts = sessions.limits.token
        return TokenOut(access_token=opened.token, token_type="bearer", expires_in=int(lasts.total_seconds()))  # noqa: S106

    @router.get("/me", operation_id="get_me", summary="Who am I?")
    async def me(principal: KnownPrincipal) -> MeOut:
        """The person or key that sends the request. Without accounts it is `local`, who may do everything."""
        return MeOut(
            kind=principal.kind,
            id=principal.id,
            name=principal.name,
            permissions=sorted(principal.permissions),
        )

    @router.post(
        "/me/recovery-codes",
        operation_id="renew_recovery_codes",
        summary="Renew the recovery codes",
        response_model=RecoveryCodesOut,
    )
    def renew_codes(request: Request, person: SignedInPerson, body: RecoveryCodesIn) -> Response:
        """Of the own second factor; the earlier codes are void. 409 without a second factor."""
        sign_ins.check_password(person.id, body.password, client=client_of(request))
        response = json_response(RecoveryCodesOut(codes=list(second_factor.renew_codes(person.id))))
        response.headers["Cache-Control"] = "no-store"
        return response

    return router


def people_router(people: PeopleService, second_factor: SecondFactorService) -> APIRouter:
    """People, for admins."""
    router = api_router(tags=["people"], prefix="/people")

    def link_out(request: Request, link: NewLink) -> LinkOut:
        return LinkOut(url=address_of_link(request, link), expires_at=link.expires_at)

    @router.get("", operation_id="list_people", summary="All people")
    def show(_: Admin) -> PeopleOut:
        """By name; also those who are disabled."""
        return PeopleOut(people=[PersonOut.of(each) for each in people.all()])

    @router.post("", operation_id="create_person", summary="Add a person", status_code=201, response_model=NewPersonOut)
    def add(request: Request, by: Admin, body: PersonIn) -> Response:
        """From the first person on, every request needs a sign-in or a key."""
        person = people.add(body.name, body.role, by=by, email=body.email)
        link = link_out(request, people.make_link(person.id, by=by))
        return json_response(NewPersonOut(person=PersonOut.of(person), link=link), status=201)

    @router.patch("/{person_id}", operation_id="update_person", summary="Change a person")
    def change(by: Admin, person_id: str, body: PersonChangeIn) -> PersonOut:
        """The last admin can neither be disabled nor get another role."""
        changed = people.change(person_id, by=by, role=body.role, disabled=body.disabled)
        if body.remove_second_factor:
            second_factor.remove(person_id, by=by)
            changed = people.get(person_id)
        return PersonOut.of(changed)

    @router.post("/{person_id}/reset", operation_id="reset_person", summary="Make a link to set a password")
    def reset(request: Request, by: Admin, person_id: str) -> LinkOut:
        """Earlier links of this person are void."""
        return link_out(request, people.make_link(person_id, by=by))

    return router
