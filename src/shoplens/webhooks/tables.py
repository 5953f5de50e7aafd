"""The tables of webhook endpoints, events and deliveries."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, CheckConstraint, Column, ForeignKey, Index, Integer, Table, UniqueConstraint

from shoplens.db.tables import ID_LENGTH, TEXT, UtcDateTime, metadata, required, string

webhook_endpoints: Final = Table(
    "webhook_endpoints",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("url", TEXT),
    required("secret", TEXT),
    required("events", TEXT),
    Column("disabled_at", UtcDateTime()),
)

webhook_events: Final = Table(
    "webhook_events",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("at", UtcDateTime()),
    required("type", string(64)),
    required("data", JSON),
    # Of the request or run in which it happened; NULL without tracing.
    Column("traceparent", string(55)),
)

webhook_deliveries: Final = Table(
    "webhook_deliveries",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("event_id", string(ID_LENGTH), ForeignKey("webhook_events.id", ondelete="CASCADE")),
    required("endpoint_id", string(ID_LENGTH), ForeignKey("webhook_endpoints.id", ondelete="CASCADE")),
    required("state", string(16)),
    required("attempts", Integer),
    required("next_at", UtcDateTime()),
    Column("lease_until", UtcDateTime()),
    Column("last_status", Integer),
    Column("last_error", TEXT),
    Column("finished_at", UtcDateTime()),
    UniqueConstraint("event_id", "endpoint_id"),
    CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="state"),
    Index(None, "state", "next_at"),
    Index(None, "endpoint_id", "id"),
)
