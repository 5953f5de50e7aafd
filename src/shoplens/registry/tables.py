"""The table of what challengers answered beside champions."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Boolean, Column, Double, ForeignKey, Index, Table

from shoplens.db.tables import ID_LENGTH, TEXT, UtcDateTime, metadata, required, string

shadow_answers: Final = Table(
    "shadow_answers",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("channel", TEXT),
    # What the sample is: a stored prediction, a photo of moderation, a product, or nothing that is stored.
    Column("prediction_id", string(ID_LENGTH), ForeignKey("predictions.id", ondelete="CASCADE")),
    Column("photo_id", string(ID_LENGTH), ForeignKey("moderation_photos.id", ondelete="CASCADE")),
    Column("product_id", string(ID_LENGTH), ForeignKey("catalogue_products.id", ondelete="CASCADE")),
    required("model", TEXT),
    required("champion", TEXT),
    required("challenger", TEXT),
    required("champion_label", TEXT),
    required("champion_score", Double),
    Column("challenger_label", TEXT),
    Column("challenger_score", Double),
    required("agrees", Boolean),
    Column("failure_code", TEXT),
    Index(None, "prediction_id"),
    Index(None, "photo_id"),
    Index(None, "product_id"),
    Index(None, "model", "champion", "challenger", "agrees", "id"),
)
