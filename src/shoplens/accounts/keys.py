"""API keys of services: shown once, stored as a hash, with scopes, an expiry and a rate of their own.

A key is `slk_`, 32 random characters, and a checksum of six, so that a mistyped key, or a string that only looks
like one, is recognised without asking the database.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import zlib
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, insert, or_, select, update

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import ApiKey, Permission, Principal, PrincipalKind
from shoplens.accounts.principals import KEY_PREFIX, KnownKey
from shoplens.accounts.tables import api_keys, people
from shoplens.db import Database
from shoplens.db.tables import from_row, make_id, to_row
from shoplens.errors import NotFound, PermissionDenied, RequestInvalid

MAX_KEY_NAME: Final = 100
MOST_PER_MINUTE: Final = 1_000_000
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_RANDOM_CHARS: Final = 32
_CHECK_CHARS: Final = 6
_SHOWN_CHARS: Final = 8
_USE_NOTED_EVERY: Final = timedelta(minutes=1)


class KeyRepository:
    """The table `api_keys`, over a transaction that the caller opened."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, key: ApiKey) -> None:
        """Store a new key."""
        self._tx.execute(insert(api_keys), to_row(key))

    def get(self, key_id: str) -> ApiKey:
        """The key with this id or visible prefix. Raises NotFound."""
        same = or_(api_keys.c.id == key_id, api_keys.c.prefix == key_id)
        row = self._tx.execute(select(api_keys).where(same)).first()
        if row is None:
            raise NotFound(f"There is no API key {key_id!r}. `shoplens keys list` shows them.")
        return from_row(ApiKey, row)

    def by_hash(self, key_hash: str) -> ApiKey | None:
        """The key with this hash."""
        row = self._tx.execute(select(api_keys).where(api_keys.c.key_hash == key_hash)).one_or_none()
        return None if row is None else from_row(ApiKey, row)

    def all(self) -> list[ApiKey]:
        """Every key, newest first."""
        return [from_row(ApiKey, row) for row in self._tx.execute(select(api_keys).order_by(api_keys.c.id.desc()))]

    def revoke(self, key_id: str, now: datetime) -> None:
        """Note that it is revoked."""
        self._tx.execute(update(api_keys).where(api_keys.c.id == key_id).values(revoked_at=now))

    def note_use(self, key_id: str, now: datetime) -> None:
        """Note that it was used."""
        self._tx.execute(update(api_keys).where(api_keys.c.id == key_id).values(last_used_at=now))


class KeyService:
    """Creates, revokes and recognises keys. Methods block."""

    def __init__(self, database: Database, audit: AuditLog, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._audit = audit
        self._clock = clock

    def create(
        self,
        by: Principal,
        *,
        name: str,
        scopes: Collection[Permission],
        expires_at: datetime | None = None,
        per_minute: int | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key, and its text, which is nowhere else.

        Raises RequestInvalid for values that make no sense, and while there is no person; PermissionDenied for a scope
        that `by` does not have.
        """
        name = name.replace("\x00", "").strip()
        now = self._clock()
        if not name or len(name) > MAX_KEY_NAME:
            raise RequestInvalid(f"Name the key after the service that uses it, in 1 to {MAX_KEY_NAME} characters.")
        if not scopes:
            raise RequestInvalid(f"Give the key at least one scope: {', '.join(Permission)}.")
        if expires_at is not None and expires_at <= now:
            raise RequestInvalid("The key would have expired already; choose a later time.")
        if per_minute is not None and not 1 <= per_minute <= MOST_PER_MINUTE:
            raise RequestInvalid(f"A key may have a limit of 1 to {MOST_PER_MINUTE} requests per minute.")
        beyond = sorted(set(scopes) - by.permissions)
        if beyond:
            raise PermissionDenied(f"{by.name} cannot give a key what {by.name} may not do: {', '.join(beyond)}.")
        text = make_key()
        key = ApiKey(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
            created_at=now,
            name=name,
            prefix=text[: len(KEY_PREFIX) + _SHOWN_CHARS],
            key_hash=_hash(text),
            scopes=" ".join(sorted(scopes)),
            created_by=by.name,
            per_minute=per_minute,
            expires_at=expires_at,
        )
        with self._database.transaction() as tx:
            if tx.execute(select(people.c.id).limit(1)).first() is None:
                raise RequestInvalid(
                    "There is no person yet, so nothing asks for a key. Add the first one with "
                    "`shoplens users add NAME --role admin`; from then on every request needs an account."
                )
            KeyRepository(tx).add(key)
            details = {"name": name, "scopes": key.scopes, "expires_at": expires_at, "per_minute": per_minute}
            self._audit.record(tx, by, "key.created", target=key.id, details=details)
        return key, text

    def all(self) -> list[ApiKey]:
        """Every key, newest first; also expired and revoked ones."""
        with self._database.reading() as tx:
            return KeyRepository(tx).all()

    def revoke(self, by: Principal, key_id: str) -> ApiKey:
        """End a key, by its id or visible prefix; a second time changes nothing. Raises NotFound."""
        with self._database.transaction() as tx:
            key = KeyRepository(tx).get(key_id)
            if key.revoked_at is None:
                key = replace(key, revoked_at=self._clock())
                KeyRepository(tx).revoke(key.id, key.revoked_at or self._clock())
                self._audit.record(tx, by, "key.revoked", target=key.id, details={"name": key.name})
        return key

    def recognise(self, text: str) -> KnownKey | None:
        """What the key may do; None unless it is valid now. Its use is noted at most once a minute."""
        if not is_key(text):
            return None
        now = self._clock()
        with self._database.reading() as tx:
            key = KeyRepository(tx).by_hash(_hash(text))
        if key is None or key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= now):
            return None
        if key.last_used_at is None or now - key.last_used_at >= _USE_NOTED_EVERY:
            with self._database.transaction() as tx:
                KeyRepository(tx).note_use(key.id, now)
        principal = Principal(kind=PrincipalKind.KEY, id=key.id, name=key.name, permissions=key.permissions)
        return KnownKey(principal=principal, per_minute=key.per_minute)


def make_key() -> str:
    """A new random key of 190 bits with its checksum."""
    body = KEY_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_CHARS))
    return body + _checksum(body)


def is_key(text: str) -> bool:
    """Whether the checksum of a key is right."""
    body, check = text[:-_CHECK_CHARS], text[-_CHECK_CHARS:]
    whole = len(text) == len(KEY_PREFIX) + _RANDOM_CHARS + _CHECK_CHARS
    return whole and text.isascii() and text.startswith(KEY_PREFIX) and check == _checksum(body)


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode())
    return "".join(_ALPHABET[number // len(_ALPHABET) ** place % len(_ALPHABET)] for place in range(_CHECK_CHARS))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
