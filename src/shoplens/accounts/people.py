"""People: who may sign in, with which role; their passwords and one-time links."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import PERMISSIONS, OneTimeLink, Person, Principal, Role
from shoplens.accounts.errors import LastAdmin, LinkInvalid, PersonExists, PersonNotFound
from shoplens.accounts.passwords import PasswordHasher, require_fit
from shoplens.accounts.repository import LinkRepository, PersonRepository, SessionRepository
from shoplens.accounts.sessions import SessionService, hash_of, new_token, principal_for
from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import PermissionDenied, RequestInvalid

MOST_NAME_CHARS: Final = 100
_NAME: Final = re.compile(r"[\w.@+-]+")
_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")
_MOST_EMAIL_CHARS: Final = 254


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLink:
    """A one-time link that was just made. Its token is shown once."""

    token: str
    expires_at: datetime
    person: Person

    @property
    def path(self) -> str:
        """Where it leads on this server."""
        return f"/reset/{self.token}"


def clean_name(name: str) -> str:
    """A sign-in name as it is stored: NFKC, in small letters. Raises RequestInvalid."""
    cleaned = unicodedata.normalize("NFKC", name).strip().lower()
    if not cleaned or len(cleaned) > MOST_NAME_CHARS or not _NAME.fullmatch(cleaned):
        raise RequestInvalid(
            f"A name has 1 to {MOST_NAME_CHARS} letters, digits and . _ - + @, such as anna or anna@example.org."
        )
    return cleaned


def clean_email(email: str | None) -> str | None:
    """Raises RequestInvalid for what cannot be an address."""
    email = (email or "").strip()
    if not email:
        return None
    if len(email) > _MOST_EMAIL_CHARS or not _EMAIL.fullmatch(email):
        raise RequestInvalid("The e-mail address is not valid. Write it as anna@example.org.")
    return email


class PeopleService:
    """Each change is committed when its call returns. Methods block; many processes may use one database."""

    def __init__(
        self,
        database: Database,
        sessions: SessionService,
        hasher: PasswordHasher,
        audit: AuditLog,
        *,
        link_lasts: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._sessions = sessions
        self._hasher = hasher
        self._audit = audit
        self._link_lasts = link_lasts
        self._clock = clock

    def any_people(self) -> bool:
        """Whether this system has accounts."""
        with self._database.reading() as tx:
            return PersonRepository(tx).any()

    def all(self) -> list[Person]:
        """Everybody, by name."""
        with self._database.reading() as tx:
            return PersonRepository(tx).all()

    def get(self, person_id: str) -> Person:
        """Raises PersonNotFound."""
        with self._database.reading() as tx:
            return PersonRepository(tx).get(person_id)

    def named(self, name: str) -> Person:
        """Who signs in with this name. Raises PersonNotFound."""
        with self._database.reading() as tx:
            person = PersonRepository(tx).by_name(clean_name(name))
        if person is None:
            raise PersonNotFound(
                f"There is nobody with the name {name[:MOST_NAME_CHARS]!r}. Look at the list of people."
            )
        return person

    def locked(self, everybody: Iterable[Person]) -> set[str]:
        """The ids of those who cannot sign in for a while, after failures."""
        now = self._clock()
        return {each.id for each in everybody if each.locked_until is not None and each.locked_until > now}

    def add(
        self, name: str, role: Role, *, by: Principal, email: str | None = None, password: str | None = None
    ) -> Person:
        """Without a password they need a one-time link.

        Raises PersonExists, PasswordUnfit, RequestInvalid, and PermissionDenied for a role that may do more than `by`.
        """
        name, email = clean_name(name), clean_email(email)
        require_no_more(by, role)
        if password is not None:
            require_fit(password, name=name)
        password_hash = None if password is None else self._hasher.hash(password)
        now = self._clock()
        person = Person(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
            created_at=now,
            name=name,
            role=role,
            email=email,
            password_hash=password_hash,
            password_changed_at=None if password is None else now,
        )
        with self._database.transaction() as tx:
            if PersonRepository(tx).by_name(name) is not None:
                raise PersonExists(f"There is somebody with the name {name!r} already. Choose another name.")
            if role is not Role.ADMIN and not PersonRepository(tx).any():
                raise RequestInvalid("The first person must be an admin: nobody else could add people.")
            PersonRepository(tx).add(person)
            self._audit.record(tx, by, "person.added", target=name, details={"role": role.value})
        self._sessions.changed()
        return person

    def change(
        self, person_id: str, *, by: Principal, role: Role | None = None, disabled: bool | None = None
    ) -> Person:
        """Another role; disable or enable. Who is disabled loses all sessions.

        Raises PersonNotFound, LastAdmin, and PermissionDenied if the person may do, or would, more than `by`.
        """
        with self._database.transaction() as tx:
            admins = PersonRepository(tx).active_admins()
            person = PersonRepository(tx).get(person_id, lock=True)
            require_no_more(by, person.role)
            changed = replace(person, role=role or person.role)
            require_no_more(by, changed.role)
            if disabled is not None and disabled != (person.disabled_at is not None):
                changed = replace(changed, disabled_at=self._clock() if disabled else None)
            if admins == [person_id] and (changed.role is not Role.ADMIN or changed.disabled_at is not None):
                raise LastAdmin(f"{person.name} is the last admin. Make somebody else an admin first.")
            if changed.disabled_at is None and person.disabled_at is not None:
                changed = replace(changed, failed_sign_ins=0, locked_until=None)
            PersonRepository(tx).save(changed)
            if changed.disabled_at is not None:
                SessionRepository(tx).delete_of(person_id)
            for action, details in _changes(person, changed):
                self._audit.record(tx, by, action, target=person.name, details=details)
        self._sessions.changed()
        return changed

    def make_link(self, person_id: str, *, by: Principal) -> NewLink:
        """A link with which the person sets a password, once. Earlier links are void.

        Raises PersonNotFound, and PermissionDenied for a person who may do more than `by`.
        """
        now, token = self._clock(), new_token()
        link = OneTimeLink(
            token_hash=hash_of(token), person_id=person_id, created_at=now, expires_at=now + self._link_lasts
        )
        with self._database.transaction() as tx:
            person = PersonRepository(tx).get(person_id)
            require_no_more(by, person.role)
            LinkRepository(tx).replace(link)
            self._audit.record(tx, by, "password.link_made", target=person.name)
        return NewLink(token=token, expires_at=link.expires_at, person=person)

    def person_of_link(self, token: str) -> Person:
        """Whose password the link sets. Raises LinkInvalid."""
        with self._database.reading() as tx:
            link = LinkRepository(tx).find(hash_of(token))
            person = None if link is None else PersonRepository(tx).get(link.person_id)
        if link is None or person is None or link.used_at or link.expires_at <= self._clock() or person.disabled_at:
            raise LinkInvalid("This link was used, has expired or never existed. Ask an admin for another one.")
        return person

    def use_link(self, token: str, password: str) -> Person:
        """Set the password; all sessions and locks of the person end. Raises LinkInvalid and PasswordUnfit."""
        person = self.person_of_link(token)
        password_hash = self._fit_hash(password, person)
        with self._database.transaction() as tx:
            if not LinkRepository(tx).use(hash_of(token), now=self._clock()):
                raise LinkInvalid("This link was used just now. Ask an admin for another one.")
            return self._set_password(tx, person.id, password_hash, action="password.set_by_link")

    def change_password(self, person_id: str, new: str) -> Person:
        """All sessions of the person end. The caller has checked the old password. Raises PasswordUnfit."""
        password_hash = self._fit_hash(new, self.get(person_id))
        with self._database.transaction() as tx:
            return self._set_password(tx, person_id, password_hash, action="password.changed")

    def _fit_hash(self, password: str, person: Person) -> str:
        require_fit(password, name=person.name)
        return self._hasher.hash(password)

    def _set_password(self, tx: Connection, person_id: str, password_hash: str, *, action: str) -> Person:
        person = replace(
            PersonRepository(tx).get(person_id, lock=True),
            password_hash=password_hash,
            password_changed_at=self._clock(),
            failed_sign_ins=0,
            locked_until=None,
        )
        PersonRepository(tx).save(person)
        SessionRepository(tx).delete_of(person_id)
        self._audit.record(tx, principal_for(person), action, target=person.name)
        self._sessions.changed()
        return person


def require_no_more(by: Principal, role: Role) -> None:
    """Raises PermissionDenied: a key that looks after people would otherwise get all their rights through them."""
    beyond = sorted(PERMISSIONS[role] - by.permissions)
    if beyond:
        raise PermissionDenied(f"{by.name} may not change people who may do more than {by.name}: {', '.join(beyond)}.")


def _changes(before: Person, after: Person) -> Iterator[tuple[str, dict[str, str]]]:
    """What the audit log says of a change."""
    if before.role is not after.role:
        yield "person.role_changed", {"from": before.role.value, "to": after.role.value}
    if (before.disabled_at is None) != (after.disabled_at is None):
        yield "person.enabled" if after.disabled_at is None else "person.disabled", {}
