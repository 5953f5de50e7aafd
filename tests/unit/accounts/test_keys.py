"""API keys: what they are made of, what they open, and when they stop."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select, update

from shoplens.accounts.audit import AuditFilter, AuditLog
from shoplens.accounts.entities import PERMISSIONS, SYSTEM, Permission, Person, Principal, PrincipalKind, Role
from shoplens.accounts.keys import KeyService, is_key, make_key
from shoplens.accounts.tables import api_keys, people
from shoplens.db import Database
from shoplens.db.tables import to_row
from shoplens.errors import NotFound, PermissionDenied, RequestInvalid

START = datetime(2026, 11, 22, 8, tzinfo=UTC)
ANNA = Person(id="0" * 26, created_at=START, name="anna", role=Role.ADMIN)


class Clock:
    """A clock that a test moves."""

    now = START

    def __call__(self) -> datetime:
        """The time of the test."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Stands still until it is moved."""
    return Clock()


@pytest.fixture
def keys(database: Database, clock: Clock) -> KeyService:
    """In a system with one person."""
    with database.transaction() as tx:
        tx.execute(insert(people), to_row(ANNA))
    return KeyService(database, AuditLog(database, clock=clock), clock=clock)


def test_a_key_opens_what_its_scopes_say(keys: KeyService) -> None:
    """And is recognised as the service that it was made for."""
    key, text = keys.create(SYSTEM, name="review form", scopes=[Permission.PREDICT, Permission.DOCS_READ])
    known = keys.recognise(text)
    assert known is not None
    assert (PrincipalKind.KEY, key.id, "review form") == (
        known.principal.kind,
        known.principal.id,
        known.principal.name,
    )
    assert {Permission.PREDICT, Permission.DOCS_READ} == known.principal.permissions


def test_only_its_hash_and_its_beginning_are_stored(keys: KeyService, database: Database) -> None:
    """Who reads the database cannot use it."""
    _, text = keys.create(SYSTEM, name="review form", scopes=[Permission.PREDICT])
    with database.reading() as tx:
        row = tx.execute(select(api_keys)).one()
    assert text.startswith(row.prefix)
    assert len(row.prefix) < len(text) / 2
    assert text not in str(row)


@pytest.mark.parametrize("place", [5, 20, -1])
def test_a_mistyped_key_is_told_apart_without_the_database(place: int) -> None:
    """Its checksum does not fit, so tools that search texts for keys find real ones only."""
    text = make_key()
    typo = list(text)
    typo[place] = "0" if typo[place] != "0" else "1"
    assert is_key(text)
    assert not is_key("".join(typo))
    assert not is_key(text[:-1])
    assert not is_key("")


def test_a_key_with_a_right_checksum_that_nobody_made_opens_nothing(keys: KeyService) -> None:
    """The checksum is no secret."""
    assert keys.recognise(make_key()) is None


def test_a_revoked_key_opens_nothing(keys: KeyService) -> None:
    """By its id or by what it begins with; a second time changes nothing."""
    key, text = keys.create(SYSTEM, name="review form", scopes=[Permission.PREDICT])
    keys.revoke(SYSTEM, key.prefix)
    keys.revoke(SYSTEM, key.id)
    assert keys.recognise(text) is None
    with pytest.raises(NotFound):
        keys.revoke(SYSTEM, "slk_nothing")


def test_a_key_ends_when_it_was_to_end(keys: KeyService, clock: Clock) -> None:
    """To the second."""
    _, text = keys.create(SYSTEM, name="review form", scopes=[Permission.PREDICT], expires_at=START + timedelta(days=1))
    clock.now = START + timedelta(days=1, seconds=-1)
    assert keys.recognise(text) is not None
    clock.now = START + timedelta(days=1)
    assert keys.recognise(text) is None


def test_the_last_use_is_noted_once_a_minute(keys: KeyService, clock: Clock) -> None:
    """Not with every request, each of which would be a write."""
    _, text = keys.create(SYSTEM, name="review form", scopes=[Permission.PREDICT])
    seen = []
    for seconds in (0, 30, 61):
        clock.now = START + timedelta(seconds=seconds)
        keys.recognise(text)
        seen.append(keys.all()[0].last_used_at)
    assert [START, START, START + timedelta(seconds=61)] == seen


def test_creation_and_revocation_stand_in_the_audit_log(keys: KeyService, database: Database, clock: Clock) -> None:
    """With who did it, and without the key."""
    anna = Principal(kind=PrincipalKind.PERSON, id=ANNA.id, name="anna", permissions=frozenset(Permission))
    key, text = keys.create(anna, name="review form", scopes=[Permission.PREDICT])
    keys.revoke(anna, key.id)
    entries = AuditLog(database, clock=clock).page(AuditFilter(actor=ANNA.id), limit=9)
    assert [("key.revoked", key.id), ("key.created", key.id)] == [(entry.action, entry.target) for entry in entries]
    assert text not in str(entries)


def test_nobody_gives_a_key_more_than_they_may_themselves(keys: KeyService) -> None:
    """Else a key would be a way around the roles."""
    clerk = Principal(kind=PrincipalKind.PERSON, id="c", name="carla", permissions=PERMISSIONS[Role.CLERK])
    with pytest.raises(PermissionDenied, match="accounts:admin"):
        keys.create(clerk, name="x", scopes=[Permission.PREDICT, Permission.ACCOUNTS_ADMIN])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": " "}, "Name the key"),
        ({"name": "x" * 101}, "Name the key"),
        ({"scopes": []}, "at least one scope"),
        ({"expires_at": START}, "expired already"),
        ({"per_minute": 0}, "1 to 1000000"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(keys: KeyService, values: dict[str, object], sentence: str) -> None:
    """With what to do."""
    given = {"name": "review form", "scopes": [Permission.PREDICT], **values}
    with pytest.raises(RequestInvalid, match=sentence):
        keys.create(SYSTEM, **given)  # type: ignore[arg-type]


def test_without_any_person_there_is_no_key(database: Database, clock: Clock) -> None:
    """Nothing would ask for it: the system is open to its own machine."""
    with pytest.raises(RequestInvalid, match="shoplens users add"):
        KeyService(database, AuditLog(database, clock=clock), clock=clock).create(
            SYSTEM, name="review form", scopes=[Permission.PREDICT]
        )


def test_a_scope_that_this_version_does_not_know_opens_nothing(keys: KeyService, database: Database) -> None:
    """As after a return to an older version; the other scopes of the key still work."""
    _, text = keys.create(SYSTEM, name="review form", scopes=[Permission.PREDICT])
    with database.transaction() as tx:
        tx.execute(update(api_keys).values(scopes="predict time:travel"))
    known = keys.recognise(text)
    assert known is not None
    assert {Permission.PREDICT} == known.principal.permissions
