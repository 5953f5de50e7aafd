"""Create the tables of returned items and of the runs that work through them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _string(length: int) -> sa.types.TypeEngine[str]:
    """Compared byte by byte everywhere, whatever language a PostgreSQL speaks."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """From predictions and feedback alone."""
    _create_runs()
    _create_items()
    not_duplicate, moving = sa.text("duplicate_of IS NULL"), sa.text("target_key IS NOT NULL")
    op.create_index(
        "uq_return_items_content", "return_items", ["sha256"], unique=True,
        sqlite_where=not_duplicate, postgresql_where=not_duplicate,
    )  # fmt: skip
    op.create_index("uq_return_items_arrival", "return_items", ["sha256", "source_name"], unique=True)
    op.create_index("ix_return_items_source_name", "return_items", ["source_name"])
    op.create_index("ix_return_items_state_attempts_seq", "return_items", ["state", "attempts", "seq"])
    op.create_index("ix_return_items_run_id_state_label_seq", "return_items", ["run_id", "state", "label", "seq"])
    op.create_index("ix_return_items_run_id_work_ms", "return_items", ["run_id", "work_ms"])
    op.create_index("ix_return_items_moving", "return_items", ["seq"], sqlite_where=moving, postgresql_where=moving)


def downgrade() -> None:
    """Every returned item and every run is lost; their photos stay in the store."""
    op.drop_table("return_items")
    op.drop_table("return_runs")


def _create_runs() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "return_runs",
        sa.Column("id", _string(26), nullable=False),
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
        sa.PrimaryKeyConstraint("id", name="pk_return_runs"),
        sa.UniqueConstraint("active", name="uq_return_runs_active"),
        sa.CheckConstraint("state IN ('requested', 'running', 'finished', 'failed')", name="ck_return_runs_state"),
    )


def _create_items() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "return_items",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer, "sqlite"), autoincrement=True, nullable=False),
        sa.Column("id", _string(26), nullable=False),
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
        sa.PrimaryKeyConstraint("seq", name="pk_return_items"),
        sa.UniqueConstraint("id", name="uq_return_items_id"),
        sa.ForeignKeyConstraint(["run_id"], ["return_runs.id"], name="fk_return_items_run_id"),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["predictions.id"], name="fk_return_items_prediction_id", ondelete="SET NULL"
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'working', 'done', 'doubtful', 'quarantined', 'duplicate')",
            name="ck_return_items_state",
        ),
        sqlite_autoincrement=True,
    )
