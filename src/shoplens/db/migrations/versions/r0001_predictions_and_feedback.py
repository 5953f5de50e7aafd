"""Create the tables of predictions and of feedback."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From an empty database."""
    _create_predictions()
    op.create_index("ix_predictions_channel_outcome_id", "predictions", ["channel", "outcome", "id"])
    op.create_index(
        "ix_predictions_top_label_channel_outcome_id", "predictions", ["top_label", "channel", "outcome", "id"]
    )
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("prediction_id", sa.String(26), nullable=False),
        sa.Column("verdict", sa.String(8), nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("comment", sa.Text),
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
        sa.Column("id", sa.String(26), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("model_name", sa.Text, nullable=False),
        sa.Column("model_version", sa.Text, nullable=False),
        sa.Column("labels", sa.JSON, nullable=False),
        sa.Column("top_label", sa.Text, nullable=False),
        sa.Column("top_score", sa.Double, nullable=False),
        sa.Column("outcome", sa.String(8), nullable=False),
        sa.Column("decision_label", sa.Text),
        sa.Column("decision_threshold", sa.Double),
        sa.Column("policy_version", sa.Text, nullable=False),
        sa.Column("image_format", sa.String(16), nullable=False),
        sa.Column("image_width", sa.Integer, nullable=False),
        sa.Column("image_height", sa.Integer, nullable=False),
        sa.Column("image_byte_count", sa.BigInteger, nullable=False),
        sa.Column("image_sha256", sa.String(64), nullable=False),
        sa.Column("image_phash", sa.String(16), nullable=False),
        sa.Column("keep", sa.String(16), nullable=False),
        sa.Column("image_key", sa.Text),
        sa.Column("queue_ms", sa.Double, nullable=False),
        sa.Column("pixels_ms", sa.Double, nullable=False),
        sa.Column("inference_ms", sa.Double, nullable=False),
        sa.Column("total_ms", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        sa.CheckConstraint("outcome IN ('accept', 'review', 'reject')", name=op.f("ck_predictions_outcome")),
    )
