"""What `shoplens doctor` says of people and keys: whether a sign-in is needed, admins, and keys that end soon."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Final

from shoplens.accounts.entities import ApiKey, Person, Role
from shoplens.accounts.keys import KeyRepository
from shoplens.accounts.repository import PersonRepository
from shoplens.advice import Caution
from shoplens.errors import DatabaseUnavailable
from shoplens.platform.parts import build_database, utc_now
from shoplens.settings import Settings

SOON: Final = timedelta(days=14)
"""A key that ends within this time, or has ended within it, should be replaced."""


def look_at_accounts(settings: Settings) -> str | Caution:
    """Names of keys, and no secret."""
    if settings.database_url is None and not (settings.data_dir / "shoplens.db").exists():
        return in_words([], [], now=utc_now(), allow_public=settings.allow_public)
    try:
        with closing(build_database(settings, pool=1)) as database, database.reading() as tx:
            people, keys = PersonRepository(tx).all(), KeyRepository(tx).all()
    except DatabaseUnavailable:
        return Caution(text="unknown while the database is unavailable")
    return in_words(people, keys, now=utc_now(), allow_public=settings.allow_public)


def in_words(people: Sequence[Person], keys: Sequence[ApiKey], *, now: datetime, allow_public: bool) -> str | Caution:
    """The same from rows. It is a caution where somebody should do something."""
    if not people:
        text = "nobody has an account, so no sign-in is needed"
        if allow_public:
            return Caution(text=f"{text}, and allow_public lets everybody in; add the first admin")
        return text
    active = [each for each in people if each.disabled_at is None]
    admins = [each for each in active if each.role is Role.ADMIN]
    without = sum(each.totp_confirmed_at is None for each in admins)
    valid = [each for each in keys if each.revoked_at is None and (each.expires_at is None or each.expires_at > now)]
    facts = [
        "a sign-in or a key is needed",
        f"{_counted(len(admins), 'admin')}, {without or 'none'} without a second factor",
        f"{_counted(len(active), 'person', 'people')} and {_counted(len(valid), 'key')} in all",
    ]
    faults = [] if admins else ["there is no active admin; `shoplens users enable NAME` brings one back"]
    faults += [_ending(each, each.expires_at, now) for each in keys if each.expires_at and _ends_soon(each, now)]
    return Caution(text="; ".join(facts + faults)) if faults else "; ".join(facts)


def _ends_soon(key: ApiKey, now: datetime) -> bool:
    return key.revoked_at is None and key.expires_at is not None and abs(key.expires_at - now) <= SOON


def _ending(key: ApiKey, expires_at: datetime, now: datetime) -> str:
    ends = "ends" if expires_at > now else "ended"
    return f"the key {key.prefix}… of {key.name} {ends} on {expires_at:%Y-%m-%d}; make another one, then revoke it"


def _counted(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
