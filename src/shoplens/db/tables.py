"""The tables as they are after the newest migration; the migrations in `migrations/` lead here step by step."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
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
)

from shoplens.domain.ids import ID_LENGTH

metadata: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
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


def _required(name: str, kind: Any, *more: Any) -> Column[Any]:
    return Column(name, kind, *more, nullable=False)


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
