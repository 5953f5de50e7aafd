"""Sessions: what a token opens, for how long, and what ends it."""

from __future__ import annotations

import pytest

from shoplens.accounts.entities import PERMISSIONS, SYSTEM, PrincipalKind, Role, SessionKind
from shoplens.accounts.errors import SignInRefused
from shoplens.accounts.repository import SessionRepository
from shoplens.accounts.sessions import Client
from shoplens.db import Database
from tests.unit.accounts.desk import HERE, OTHER_PASSWORD, PASSWORD, Desk


def test_a_token_acts_as_the_person_with_the_rights_of_the_role(desk: Desk) -> None:
    """What the access check asks for with each request."""
    person = desk.add(role=Role.MODERATOR)
    principal = desk.sessions.principal_of(desk.sign_in().token)
    assert principal is not None
    assert (PrincipalKind.PERSON, person.id, "anna") == (principal.kind, principal.id, principal.name)
    assert PERMISSIONS[Role.MODERATOR] == principal.permissions


@pytest.mark.parametrize("token", ["", "x", "a" * 43, "é", "a" * 5_000])
def test_a_forged_token_opens_nothing(desk: Desk, token: str) -> None:
    """Nor does it fail."""
    desk.add()
    desk.sign_in()
    assert desk.sessions.principal_of(token) is None


def test_the_database_does_not_have_the_token(desk: Desk, database: Database) -> None:
    """Only its hash, so a stolen backup opens nothing."""
    desk.add()
    signed_in = desk.sign_in()
    with database.reading() as tx:
        (stored,) = SessionRepository(tx).of(signed_in.person.id)
    assert signed_in.token not in str(stored)
    assert desk.sessions.principal_of(stored.token_hash) is None


def test_each_sign_in_has_another_token(desk: Desk) -> None:
    """A token that somebody planted before the sign-in is never used."""
    desk.add()
    assert desk.sign_in().token != desk.sign_in().token


def test_an_unused_session_ends(desk: Desk) -> None:
    """After the idle limit, counted from its last use."""
    desk.add()
    token = desk.sign_in().token
    desk.wait(hours=11)
    assert desk.sessions.principal_of(token) is not None
    desk.wait(hours=11)
    assert desk.sessions.principal_of(token) is not None
    desk.wait(hours=12)
    assert desk.sessions.principal_of(token) is None


def test_a_session_ends_after_its_absolute_limit(desk: Desk) -> None:
    """However often it is used."""
    desk.add()
    token = desk.sign_in().token
    for _ in range(16):
        desk.wait(hours=10)
        assert desk.sessions.principal_of(token) is not None
    desk.wait(hours=10)
    assert desk.sessions.principal_of(token) is None


def test_a_bearer_token_has_a_limit_of_its_own(desk: Desk) -> None:
    """Shorter than that of a browser."""
    desk.add()
    token = desk.sign_ins.sign_in("anna", PASSWORD, client=HERE, kind=SessionKind.TOKEN).token
    desk.wait(hours=7.9)
    assert desk.sessions.principal_of(token) is not None
    desk.wait(hours=0.2)
    assert desk.sessions.principal_of(token) is None


def test_the_use_is_noted_at_most_once_a_minute(desk: Desk) -> None:
    """So that reading a page writes nothing, as a rule."""
    desk.add()
    signed_in = desk.sign_in()
    desk.wait(seconds=59)
    desk.sessions.principal_of(signed_in.token)
    assert signed_in.session.last_used_at == desk.sessions.of(signed_in.person.id)[0].last_used_at
    desk.wait(seconds=1)
    desk.sessions.principal_of(signed_in.token)
    assert desk.now == desk.sessions.of(signed_in.person.id)[0].last_used_at


