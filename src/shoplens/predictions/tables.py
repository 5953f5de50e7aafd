"""The tables of predictions and of feedback.

A column is called as the field of the entity: `decision.label` is `decision_label`.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from shoplens.db.tables import ID_LENGTH, TEXT, UtcDateTime, metadata, required, string
from shoplens.serving.engine import LabelScore


class LabelScores(TypeDecorator[tuple[LabelScore, ...]]):
    """Labels with their scores, best first; stored as JSON `[[label, score], ...]`."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[LabelScore, ...] | None, dialect: Dialect) -> Any:
        """Pairs of label and score."""
        return None if value is None else [(entry.label, entry.score) for entry in value]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[LabelScore, ...] | None:
        """The labels as they were stored."""
        return None if value is None else tuple(LabelScore(label, score) for label, score in value)


_HAS_PHOTO: Final = text("image_key IS NOT NULL")

predictions: Final = Table(
    "predictions",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("channel", TEXT),
    required("model_name", TEXT),
    required("model_version", TEXT),
    required("labels", LabelScores()),
    required("top_label", TEXT),
    required("top_score", Double),
    required("decision_outcome", string(8)),
    Column("decision_label", TEXT),
    Column("decision_threshold", Double),
    required("decision_policy_version", TEXT),
    Column("decision_check_share", Double),
    required("image_format", string(16)),
    required("image_width", Integer),
    required("image_height", Integer),
    required("image_byte_count", BigInteger),
    required("image_sha256", string(64)),
    required("image_phash", string(16)),
    required("keep", string(16)),
    Column("image_key", TEXT),
    required("timing_queue_ms", Double),
    required("timing_pixels_ms", Double),
    required("timing_inference_ms", Double),
    required("timing_total_ms", Double),
    Column("text", TEXT),
    Column("file_name", TEXT),
    # The same as it is searched for: its beginning, in any case (`entities.key_of`).
    Column("file_key", TEXT),
    # When retention began to delete the photo; `image_key` is NULL once its files are gone.
    Column("photo_deleted_at", UtcDateTime()),
    # Paging merges one index range per outcome (`repository`), so a row with any other outcome would never be shown.
    CheckConstraint("decision_outcome IN ('accept', 'review', 'reject')", name="outcome"),
    # With the primary key these two serve every combination of filters: docs/explanation/records.md.
    Index(None, "channel", "decision_outcome", "id"),
    Index(None, "top_label", "channel", "decision_outcome", "id"),
    Index(None, "file_key", "id"),
    Index(None, "image_phash", "id"),
    # For retention: what still has a photo, oldest first.
    Index("ix_predictions_photos", "channel", "id", sqlite_where=_HAS_PHOTO, postgresql_where=_HAS_PHOTO),
)

feedback: Final = Table(
    "feedback",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("prediction_id", string(ID_LENGTH), ForeignKey("predictions.id", ondelete="CASCADE")),
    required("verdict", string(8)),
    Column("label", TEXT),
    Column("comment", TEXT),
    # A category that the model does not have. It is never a label, so no training uses it.
    Column("proposed", TEXT),
    Column("withdrawn_at", UtcDateTime()),
    Index(None, "prediction_id"),
)

saved_views: Final = Table(
    "saved_views",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    # The id of the person whose view it is; "" for one that all see.
    required("owner", string(64)),
    required("created_by", TEXT),
    required("name", TEXT),
    # The query string of the page Records, in its one normal form.
    required("query", TEXT),
    UniqueConstraint("owner", "name"),
)
