"""Create all tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _string(length: int) -> sa.types.TypeEngine[str]:
    """Compared byte by byte, with every locale of PostgreSQL."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """From an empty database."""
    _create_predictions()
    op.create_index("ix_predictions_channel_decision_outcome_id", "predictions", ["channel", "decision_outcome", "id"])
    op.create_index(
        "ix_predictions_top_label_channel_decision_outcome_id",
        "predictions",
        ["top_label", "channel", "decision_outcome", "id"],
    )
    op.create_table(
        "feedback",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("prediction_id", _string(26), nullable=False),
        sa.Column("verdict", _string(8), nullable=False),
        sa.Column("label", _TEXT),
        sa.Column("comment", _TEXT),
        sa.Column("proposed", _TEXT),
        sa.Column("withdrawn_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["predictions.id"], name="fk_feedback_prediction_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_feedback_prediction_id", "feedback", ["prediction_id"])
    _create_runs()
    _create_items()
    not_retried, moving = sa.text("retried_as IS NULL"), sa.text("target_key IS NOT NULL")
    not_duplicate = sa.text("duplicate_of IS NULL AND retried_as IS NULL")
    op.create_index(
        "uq_batch_items_content", "batch_items", ["channel", "sha256"], unique=True,
        sqlite_where=not_duplicate, postgresql_where=not_duplicate,
    )  # fmt: skip
    op.create_index(
        "uq_batch_items_arrival", "batch_items", ["channel", "sha256", "source_name"], unique=True,
        sqlite_where=not_retried, postgresql_where=not_retried,
    )  # fmt: skip
    op.create_index("ix_batch_items_channel_source_name", "batch_items", ["channel", "source_name"])
    op.create_index("ix_batch_items_channel_state_attempts_seq", "batch_items", ["channel", "state", "attempts", "seq"])
    op.create_index("ix_batch_items_run_id_state_label_seq", "batch_items", ["run_id", "state", "label", "seq"])
    op.create_index("ix_batch_items_run_id_work_ms", "batch_items", ["run_id", "work_ms"])
    op.create_index("ix_batch_items_run_id_answer", "batch_items", ["run_id", "answer"])
    op.create_table(
        "batch_looks",
        sa.Column("item_id", _string(26), nullable=False),
        sa.Column("browser", _string(64), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True)),
        sa.Column("skipped_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("item_id", "browser", name="pk_batch_looks"),
    )
    op.create_index("ix_batch_looks_browser", "batch_looks", ["browser"])
    op.create_index(
        "ix_batch_items_moving", "batch_items", ["channel", "seq"], sqlite_where=moving, postgresql_where=moving
    )


def downgrade() -> None:
    """To an empty database: every record is lost."""
    op.drop_table("batch_looks")
    op.drop_table("batch_items")
    op.drop_table("batch_runs")
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
        sa.Column("decision_outcome", _string(8), nullable=False),
        sa.Column("decision_label", _TEXT),
        sa.Column("decision_threshold", sa.Double),
        sa.Column("decision_policy_version", _TEXT, nullable=False),
        sa.Column("image_format", _string(16), nullable=False),
        sa.Column("image_width", sa.Integer, nullable=False),
        sa.Column("image_height", sa.Integer, nullable=False),
        sa.Column("image_byte_count", sa.BigInteger, nullable=False),
        sa.Column("image_sha256", _string(64), nullable=False),
        sa.Column("image_phash", _string(16), nullable=False),
        sa.Column("keep", _string(16), nullable=False),
        sa.Column("image_key", _TEXT),
        sa.Column("timing_queue_ms", sa.Double, nullable=False),
        sa.Column("timing_pixels_ms", sa.Double, nullable=False),
        sa.Column("timing_inference_ms", sa.Double, nullable=False),
        sa.Column("timing_total_ms", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_predictions"),
        sa.CheckConstraint("decision_outcome IN ('accept', 'review', 'reject')", name=op.f("ck_predictions_outcome")),
    )


def _create_runs() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "batch_runs",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("requested_by", _TEXT, nullable=False),
        sa.Column("state", _string(12), nullable=False),
        sa.Column("active", sa.Integer),
        sa.Column("bound", sa.BigInteger, nullable=False),
        sa.Column("planned", sa.Integer, nullable=False),
        sa.Column("model_name", _TEXT),
        sa.Column("model_version", _TEXT),
        sa.Column("policy_version", _TEXT),
        sa.Column("owner", _string(26)),
        sa.Column("host", _TEXT),
        sa.Column("pid", sa.Integer),
        sa.Column("process", _TEXT),
        sa.Column("heartbeat", sa.BigInteger, nullable=False),
        sa.Column("started_at", moment),
        sa.Column("heartbeat_at", moment),
        sa.Column("last_item_at", moment),
        sa.Column("finished_at", moment),
        sa.Column("stalled", sa.Boolean, nullable=False),
        sa.Column("failure", _TEXT),
        sa.Column("report_key", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_batch_runs"),
        sa.UniqueConstraint("channel", "active", name="uq_batch_runs_channel"),
        sa.CheckConstraint("state IN ('requested', 'running', 'finished')", name="ck_batch_runs_state"),
    )


def _create_items() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "batch_items",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("received_at", moment, nullable=False),
        sa.Column("source_name", _TEXT, nullable=False),
        sa.Column("source_stamp", _TEXT),
        sa.Column("item_ref", _TEXT),
        sa.Column("order_ref", _TEXT),
        sa.Column("reason", _TEXT),
        sa.Column("sha256", _string(64), nullable=False),
        sa.Column("byte_count", sa.BigInteger, nullable=False),
        sa.Column("state", _string(12), nullable=False),
        sa.Column("key", _TEXT),
        sa.Column("target_key", _TEXT),
        sa.Column("thumbnail_key", _TEXT),
        sa.Column("duplicate_of", _string(26)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("run_id", _string(26)),
        sa.Column("lease_owner", _string(26)),
        sa.Column("prediction_id", _string(26)),
        sa.Column("predicted", _TEXT),
        sa.Column("score", sa.Double),
        sa.Column("label", _TEXT),
        sa.Column("corrected_at", moment),
        sa.Column("finished_at", moment),
        sa.Column("work_ms", sa.Double),
        sa.Column("failure_code", _TEXT),
        sa.Column("failure", _TEXT),
        sa.Column("answer", _string(16)),
        sa.Column("proposed", _TEXT),
        sa.Column("answered_by", _string(64)),
        sa.Column("reviewed_from", _string(12)),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("retried_as", _string(26)),
        sa.PrimaryKeyConstraint("seq", name="pk_batch_items"),
        sa.UniqueConstraint("id", name="uq_batch_items_id"),
        sa.ForeignKeyConstraint(["run_id"], ["batch_runs.id"], name="fk_batch_items_run_id"),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["predictions.id"], name="fk_batch_items_prediction_id", ondelete="SET NULL"
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'processing', 'done', 'needs_review', 'quarantined', 'duplicate', 'dismissed')",
            name="ck_batch_items_state",
        ),
        sqlite_autoincrement=True,
    )
