"""The tables of alerts."""

from __future__ import annotations

from typing import Final

from sqlalchemy import CheckConstraint, Column, Double, Index, Integer, Table

from shoplens.db.tables import ID_LENGTH, TEXT, UtcDateTime, metadata, required, string

alert_alerts: Final = Table(
    "alert_alerts",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("rule", string(64)),
    required("subject", TEXT),
    required("severity", string(16)),
    required("summary", TEXT),
    required("since", UtcDateTime()),
    required("seen_at", UtcDateTime()),
    required("held_s", Double),
    required("clear_s", Double),
    Column("fired_at", UtcDateTime()),
    Column("resolved_at", UtcDateTime()),
    Column("notified_at", UtcDateTime()),
    required("notices", Integer),
    CheckConstraint("severity IN ('critical', 'warning')", name="severity"),
    Index(None, "resolved_at"),
)
"""An alert from its first sign to its end. A new one of the same rule and subject gets a row of its own."""

alert_silences: Final = Table(
    "alert_silences",
    metadata,
    Column("key", TEXT, primary_key=True),
    required("until", UtcDateTime()),
    required("by", TEXT),
    required("created_at", UtcDateTime()),
)

alert_turns: Final = Table(
    "alert_turns",
    metadata,
    Column("name", string(32), primary_key=True),
    # The process that looks now; "" for none.
    required("owner", string(ID_LENGTH)),
    required("lease_until", UtcDateTime()),
    required("looked_at", UtcDateTime()),
)
"""Which process looks whether something is wrong, and when one last did."""
