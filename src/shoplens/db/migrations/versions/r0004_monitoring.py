"""Create the tables of monitoring."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _string(length: int) -> sa.types.TypeEngine[str]:
    """Compared byte by byte, with every locale of PostgreSQL."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_MOMENT = sa.DateTime(timezone=True)
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add them to those of 0003."""
    _create_monitoring_days()
    _create_monitoring_points()
    _create_monitoring_states()


def downgrade() -> None:
    """Drop them again."""
    for name in (
        "monitoring_states",
        "monitoring_points",
        "monitoring_days",
    ):
        op.drop_table(name)


def _create_monitoring_days() -> None:
    op.create_table(
        "monitoring_days",
        sa.Column("begins_s", sa.BigInteger, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("predictions", sa.Integer, nullable=False),
        sa.Column("accepted", sa.Integer, nullable=False),
        sa.Column("to_review", sa.Integer, nullable=False),
        sa.Column("rejected", sa.Integer, nullable=False),
        sa.Column("confirmed", sa.Integer, nullable=False),
        sa.Column("corrected", sa.Integer, nullable=False),
        sa.Column("counted_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("begins_s", "channel", name="pk_monitoring_days"),
    )


def _create_monitoring_points() -> None:
    op.create_table(
        "monitoring_points",
        sa.Column("step_s", sa.Integer, nullable=False),
        sa.Column("begins_s", sa.BigInteger, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("model", _TEXT, nullable=False),
        sa.Column("answered", sa.Integer, nullable=False),
        sa.Column("accepted", sa.Integer, nullable=False),
        sa.Column("to_review", sa.Integer, nullable=False),
        sa.Column("rejected", sa.Integer, nullable=False),
        sa.Column("refused", sa.Integer, nullable=False),
        sa.Column("busy", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("latency_sum_s", sa.Double, nullable=False),
        sa.Column("latency_00", sa.Integer, nullable=False),
        sa.Column("latency_01", sa.Integer, nullable=False),
        sa.Column("latency_02", sa.Integer, nullable=False),
        sa.Column("latency_03", sa.Integer, nullable=False),
        sa.Column("latency_04", sa.Integer, nullable=False),
        sa.Column("latency_05", sa.Integer, nullable=False),
        sa.Column("latency_06", sa.Integer, nullable=False),
        sa.Column("latency_07", sa.Integer, nullable=False),
        sa.Column("latency_08", sa.Integer, nullable=False),
        sa.Column("latency_09", sa.Integer, nullable=False),
        sa.Column("latency_10", sa.Integer, nullable=False),
        sa.Column("latency_11", sa.Integer, nullable=False),
        sa.Column("latency_12", sa.Integer, nullable=False),
        sa.Column("latency_13", sa.Integer, nullable=False),
        sa.Column("latency_14", sa.Integer, nullable=False),
        sa.Column("latency_15", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("step_s", "begins_s", "channel", "model", name="pk_monitoring_points"),
    )


def _create_monitoring_states() -> None:
    op.create_table(
        "monitoring_states",
        sa.Column("step_s", sa.Integer, nullable=False),
        sa.Column("begins_s", sa.BigInteger, nullable=False),
        sa.Column("watched", sa.Integer, nullable=False),
        sa.Column("queue", sa.Integer),
        sa.Column("workers", sa.Integer),
        sa.Column("storage_bytes", sa.BigInteger),
        sa.Column("database_bytes", sa.BigInteger),
        sa.Column("disk_free_bytes", sa.BigInteger),
        sa.Column("disk_total_bytes", sa.BigInteger),
        sa.PrimaryKeyConstraint("step_s", "begins_s", name="pk_monitoring_states"),
    )
