"""Create the tables of predictions and of feedback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _string(length: int) -> sa.types.TypeEngine[str]:
    """Compared byte by byte everywhere, whatever language a PostgreSQL speaks."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """From an empty database."""
    _create_predictions()
    op.create_index("ix_predictions_channel_outcome_id", "predictions", ["channel", "outcome", "id"])
    op.create_index(
        "ix_predictions_top_label_channel_outcome_id", "predictions", ["top_label", "channel", "outcome", "id"]
    )
    op.create_table(
        "feedback",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("prediction_id", _string(26), nullable=False),
        sa.Column("verdict", _string(8), nullable=False),
        sa.Column("label", _TEXT),
        sa.Column("comment", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["predictions.id"], name="fk_feedback_prediction_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_feedback_prediction_id", "feedback", ["prediction_id"])


def downgrade() -> None:
    """To an empty database: every record is lost."""
    op.drop_table("feedback")
    op.drop_table("predictions")


def _create_predictions() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("model_name", _TEXT, nullable=False),
        sa.Column("model_version", _TEXT, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("top_label", _TEXT, nullable=False),
        sa.Column("top_score", sa.Double, nullable=False),
        sa.Column("outcome", _string(8), nullable=False),
        sa.Column("decision_label", _TEXT),
        sa.Column("decision_threshold", sa.Double),
        sa.Column("policy_version", _TEXT, nullable=False),
        sa.Column("image_format", _string(16), nullable=False),
        sa.Column("image_width", sa.Integer, nullable=False),
        sa.Column("image_height", sa.Integer, nullable=False),
        sa.Column("image_byte_count", sa.BigInteger, nullable=False),
        sa.Column("image_sha256", _string(64), nullable=False),
        sa.Column("image_phash", _string(16), nullable=False),
        sa.Column("keep", _string(16), nullable=False),
        sa.Column("image_key", _TEXT),
        sa.Column("queue_ms", sa.Double, nullable=False),
        sa.Column("pixels_ms", sa.Double, nullable=False),
        sa.Column("inference_ms", sa.Double, nullable=False),
        sa.Column("total_ms", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        sa.CheckConstraint("outcome IN ('accept', 'review', 'reject')", name=op.f("ck_predictions_outcome")),
    )
