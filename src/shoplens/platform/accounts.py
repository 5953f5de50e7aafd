"""Build the services of people, sessions and keys from the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Role
from shoplens.accounts.openid import OpenIdConfig, OpenIdProvider
from shoplens.accounts.openid_people import OpenIdSignIn
from shoplens.accounts.passwords import PasswordHasher
from shoplens.accounts.people import PeopleService
from shoplens.accounts.repository import PersonRepository
from shoplens.accounts.sessions import SessionLimits, SessionService
from shoplens.accounts.sign_in import SignInService
from shoplens.accounts.throttle import Throttle
from shoplens.accounts.totp import SecondFactorService
from shoplens.db import Database
from shoplens.platform.parts import build_database, utc_now
from shoplens.setting_groups import OpenIdSettings
from shoplens.settings import Settings

if TYPE_CHECKING:
    from limits.storage import Storage

_REDIS_ANSWER_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The use cases of accounts."""

    people: PeopleService
    sessions: SessionService
    second_factor: SecondFactorService
    sign_in: SignInService
    openid: OpenIdSignIn | None


@contextmanager
def open_accounts(settings: Settings) -> Iterator[Accounts]:
    """The use cases over a connection of their own, for commands. Raises DatabaseUnavailable and Misconfigured."""
    database = build_database(settings, pool=1)
    try:
        yield build_accounts(settings, database, AuditLog(database, clock=utc_now))
    finally:
        database.close()


def build_accounts(settings: Settings, database: Database, audit: AuditLog) -> Accounts:
    """All of them over one database."""
    lasts = settings.accounts
    limits = SessionLimits(
        idle=timedelta(hours=lasts.session_idle_hours),
        absolute=timedelta(days=lasts.session_days),
        token=timedelta(hours=lasts.token_hours),
    )
    sessions = SessionService(database, audit, limits=limits, clock=utc_now)
    hasher = PasswordHasher()
    second_factor = SecondFactorService(database, sessions, audit, clock=utc_now)
    people = PeopleService(
        database, sessions, hasher, audit, link_lasts=timedelta(hours=lasts.link_hours), clock=utc_now
    )
    sign_in = SignInService(
        database,
        sessions,
        second_factor,
        hasher=hasher,
        throttle=Throttle(lambda: open_counts(settings.redis_url, prefix=settings.redis_prefix)),
        audit=audit,
        clock=utc_now,
    )
    openid = None
    if settings.oidc is not None:
        provider = OpenIdProvider(_openid_config(settings.oidc, settings.public_url))
        openid = OpenIdSignIn(provider, database, sessions, sign_in, audit, clock=utc_now)
    return Accounts(
        people=people,
        sessions=sessions,
        second_factor=second_factor,
        sign_in=sign_in,
        openid=openid,
    )


def has_people(settings: Settings) -> bool:
    """Whether there is any person, also a disabled one. Raises Misconfigured and DatabaseUnavailable."""
    database = build_database(settings, pool=1)
    try:
        with database.reading() as tx:
            return PersonRepository(tx).any()
    finally:
        database.close()


def _openid_config(settings: OpenIdSettings, public_url: str | None) -> OpenIdConfig:
    return OpenIdConfig(
        issuer=settings.issuer,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        name=settings.name,
        scopes=settings.scopes,
        role_claim=settings.role_claim,
        roles={value: Role(role) for value, role in settings.roles.items()},
        default_role=None if settings.default_role == "none" else Role(settings.default_role),
        domains=tuple(domain.lower() for domain in settings.domains),
        create=settings.create,
        public_url=public_url,
    )


def open_counts(redis_url: str | None, *, prefix: str) -> Storage:
    """Where failed sign-ins are counted: in Redis where several processes share one, else in this process."""
    from limits.storage import MemoryStorage, RedisStorage

    if redis_url is None:
        return MemoryStorage()
    return RedisStorage(
        redis_url,
        key_prefix=f"{prefix}:sign-in",
        wrap_exceptions=True,
        socket_timeout=_REDIS_ANSWER_S,
        socket_connect_timeout=_REDIS_ANSWER_S,
    )
