"""The tables as they are after the newest migration; the migrations in `migrations/` lead here step by step."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

from shoplens.domain.ids import ID_LENGTH

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """A moment: aware in Python, UTC in the database. SQLite keeps no zone, so it is dropped and put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware datetimes only: a naive one would silently mean another moment on another machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time to store must carry its zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Always UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _required(name: str, kind: Any, *more: Any, unique: bool = False) -> Column[Any]:
    return Column(name, kind, *more, nullable=False, unique=unique)


predictions: Final = Table(
    "predictions",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    _required("created_at", UtcDateTime()),
    _required("channel", Text),
    _required("model_name", Text),
    _required("model_version", Text),
    _required("labels", JSON),
    _required("top_label", Text),
    _required("top_score", Double),
    _required("outcome", String(8)),
    Column("decision_label", Text),
    Column("decision_threshold", Double),
    _required("policy_version", Text),
    _required("image_format", String(16)),
    _required("image_width", Integer),
    _required("image_height", Integer),
    _required("image_byte_count", BigInteger),
    _required("image_sha256", String(64)),
    _required("image_phash", String(16)),
    _required("keep", String(16)),
    Column("image_key", Text),
    _required("queue_ms", Double),
    _required("pixels_ms", Double),
    _required("inference_ms", Double),
    _required("total_ms", Double),
    # Paging merges one index range per outcome (`record_queries`), so an outcome outside this list would be unseen.
    CheckConstraint("outcome IN ('accept', 'review', 'reject')", name="outcome"),
    # With the primary key these two serve every combination of filters; docs/explanation/records.md shows how.
    Index(None, "channel", "outcome", "id"),
    Index(None, "top_label", "channel", "outcome", "id"),
)

feedback: Final = Table(
    "feedback",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    _required("created_at", UtcDateTime()),
    _required("prediction_id", String(ID_LENGTH), ForeignKey("predictions.id", ondelete="CASCADE")),
    _required("verdict", String(8)),
    Column("label", Text),
    Column("comment", Text),
    Index(None, "prediction_id"),
)

_NOT_DUPLICATE: Final = text("duplicate_of IS NULL")
_MOVING: Final = text("target_key IS NOT NULL")
_SEQUENCE: Final = BigInteger().with_variant(Integer, "sqlite")
"""On SQLite only a plain INTEGER primary key counts by itself."""

return_runs: Final = Table(
    "return_runs",
    metadata,
    Column("id", String(ID_LENGTH), primary_key=True),
    _required("created_at", UtcDateTime()),
    _required("requested_by", Text),
    _required("state", String(12)),
    # 1 while it is requested or running, else NULL: so the database itself allows only one such run.
    Column("active", Integer, unique=True),
    _required("bound", BigInteger),
    _required("planned", Integer),
    Column("model_name", Text),
    Column("model_version", Text),
    Column("policy_version", Text),
    Column("owner", String(ID_LENGTH)),
    Column("host", Text),
    Column("pid", Integer),
    # What tells this process from a later one with its number: `services/returns/ownership.py` makes and reads it.
    Column("process", Text),
    _required("heartbeat", BigInteger),
    Column("started_at", UtcDateTime()),
    Column("heartbeat_at", UtcDateTime()),
    Column("last_item_at", UtcDateTime()),
    Column("finished_at", UtcDateTime()),
    _required("stalled", Boolean),
    Column("failure", Text),
    Column("report_key", Text),
    CheckConstraint("state IN ('requested', 'running', 'finished', 'failed')", name="state"),
)

return_items: Final = Table(
    "return_items",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
    _required("id", String(ID_LENGTH), unique=True),
    _required("received_at", UtcDateTime()),
    _required("source_name", Text),
    Column("source_stamp", Text),
    Column("item_ref", Text),
    Column("order_ref", Text),
    Column("reason", Text),
    _required("sha256", String(64)),
    _required("byte_count", BigInteger),
    _required("state", String(12)),
    Column("key", Text),
    Column("target_key", Text),
    Column("thumbnail_key", Text),
    Column("duplicate_of", String(ID_LENGTH)),
    _required("attempts", Integer),
    Column("run_id", String(ID_LENGTH), ForeignKey("return_runs.id")),
    Column("lease_owner", String(ID_LENGTH)),
    Column("prediction_id", String(ID_LENGTH), ForeignKey("predictions.id", ondelete="SET NULL")),
    Column("predicted", Text),
    Column("score", Double),
    # What a person said, else what was predicted: the category that everybody sees and filters by.
    Column("label", Text),
    Column("corrected_at", UtcDateTime()),
    Column("finished_at", UtcDateTime()),
    Column("work_ms", Double),
    Column("failure_code", Text),
    Column("failure", Text),
    CheckConstraint("state IN ('waiting', 'working', 'done', 'doubtful', 'quarantined', 'duplicate')", name="state"),
    # The same content is one item, whoever brings it and however many at once; later files only point to it.
    Index(
        "uq_return_items_content", "sha256", unique=True, sqlite_where=_NOT_DUPLICATE, postgresql_where=_NOT_DUPLICATE
    ),
    Index("uq_return_items_arrival", "sha256", "source_name", unique=True),
    Index(None, "source_name"),
    Index(None, "state", "attempts", "seq"),
    Index(None, "run_id", "state", "label", "seq"),
    Index(None, "run_id", "work_ms"),
    # Small: only while photos are on their way to where they belong.
    Index("ix_return_items_moving", "seq", sqlite_where=_MOVING, postgresql_where=_MOVING),
    sqlite_autoincrement=True,
)
