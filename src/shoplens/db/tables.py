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
    UniqueConstraint,
    text,
)
from sqlalchemy.types import TypeEngine

from shoplens.db.ids import ID_LENGTH

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


def _string(length: int) -> TypeEngine[str]:
    """Compared byte by byte everywhere, as SQLite does, whatever language a PostgreSQL speaks."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


_TEXT: Final = Text().with_variant(Text(collation="C"), "postgresql")


def _required(name: str, kind: Any, *more: Any, unique: bool = False) -> Column[Any]:
    return Column(name, kind, *more, nullable=False, unique=unique)


predictions: Final = Table(
    "predictions",
    metadata,
    Column("id", _string(ID_LENGTH), primary_key=True),
    _required("created_at", UtcDateTime()),
    _required("channel", _TEXT),
    _required("model_name", _TEXT),
    _required("model_version", _TEXT),
    _required("labels", JSON),
    _required("top_label", _TEXT),
    _required("top_score", Double),
    _required("outcome", _string(8)),
    Column("decision_label", _TEXT),
    Column("decision_threshold", Double),
    _required("policy_version", _TEXT),
    _required("image_format", _string(16)),
    _required("image_width", Integer),
    _required("image_height", Integer),
    _required("image_byte_count", BigInteger),
    _required("image_sha256", _string(64)),
    _required("image_phash", _string(16)),
    _required("keep", _string(16)),
    Column("image_key", _TEXT),
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
    Column("id", _string(ID_LENGTH), primary_key=True),
    _required("created_at", UtcDateTime()),
    _required("prediction_id", _string(ID_LENGTH), ForeignKey("predictions.id", ondelete="CASCADE")),
    _required("verdict", _string(8)),
    Column("label", _TEXT),
    Column("comment", _TEXT),
    Index(None, "prediction_id"),
)

_NOT_DUPLICATE: Final = text("duplicate_of IS NULL")
_MOVING: Final = text("target_key IS NOT NULL")
_SEQUENCE: Final = BigInteger().with_variant(Integer, "sqlite")
"""On SQLite only a plain INTEGER primary key counts by itself."""

batch_runs: Final = Table(
    "batch_runs",
    metadata,
    Column("id", _string(ID_LENGTH), primary_key=True),
    _required("channel", _TEXT),
    _required("created_at", UtcDateTime()),
    _required("requested_by", _TEXT),
    _required("state", _string(12)),
    # 1 while it is requested or running, else NULL: so the database itself allows only one such run per channel.
    Column("active", Integer),
    _required("bound", BigInteger),
    _required("planned", Integer),
    Column("model_name", _TEXT),
    Column("model_version", _TEXT),
    Column("policy_version", _TEXT),
    Column("owner", _string(ID_LENGTH)),
    Column("host", _TEXT),
    Column("pid", Integer),
    # What tells this process from a later one with its number: `batch/process.py` makes and reads it.
    Column("process", _TEXT),
    _required("heartbeat", BigInteger),
    Column("started_at", UtcDateTime()),
    Column("heartbeat_at", UtcDateTime()),
    Column("last_item_at", UtcDateTime()),
    Column("finished_at", UtcDateTime()),
    _required("stalled", Boolean),
    Column("failure", _TEXT),
    Column("report_key", _TEXT),
    UniqueConstraint("channel", "active"),
    CheckConstraint("state IN ('requested', 'running', 'finished')", name="state"),
)

batch_items: Final = Table(
    "batch_items",
    metadata,
    Column("seq", _SEQUENCE, primary_key=True, autoincrement=True),
    _required("id", _string(ID_LENGTH), unique=True),
    _required("channel", _TEXT),
    _required("received_at", UtcDateTime()),
    _required("source_name", _TEXT),
    Column("source_stamp", _TEXT),
    Column("item_ref", _TEXT),
    Column("order_ref", _TEXT),
    Column("reason", _TEXT),
    _required("sha256", _string(64)),
    _required("byte_count", BigInteger),
    _required("state", _string(12)),
    Column("key", _TEXT),
    Column("target_key", _TEXT),
    Column("thumbnail_key", _TEXT),
    Column("duplicate_of", _string(ID_LENGTH)),
    _required("attempts", Integer),
    Column("run_id", _string(ID_LENGTH), ForeignKey("batch_runs.id")),
    Column("lease_owner", _string(ID_LENGTH)),
    Column("prediction_id", _string(ID_LENGTH), ForeignKey("predictions.id", ondelete="SET NULL")),
    Column("predicted", _TEXT),
    Column("score", Double),
    # What a person said, else what was predicted: the category that everybody sees and filters by.
    Column("label", _TEXT),
    Column("corrected_at", UtcDateTime()),
    Column("finished_at", UtcDateTime()),
    Column("work_ms", Double),
    Column("failure_code", _TEXT),
    Column("failure", _TEXT),
    CheckConstraint(
        "state IN ('waiting', 'processing', 'done', 'needs_review', 'quarantined', 'duplicate')", name="state"
    ),
    # The same content is one item, whoever brings it and however many at once; later files only point to it.
    Index(
        "uq_batch_items_content",
        "channel",
        "sha256",
        unique=True,
        sqlite_where=_NOT_DUPLICATE,
        postgresql_where=_NOT_DUPLICATE,
    ),
    Index("uq_batch_items_arrival", "channel", "sha256", "source_name", unique=True),
    Index(None, "channel", "source_name"),
    Index(None, "channel", "state", "attempts", "seq"),
    Index(None, "run_id", "state", "label", "seq"),
    Index(None, "run_id", "work_ms"),
    # Small: only while photos are on their way to where they belong.
    Index("ix_batch_items_moving", "channel", "seq", sqlite_where=_MOVING, postgresql_where=_MOVING),
    sqlite_autoincrement=True,
)
