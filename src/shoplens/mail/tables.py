"""The table of mails."""

from __future__ import annotations

from typing import Final

from sqlalchemy import CheckConstraint, Column, Index, Integer, LargeBinary, Table, UniqueConstraint

from shoplens.db.tables import ID_LENGTH, TEXT, UtcDateTime, metadata, required, string

mail_messages: Final = Table(
    "mail_messages",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("kind", string(16)),
    required("about", string(160)),
    required("recipient", string(320)),
    required("subject", TEXT),
    # NULL once it was sent.
    Column("content", LargeBinary),
    required("state", string(16)),
    required("attempts", Integer),
    required("next_at", UtcDateTime()),
    Column("lease_until", UtcDateTime()),
    Column("last_error", TEXT),
    Column("finished_at", UtcDateTime()),
    UniqueConstraint("about", "recipient"),
    CheckConstraint("state IN ('pending', 'sent', 'dead')", name="state"),
    Index(None, "state", "next_at"),
)
