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
    _create_monitoring_drift()
    _create_monitoring_points()
    _create_monitoring_states()
    _create_saved_views()
    _upgrade_by_hand()


def downgrade() -> None:
    """Drop them again."""
    _downgrade_by_hand()
    for name in (
        "saved_views",
        "monitoring_states",
        "monitoring_points",
        "monitoring_drift",
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


def _create_monitoring_drift() -> None:
    op.create_table(
        "monitoring_drift",
        sa.Column("begins_s", sa.BigInteger, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("model", _TEXT, nullable=False),
        sa.Column("space", _TEXT, nullable=False),
        sa.Column("profile", sa.JSON, nullable=False),
        sa.Column("findings", sa.JSON, nullable=False),
        sa.Column("strangest", sa.JSON, nullable=False),
        sa.Column("alarm", sa.Boolean, nullable=False),
        sa.Column("cpu_s", sa.Double, nullable=False),
        sa.Column("computed_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("begins_s", "channel", name="pk_monitoring_drift"),
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


def _create_saved_views() -> None:
    op.create_table(
        "saved_views",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("owner", _string(64), nullable=False),
        sa.Column("created_by", _TEXT, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("query", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_saved_views"),
        sa.UniqueConstraint("owner", "name", name="uq_saved_views_owner"),
    )


# -- by hand
def _upgrade_by_hand() -> None:
    """The file name of a prediction, and what the search and the deletion of records look rows up by.

    The share of random checks at the time of a decision.
    """
    op.add_column("predictions", sa.Column("decision_check_share", sa.Double))
    op.add_column("predictions", sa.Column("file_name", _TEXT))
    op.add_column("predictions", sa.Column("file_key", _TEXT))
    _name_files_of_items()
    op.create_index("ix_predictions_file_key_id", "predictions", ["file_key", "id"])
    op.create_index("ix_predictions_image_phash_id", "predictions", ["image_phash", "id"])
    for column in ("order_ref", "item_ref", "prediction_id"):
        op.create_index(f"ix_batch_items_{column}", "batch_items", [column])


def _name_files_of_items() -> None:
    """The names of photos that came in batches are known; those of others were not kept."""
    items = sa.table("batch_items", *map(sa.column, ("seq", "source_name", "prediction_id")))
    predictions = sa.table("predictions", *map(sa.column, ("id", "file_name", "file_key")))
    found = sa.select(items).where(items.c.prediction_id.is_not(None)).order_by(items.c.seq).limit(1_000)
    of = predictions.c.id == sa.bindparam("of")
    named = sa.update(predictions).where(of).values(file_name=sa.bindparam("name"), file_key=sa.bindparam("key"))
    connection, last = op.get_bind(), 0
    while rows := connection.execute(found.where(items.c.seq > last)).all():
        names = [(row.prediction_id, row.source_name.rpartition("/")[2][:255].strip() or None) for row in rows]
        connection.execute(named, [{"of": of, "name": name, "key": name and name.casefold()} for of, name in names])
        last = rows[-1].seq


def _downgrade_by_hand() -> None:
    for column in ("order_ref", "item_ref", "prediction_id"):
        op.drop_index(f"ix_batch_items_{column}", "batch_items")
    op.drop_index("ix_predictions_image_phash_id", "predictions")
    op.drop_index("ix_predictions_file_key_id", "predictions")
    op.drop_column("predictions", "decision_check_share")
    op.drop_column("predictions", "file_key")
    op.drop_column("predictions", "file_name")


# -- end
