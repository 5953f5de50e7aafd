"""People, sessions, one-time links and recovery codes in the database, over a transaction that the caller opened.

Every method raises DatabaseUnavailable through that transaction.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Select, delete, func, insert, select, update

from shoplens.accounts.entities import OneTimeLink, Person, Role, Session
from shoplens.accounts.errors import PersonNotFound
from shoplens.accounts.tables import one_time_links, people, recovery_codes, sessions
from shoplens.db.tables import from_row, to_row

_people: Final = people.c
_sessions: Final = sessions.c
_links: Final = one_time_links.c
_codes: Final = recovery_codes.c


class PersonRepository:
    """The table `people`. Nobody is ever deleted: old rows name those who decided something."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, person: Person) -> None:
        """Raises RecordRefused for a name that somebody has."""
        self._tx.execute(insert(people).values(to_row(person)))

    def save(self, person: Person) -> None:
        """Write all fields of somebody who was read with `lock`."""
        self._tx.execute(update(people).where(_people.id == person.id).values(to_row(person)))

    def get(self, person_id: str, *, lock: bool = False) -> Person:
        """`lock` keeps others from changing the row until the transaction ends. Raises PersonNotFound."""
        found = self._one(select(people).where(_people.id == person_id), lock=lock)
        if found is None:
            raise PersonNotFound(f"There is no person {person_id[:100]!r}.")
        return found

    def by_name(self, name: str, *, lock: bool = False) -> Person | None:
        """Who signs in with this name, which is clean."""
        return self._one(select(people).where(_people.name == name), lock=lock)

    def by_subject(self, issuer: str, subject: str) -> Person | None:
        """Whom an OpenID provider knows under this subject."""
        return self._one(select(people).where(_people.issuer == issuer, _people.subject == subject), lock=False)

    def without_subject(self, email: str) -> Person | None:
        """The one person with this address whom no provider knows yet; None also if there are several."""
        wanted = func.lower(_people.email) == email.lower(), _people.subject.is_(None)
        found = self._tx.execute(select(people).where(*wanted).limit(2)).all()
        return from_row(Person, found[0]) if len(found) == 1 else None

    def all(self) -> list[Person]:
        """Everybody, by name."""
        return [from_row(Person, row) for row in self._tx.execute(select(people).order_by(_people.name))]

    def active_admins(self) -> list[str]:
        """The ids of the admins who are not disabled. Their rows are locked until the transaction ends."""
        wanted = select(_people.id).where(_people.role == Role.ADMIN, _people.disabled_at.is_(None))
        return list(self._tx.scalars(wanted.order_by(_people.id).with_for_update()))

    def any(self) -> bool:
        """Whether there is anybody."""
        return self._tx.scalar(select(_people.id).limit(1)) is not None

    def _one(self, wanted: Select[tuple[object, ...]], *, lock: bool) -> Person | None:
        row = self._tx.execute(wanted.with_for_update() if lock else wanted).one_or_none()
        return None if row is None else from_row(Person, row)


class SessionRepository:
    """The table `sessions`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, session: Session) -> None:
        """Store a new one."""
        self._tx.execute(insert(sessions).values(to_row(session)))

    def find(self, token_hash: str) -> Session | None:
        """The session of a token, also one that has expired."""
        row = self._tx.execute(select(sessions).where(_sessions.token_hash == token_hash)).one_or_none()
        return None if row is None else from_row(Session, row)

    def of(self, person_id: str) -> list[Session]:
        """All of one person, the last used first."""
        wanted = select(sessions).where(_sessions.person_id == person_id).order_by(_sessions.last_used_at.desc())
        return [from_row(Session, row) for row in self._tx.execute(wanted)]

    def touch(self, token_hash: str, *, now: datetime) -> None:
        """Note that it was used."""
        self._tx.execute(update(sessions).where(_sessions.token_hash == token_hash).values(last_used_at=now))

    def delete(self, token_hash: str) -> bool:
        """End one; whether there was one."""
        return self._tx.execute(delete(sessions).where(_sessions.token_hash == token_hash)).rowcount > 0

    def delete_of(self, person_id: str, *, keep: str | None = None) -> int:
        """End all of a person but the one with the hash `keep`; how many there were."""
        theirs = delete(sessions).where(_sessions.person_id == person_id)
        return self._tx.execute(theirs if keep is None else theirs.where(_sessions.token_hash != keep)).rowcount

    def delete_expired(self, *, now: datetime, unused_since: datetime) -> None:
        """Remove the rows of sessions that are over."""
        self._tx.execute(delete(sessions).where(_sessions.expires_at <= now))
        self._tx.execute(delete(sessions).where(_sessions.last_used_at <= unused_since))


class LinkRepository:
    """The table `one_time_links`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def replace(self, link: OneTimeLink) -> None:
        """Store a link; all earlier ones of its person are void."""
        self._tx.execute(delete(one_time_links).where(_links.person_id == link.person_id))
        self._tx.execute(insert(one_time_links).values(to_row(link)))

    def find(self, token_hash: str) -> OneTimeLink | None:
        """The link of a token, also a used one."""
        row = self._tx.execute(select(one_time_links).where(_links.token_hash == token_hash)).one_or_none()
        return None if row is None else from_row(OneTimeLink, row)

    def use(self, token_hash: str, *, now: datetime) -> bool:
        """Mark it as used; False if it was, or there is none."""
        fresh = update(one_time_links).where(_links.token_hash == token_hash, _links.used_at.is_(None))
        return self._tx.execute(fresh.values(used_at=now)).rowcount == 1


class RecoveryRepository:
    """The table `recovery_codes`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def replace(self, person_id: str, code_hashes: Iterable[str]) -> None:
        """These are the codes of the person now; none if there are none."""
        self._tx.execute(delete(recovery_codes).where(_codes.person_id == person_id))
        rows = [{"code_hash": each, "person_id": person_id} for each in code_hashes]
        if rows:
            self._tx.execute(insert(recovery_codes), rows)

    def use(self, person_id: str, code_hash: str) -> bool:
        """Take a code of the person; False if they have no such code."""
        theirs = delete(recovery_codes).where(_codes.person_id == person_id, _codes.code_hash == code_hash)
        return self._tx.execute(theirs).rowcount == 1

    def left(self, person_id: str) -> int:
        """How many codes the person has left."""
        wanted = select(func.count()).select_from(recovery_codes).where(_codes.person_id == person_id)
        return self._tx.scalar(wanted) or 0
