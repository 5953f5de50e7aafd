"""Sessions on the server: opened at sign-in, presented as a cookie or a bearer token, ended at once by a deletion.

A token is 256 random bits, and the database has only its SHA-256: who reads the database cannot sign in with it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import PERMISSIONS, Person, Principal, PrincipalKind, Session, SessionKind
from shoplens.accounts.errors import SignInRefused
from shoplens.accounts.repository import PersonRepository, SessionRepository
from shoplens.db import Database
from shoplens.errors import DatabaseUnavailable
from shoplens.telemetry.logs import get_logger

_TOKEN_BYTES: Final = 32
_MOST_TOKEN_CHARS: Final = 100
_TOUCH_EVERY: Final = timedelta(minutes=1)
_SECOND_FACTOR_WAITS: Final = timedelta(minutes=10)
_MOST_USER_AGENT_CHARS: Final = 300
SHOWN_CHARS: Final = 16
"""So much of the hash names a session in its owner's list."""
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """How long sessions last: unused, in all, and how long a bearer token lasts in all."""

    idle: timedelta
    absolute: timedelta
    token: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """Where a request comes from, for people to recognise their sessions by."""

    address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """A session that was just opened. `token` is shown to its client and nowhere else."""

    token: str
    session: Session
    person: Person

    @property
    def needs_totp(self) -> bool:
        """Whether a code of the second factor has to follow."""
        return self.session.needs_totp


def hash_of(token: str) -> str:
    """What the database has of a token or code with at least 80 random bits: no salt or slow hash is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def new_token() -> str:
    """256 random bits in 43 characters that may stand in URLs."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def principal_for(person: Person) -> Principal:
    """What requests of this person act as."""
    return Principal(kind=PrincipalKind.PERSON, id=person.id, name=person.name, permissions=PERMISSIONS[person.role])


class SessionService:
    """Methods block; they may be called from many threads and processes."""

    def __init__(
        self, database: Database, audit: AuditLog, *, limits: SessionLimits, clock: Callable[[], datetime]
    ) -> None:
        self.limits = limits
        self._database = database
        self._audit = audit
        self._clock = clock
        self._callbacks: list[Callable[[], None]] = []

    def principal_of(self, token: str) -> Principal | None:
        """Who presents this token; None for a token that is unknown, over, or waits for its second factor.

        It reads two rows, and writes at most once a minute.
        """
        found = self.find(token)
        return None if found is None or found[0].needs_totp else principal_for(found[1])

    def find(self, token: str) -> tuple[Session, Person] | None:
        """The session of a token and its person, read now; None for one that is unknown or over."""
        token_hash = self._hash_of(token)
        if token_hash is None:
            return None
        now = self._clock()
        with self._database.reading() as tx:
            session = SessionRepository(tx).find(token_hash)
            person = None if session is None else PersonRepository(tx).get(session.person_id)
        if session is None or person is None:
            return None
        if person.disabled_at is not None or not self._lasts(session, now):
            with self._database.transaction() as tx:
                SessionRepository(tx).delete(token_hash)
            return None
        if now - session.last_used_at >= _TOUCH_EVERY:
            self._note_use(token_hash, now)
        return session, person

    def _note_use(self, token_hash: str, now: datetime) -> None:
        try:
            with self._database.transaction() as tx:
                SessionRepository(tx).touch(token_hash, now=now)
        except DatabaseUnavailable as error:  # such as a long write of another process: reading goes on
            _log.warning("session.use_not_noted", reason=str(error))

    def require(self, token: str | None) -> tuple[Session, Person]:
        """As `find`. Raises SignInRefused where that is None."""
        found = self.find(token) if token else None
        if found is None:
            raise SignInRefused("You are not signed in, or your session is over. Sign in.")
        return found

    def open(self, tx: Connection, person: Person, kind: SessionKind, client: Client, *, needs_totp: bool) -> SignedIn:
        """A new session with a new token, committed with `tx`. Rows of sessions that are over are removed."""
        now, token = self._clock(), new_token()
        lasts = self.limits.absolute if kind is SessionKind.COOKIE else self.limits.token
        session = Session(
            token_hash=hash_of(token),
            person_id=person.id,
            kind=kind,
            created_at=now,
            last_used_at=now,
            expires_at=now + (_SECOND_FACTOR_WAITS if needs_totp else lasts),
            needs_totp=needs_totp,
            address=client.address,
            user_agent=(client.user_agent or "")[:_MOST_USER_AGENT_CHARS] or None,
        )
        repository = SessionRepository(tx)
        repository.delete_expired(now=now, unused_since=now - self.limits.idle)
        repository.add(session)
        return SignedIn(token=token, session=session, person=person)

    def of(self, person_id: str) -> list[Session]:
        """The sessions of a person that are not over, the last used first."""
        with self._database.reading() as tx:
            found = SessionRepository(tx).of(person_id)
        now = self._clock()
        return [each for each in found if self._lasts(each, now) and not each.needs_totp]

    def end(self, token: str) -> Person | None:
        """Sign out. Whose session it was; None if there was none."""
        token_hash = self._hash_of(token)
        if token_hash is None:
            return None
        with self._database.transaction() as tx:
            repository = SessionRepository(tx)
            session = repository.find(token_hash)
            person = None if session is None else PersonRepository(tx).get(session.person_id)
            if person is not None:
                repository.delete(token_hash)
                self._audit.record(tx, principal_for(person), "session.ended", target=person.name)
        self.changed()
        return person

    def end_one(self, person_id: str, session_id: str) -> None:
        """End the session of this person whose hash begins with `session_id`, as its owner sees it in a list."""
        with self._database.transaction() as tx:
            person = PersonRepository(tx).get(person_id)
            repository = SessionRepository(tx)
            chosen = [each for each in repository.of(person_id) if each.token_hash[:SHOWN_CHARS] == session_id]
            for each in chosen:
                repository.delete(each.token_hash)
                self._audit.record(tx, principal_for(person), "session.ended", target=person.name)
        self.changed()

    def end_all(self, person_id: str, *, keep: str | None = None) -> int:
        """Sign a person out everywhere, but for the session of the token `keep`; how many sessions that were."""
        with self._database.transaction() as tx:
            person = PersonRepository(tx).get(person_id)
            count = SessionRepository(tx).delete_of(person_id, keep=None if keep is None else hash_of(keep))
            self._audit.record(
                tx, principal_for(person), "session.all_ended", target=person.name, details={"sessions": count}
            )
        self.changed()
        return count

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call it whenever a session ended or a person changed in this process."""
        self._callbacks.append(callback)

    def changed(self) -> None:
        """Sessions or people were changed: let others forget what they remember of them."""
        for each in self._callbacks:
            each()

    def _lasts(self, session: Session, now: datetime) -> bool:
        return now < session.expires_at and now - session.last_used_at < self.limits.idle

    @staticmethod
    def _hash_of(token: str) -> str | None:
        return hash_of(token) if token.isascii() and len(token) <= _MOST_TOKEN_CHARS else None
