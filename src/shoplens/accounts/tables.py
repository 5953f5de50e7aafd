"""The tables of people, sessions, keys and the audit log."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, Boolean, CheckConstraint, Column, ForeignKey, Index, Integer, Table, UniqueConstraint

from shoplens.db.tables import ID_LENGTH, SEQUENCE, TEXT, UtcDateTime, metadata, required, string

people: Final = Table(
    "people",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("name", string(100), unique=True),
    required("role", string(16)),
    Column("email", TEXT),
    Column("password_hash", TEXT),
    Column("password_changed_at", UtcDateTime()),
    Column("totp_secret", TEXT),
    Column("totp_confirmed_at", UtcDateTime()),
    Column("totp_step", Integer),
    Column("issuer", TEXT),
    Column("subject", TEXT),
    required("failed_sign_ins", Integer),
    Column("locked_until", UtcDateTime()),
    Column("last_sign_in_at", UtcDateTime()),
    Column("disabled_at", UtcDateTime()),
    UniqueConstraint("issuer", "subject"),
    CheckConstraint("role IN ('admin', 'moderator', 'clerk', 'merchandiser', 'viewer')", name="role"),
)

sessions: Final = Table(
    "sessions",
    metadata,
    Column("token_hash", string(64), primary_key=True),
    required("person_id", string(ID_LENGTH), ForeignKey("people.id", ondelete="CASCADE")),
    required("kind", string(8)),
    required("created_at", UtcDateTime()),
    required("last_used_at", UtcDateTime()),
    required("expires_at", UtcDateTime()),
    required("needs_totp", Boolean),
    Column("address", TEXT),
    Column("user_agent", TEXT),
    Index(None, "person_id"),
    Index(None, "expires_at"),
)

one_time_links: Final = Table(
    "one_time_links",
    metadata,
    Column("token_hash", string(64), primary_key=True),
    required("person_id", string(ID_LENGTH), ForeignKey("people.id", ondelete="CASCADE")),
    required("created_at", UtcDateTime()),
    required("expires_at", UtcDateTime()),
    Column("used_at", UtcDateTime()),
    Index(None, "person_id"),
)

recovery_codes: Final = Table(
    "recovery_codes",
    metadata,
    Column("code_hash", string(64), primary_key=True),
    required("person_id", string(ID_LENGTH), ForeignKey("people.id", ondelete="CASCADE")),
    Index(None, "person_id"),
)
"""What opens a session in place of a code of the second factor, once: a used one is deleted."""

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("name", string(100)),
    required("prefix", string(16)),
    required("key_hash", string(64), unique=True),
    required("scopes", TEXT),
    required("created_by", TEXT),
    Column("per_minute", Integer),
    Column("expires_at", UtcDateTime()),
    Column("last_used_at", UtcDateTime()),
    Column("revoked_at", UtcDateTime()),
)

audit_log: Final = Table(
    "audit_log",
    metadata,
    Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    required("at", UtcDateTime()),
    required("actor_kind", string(8)),
    required("actor_id", TEXT),
    required("actor_name", TEXT),
    required("action", string(64)),
    Column("target", TEXT),
    required("details", JSON),
    Column("address", TEXT),
    Column("request_id", string(64)),
    # SHA-256 over the row and the hash of the row before it: what was changed or removed in between shows.
    required("previous_hash", string(64)),
    required("hash", string(64), unique=True),
    Index(None, "actor_id", "seq"),
    Index(None, "action", "seq"),
    sqlite_autoincrement=True,
)
"""Append-only: nothing in the program updates or deletes a row."""
