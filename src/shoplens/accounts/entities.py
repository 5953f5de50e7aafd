"""Who may do what: permissions, roles, and the principal of a request. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final


class Permission(StrEnum):
    """What a route asks for. The same names are the scopes of API keys."""

    PREDICT = "predict"
    RECORDS_READ = "records:read"
    RECORDS_DELETE = "records:delete"
    FEEDBACK_WRITE = "feedback:write"
    BATCH_READ = "batch:read"
    BATCH_REVIEW = "batch:review"
    BATCH_RUN = "batch:run"
    MODELS_READ = "models:read"
    MODELS_ADMIN = "models:admin"
    MODERATION_SUBMIT = "moderation:submit"
    MODERATION_REVIEW = "moderation:review"
    MODERATION_ADMIN = "moderation:admin"
    CATALOGUE_READ = "catalogue:read"
    CATALOGUE_WRITE = "catalogue:write"
    CATALOGUE_ADMIN = "catalogue:admin"
    LABELS_READ = "labels:read"
    WEBHOOKS_ADMIN = "webhooks:admin"
    METRICS_READ = "metrics:read"
    MONITORING_READ = "monitoring:read"
    MONITORING_ADMIN = "monitoring:admin"
    DOCS_READ = "docs:read"
    ACCOUNTS_ADMIN = "accounts:admin"
    AUDIT_READ = "audit:read"
    SETTINGS_READ = "settings:read"
    SETTINGS_EDIT = "settings:edit"


class Role(StrEnum):
    """What a person does for the shop."""

    ADMIN = "admin"
    MODERATOR = "moderator"
    CLERK = "clerk"
    MERCHANDISER = "merchandiser"
    VIEWER = "viewer"


_VIEWER: Final = frozenset(
    {
        Permission.RECORDS_READ,
        Permission.BATCH_READ,
        Permission.MODELS_READ,
        Permission.CATALOGUE_READ,
        Permission.METRICS_READ,
        Permission.MONITORING_READ,
        Permission.DOCS_READ,
    }
)
_STAFF: Final = _VIEWER | {Permission.PREDICT, Permission.FEEDBACK_WRITE}

PERMISSIONS: Final[Mapping[Role, frozenset[Permission]]] = {
    Role.ADMIN: frozenset(Permission),
    Role.MODERATOR: _STAFF | {Permission.MODERATION_REVIEW, Permission.LABELS_READ},
    Role.MERCHANDISER: _STAFF | {Permission.CATALOGUE_WRITE, Permission.CATALOGUE_ADMIN},
    Role.CLERK: _STAFF | {Permission.BATCH_REVIEW, Permission.BATCH_RUN},
    Role.VIEWER: _VIEWER,
}
"""What each role may do. The table in docs/explanation/accounts.md is made of it."""


class PrincipalKind(StrEnum):
    """What a request acts as."""

    PERSON = "person"
    KEY = "key"
    LOCAL = "local"
    """A system without accounts: everybody who reaches it. Only the browser is known."""
    SYSTEM = "system"
    """Shoplens itself, or a command on its machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """On whose behalf a request is served. `id` is stable and unique over all kinds; `name` is for people to read."""

    kind: PrincipalKind
    id: str
    name: str
    permissions: frozenset[Permission]

    def may(self, permission: Permission) -> bool:
        """Whether this permission is among them."""
        return permission in self.permissions


SYSTEM: Final = Principal(kind=PrincipalKind.SYSTEM, id="system", name="Shoplens", permissions=frozenset(Permission))
"""What acts where no person or key does: a policy, a schedule, a command line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody with a sign-in name. `password_hash` is None until a password is set.

    `totp_secret` is base32; the second factor is asked for once `totp_confirmed_at` is set. `totp_step` is the last
    time step that was used, so that no code is taken twice. `issuer` and `subject` name them at an OpenID provider.
    """

    id: str
    created_at: datetime
    name: str
    role: Role
    email: str | None = None
    password_hash: str | None = None
    password_changed_at: datetime | None = None
    totp_secret: str | None = None
    totp_confirmed_at: datetime | None = None
    totp_step: int | None = None
    issuer: str | None = None
    subject: str | None = None
    failed_sign_ins: int = 0
    locked_until: datetime | None = None
    last_sign_in_at: datetime | None = None
    disabled_at: datetime | None = None


class SessionKind(StrEnum):
    """How a session is presented."""

    COOKIE = "cookie"
    TOKEN = "token"  # noqa: S105 - the name of a kind
    """A bearer token of the OAuth2 password flow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A signed-in browser or program. Only the SHA-256 of its token is stored.

    It ends at `expires_at`, and earlier if it is not used for the idle limit. `needs_totp` is set between the password
    and the second factor: such a session opens nothing else.
    """

    token_hash: str
    person_id: str
    kind: SessionKind
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    needs_totp: bool = False
    address: str | None = None
    user_agent: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OneTimeLink:
    """Lets one person set a password without the old one, once, until `expires_at`. Only the token's hash is stored."""

    token_hash: str
    person_id: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None = None


MOST_KEY_DAYS: Final = 3_650
"""For how many days a key may be made where the days are given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A service's key. It is shown once; `prefix` is its visible beginning, `key_hash` the SHA-256 of the whole.

    `scopes` are permissions with spaces between them. `per_minute` bounds its requests; None: no bound of its own.
    """

    id: str
    created_at: datetime
    name: str
    prefix: str
    key_hash: str
    scopes: str
    created_by: str
    per_minute: int | None = None
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None

    @property
    def permissions(self) -> frozenset[Permission]:
        """The scopes as permissions; those of another version of Shoplens, which mean nothing here, are left out."""
        return frozenset(permission for permission in Permission if permission in self.scopes.split())