def test_rows_of_sessions_that_are_over_are_removed_at_the_next_sign_in(desk: Desk, database: Database) -> None:
    """The table does not grow for ever."""
    person = desk.add()
    desk.sign_in()
    desk.wait(hours=13)
    desk.sign_in()
    with database.reading() as tx:
        assert 1 == len(SessionRepository(tx).of(person.id))


def test_signing_out_ends_this_session_and_no_other(desk: Desk) -> None:
    """At once."""
    desk.add()
    first, second = desk.sign_in().token, desk.sign_in().token
    assert desk.sessions.end(first) is not None
    assert desk.sessions.end(first) is None
    assert desk.sessions.principal_of(first) is None
    assert desk.sessions.principal_of(second) is not None


def test_signing_out_everywhere_ends_all_sessions_of_this_person(desk: Desk) -> None:
    """And of nobody else."""
    person, _ = desk.add(), desk.add("bela")
    tokens = [desk.sign_in().token for _ in range(3)]
    other = desk.sign_in("bela").token
    assert 3 == desk.sessions.end_all(person.id)
    assert [None] * 3 == [desk.sessions.principal_of(each) for each in tokens]
    assert desk.sessions.principal_of(other) is not None


def test_one_session_of_a_list_can_be_ended_by_its_owner_only(desk: Desk) -> None:
    """The id that a page shows is the beginning of the hash."""
    person, other = desk.add(), desk.add("bela")
    signed_in = desk.sign_in()
    shown = signed_in.session.token_hash[:16]
    desk.sessions.end_one(other.id, shown)
    assert desk.sessions.principal_of(signed_in.token) is not None
    desk.sessions.end_one(person.id, shown)
    assert desk.sessions.principal_of(signed_in.token) is None


def test_who_is_disabled_loses_all_sessions_at_once_and_cannot_sign_in(desk: Desk) -> None:
    """Also after being enabled again, the old sessions are over."""
    person = desk.add()
    token = desk.sign_in().token
    desk.people.change(person.id, by=SYSTEM, disabled=True)
    assert desk.sessions.principal_of(token) is None
    with pytest.raises(SignInRefused):
        desk.sign_in()
    desk.people.change(person.id, by=SYSTEM, disabled=False)
    assert desk.sessions.principal_of(token) is None
    assert desk.sessions.principal_of(desk.sign_in().token) is not None


def test_another_role_counts_at_the_next_request(desk: Desk) -> None:
    """The rights are read, not kept in the session."""
    person = desk.add(role=Role.CLERK)
    token = desk.sign_in().token
    desk.people.change(person.id, by=SYSTEM, role=Role.VIEWER)
    principal = desk.sessions.principal_of(token)
    assert principal is not None
    assert PERMISSIONS[Role.VIEWER] == principal.permissions


def test_a_new_password_ends_all_sessions(desk: Desk) -> None:
    """Who had the old one is out."""
    person = desk.add()
    token = desk.sign_in().token
    desk.people.change_password(person.id, OTHER_PASSWORD)
    assert desk.sessions.principal_of(token) is None


def test_a_session_remembers_where_it_was_opened(desk: Desk) -> None:
    """For its owner to recognise it by; a program may send any length of text."""
    desk.add()
    desk.sign_in(client=Client(address="192.0.2.9", user_agent="x" * 10_000))
    (session,) = desk.sessions.of(desk.people.named("anna").id)
    assert ("192.0.2.9", 300) == (session.address, len(session.user_agent or ""))


def test_what_remembers_sessions_hears_of_every_change(desk: Desk) -> None:
    """The access check forgets what it knows."""
    changes: list[str] = []
    person = desk.add()
    token = desk.sign_in().token
    desk.sessions.on_change(lambda: changes.append("changed"))
    desk.add("bela")
    desk.sessions.end(token)
    desk.sessions.end_all(person.id)
    desk.people.change(person.id, by=SYSTEM, role=Role.VIEWER)
    desk.people.change_password(person.id, OTHER_PASSWORD)
    assert 5 == len(changes)
