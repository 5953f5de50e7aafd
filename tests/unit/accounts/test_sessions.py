"""Sessions: what a token opens, for how long, and what ends it."""

from __future__ import annotations

import pytest

from shoplens.accounts.entities import PERMISSIONS, SYSTEM, PrincipalKind, Role, SessionKind
from shoplens.accounts.errors import SignInRefused
from shoplens.accounts.repository import SessionRepository
from shoplens.accounts.sessions import Client
from shoplens.db import Database
from tests.unit.accounts.services import HERE, OTHER_PASSWORD, PASSWORD, Services


def test_a_token_acts_as_the_person_with_the_rights_of_the_role(services: Services) -> None:
    """What the access check asks for with each request."""
    person = services.add(role=Role.MODERATOR)
    principal = services.sessions.principal_of(services.sign_in().token)
    assert principal is not None
    assert (PrincipalKind.PERSON, person.id, "anna") == (principal.kind, principal.id, principal.name)
    assert PERMISSIONS[Role.MODERATOR] == principal.permissions


@pytest.mark.parametrize("token", ["", "x", "a" * 43, "é", "a" * 5_000])
def test_a_forged_token_opens_nothing(services: Services, token: str) -> None:
    """Nor does it fail."""
    services.add()
    services.sign_in()
    assert services.sessions.principal_of(token) is None


def test_the_database_does_not_have_the_token(services: Services, database: Database) -> None:
    """Only its hash, so a stolen backup opens nothing."""
    services.add()
    signed_in = services.sign_in()
    with database.reading() as tx:
        (stored,) = SessionRepository(tx).of(signed_in.person.id)
    assert signed_in.token not in str(stored)
    assert services.sessions.principal_of(stored.token_hash) is None


def test_each_sign_in_has_another_token(services: Services) -> None:
    """A token that somebody planted before the sign-in is never used."""
    services.add()
    assert services.sign_in().token != services.sign_in().token


def test_an_unused_session_ends(services: Services) -> None:
    """After the idle limit, counted from its last use."""
    services.add()
    token = services.sign_in().token
    services.wait(hours=11)
    assert services.sessions.principal_of(token) is not None
    services.wait(hours=11)
    assert services.sessions.principal_of(token) is not None
    services.wait(hours=12)
    assert services.sessions.principal_of(token) is None


def test_a_session_ends_after_its_absolute_limit(services: Services) -> None:
    """However often it is used."""
    services.add()
    token = services.sign_in().token
    for _ in range(16):
        services.wait(hours=10)
        assert services.sessions.principal_of(token) is not None
    services.wait(hours=10)
    assert services.sessions.principal_of(token) is None


def test_a_bearer_token_has_a_limit_of_its_own(services: Services) -> None:
    """Shorter than that of a browser."""
    services.add()
    token = services.sign_ins.sign_in("anna", PASSWORD, client=HERE, kind=SessionKind.TOKEN).token
    services.wait(hours=7.9)
    assert services.sessions.principal_of(token) is not None
    services.wait(hours=0.2)
    assert services.sessions.principal_of(token) is None


def test_the_use_is_noted_at_most_once_a_minute(services: Services) -> None:
    """So that reading a page writes nothing, as a rule."""
    services.add()
    signed_in = services.sign_in()
    services.wait(seconds=59)
    services.sessions.principal_of(signed_in.token)
    assert signed_in.session.last_used_at == services.sessions.of(signed_in.person.id)[0].last_used_at
    services.wait(seconds=1)
    services.sessions.principal_of(signed_in.token)
    assert services.now == services.sessions.of(signed_in.person.id)[0].last_used_at


def test_rows_of_sessions_that_are_over_are_removed_at_the_next_sign_in(services: Services, database: Database) -> None:
    """The table does not grow for ever."""
    person = services.add()
    services.sign_in()
    services.wait(hours=13)
    services.sign_in()
    with database.reading() as tx:
        assert 1 == len(SessionRepository(tx).of(person.id))


def test_signing_out_ends_this_session_and_no_other(services: Services) -> None:
    """At once."""
    services.add()
    first, second = services.sign_in().token, services.sign_in().token
    assert services.sessions.end(first) is not None
    assert services.sessions.end(first) is None
    assert services.sessions.principal_of(first) is None
    assert services.sessions.principal_of(second) is not None


def test_signing_out_everywhere_ends_all_sessions_of_this_person(services: Services) -> None:
    """And of nobody else."""
    person, _ = services.add(), services.add("bela")
    tokens = [services.sign_in().token for _ in range(3)]
    other = services.sign_in("bela").token
    assert 3 == services.sessions.end_all(person.id)
    assert [None] * 3 == [services.sessions.principal_of(each) for each in tokens]
    assert services.sessions.principal_of(other) is not None


def test_one_session_of_a_list_can_be_ended_by_its_owner_only(services: Services) -> None:
    """The id that a page shows is the beginning of the hash."""
    person, other = services.add(), services.add("bela")
    signed_in = services.sign_in()
    shown = signed_in.session.token_hash[:16]
    services.sessions.end_one(other.id, shown)
    assert services.sessions.principal_of(signed_in.token) is not None
    services.sessions.end_one(person.id, shown)
    assert services.sessions.principal_of(signed_in.token) is None


def test_who_is_disabled_loses_all_sessions_at_once_and_cannot_sign_in(services: Services) -> None:
    """Also after being enabled again, the old sessions are over."""
    person = services.add()
    token = services.sign_in().token
    services.people.change(person.id, by=SYSTEM, disabled=True)
    assert services.sessions.principal_of(token) is None
    with pytest.raises(SignInRefused):
        services.sign_in()
    services.people.change(person.id, by=SYSTEM, disabled=False)
    assert services.sessions.principal_of(token) is None
    assert services.sessions.principal_of(services.sign_in().token) is not None


def test_another_role_counts_at_the_next_request(services: Services) -> None:
    """The rights are read, not kept in the session."""
    person = services.add(role=Role.CLERK)
    token = services.sign_in().token
    services.people.change(person.id, by=SYSTEM, role=Role.VIEWER)
    principal = services.sessions.principal_of(token)
    assert principal is not None
    assert PERMISSIONS[Role.VIEWER] == principal.permissions


def test_a_new_password_ends_all_sessions(services: Services) -> None:
    """Who had the old one is out."""
    person = services.add()
    token = services.sign_in().token
    services.people.change_password(person.id, OTHER_PASSWORD)
    assert services.sessions.principal_of(token) is None


def test_a_session_remembers_where_it_was_opened(services: Services) -> None:
    """For its owner to recognise it by; a program may send any length of text."""
    services.add()
    services.sign_in(client=Client(address="192.0.2.9", user_agent="x" * 10_000))
    (session,) = services.sessions.of(services.people.named("anna").id)
    assert ("192.0.2.9", 300) == (session.address, len(session.user_agent or ""))


def test_what_remembers_sessions_hears_of_every_change(services: Services) -> None:
    """The access check forgets what it knows."""
    changes: list[str] = []
    person = services.add()
    token = services.sign_in().token
    services.sessions.on_change(lambda: changes.append("changed"))
    services.add("bela")
    services.sessions.end(token)
    services.sessions.end_all(person.id)
    services.people.change(person.id, by=SYSTEM, role=Role.VIEWER)
    services.people.change_password(person.id, OTHER_PASSWORD)
    assert 5 == len(changes)
