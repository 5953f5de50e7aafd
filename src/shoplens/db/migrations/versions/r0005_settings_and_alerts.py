"""Create the tables of edited settings and of alerts."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _string(length: int) -> sa.types.TypeEngine[str]:
    """Compared byte by byte, with every locale of PostgreSQL."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_MOMENT = sa.DateTime(timezone=True)
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add them to those of 0004."""
    _create_alert_alerts()
    _create_alert_silences()
    _create_alert_turns()
    _create_mail_messages()
    _create_settings_thresholds()
    _upgrade_by_hand()


def downgrade() -> None:
    """Drop them again."""
    _downgrade_by_hand()
    for name in (
        "settings_thresholds",
        "mail_messages",
        "alert_turns",
        "alert_silences",
        "alert_alerts",
    ):
        op.drop_table(name)


def _create_alert_alerts() -> None:
    op.create_table(
        "alert_alerts",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("rule", _string(64), nullable=False),
        sa.Column("subject", _TEXT, nullable=False),
        sa.Column("severity", _string(16), nullable=False),
        sa.Column("summary", _TEXT, nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("seen_at", _MOMENT, nullable=False),
        sa.Column("held_s", sa.Double, nullable=False),
        sa.Column("clear_s", sa.Double, nullable=False),
        sa.Column("fired_at", _MOMENT),
        sa.Column("resolved_at", _MOMENT),
        sa.Column("notified_at", _MOMENT),
        sa.Column("notices", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alert_alerts"),
        sa.CheckConstraint("severity IN ('critical', 'warning')", name="ck_alert_alerts_severity"),
    )
    op.create_index("ix_alert_alerts_resolved_at", "alert_alerts", ["resolved_at"])


def _create_alert_silences() -> None:
    op.create_table(
        "alert_silences",
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("until", _MOMENT, nullable=False),
        sa.Column("by", _TEXT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_alert_silences"),
    )


def _create_alert_turns() -> None:
    op.create_table(
        "alert_turns",
        sa.Column("name", _string(32), nullable=False),
        sa.Column("owner", _string(26), nullable=False),
        sa.Column("lease_until", _MOMENT, nullable=False),
        sa.Column("looked_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_alert_turns"),
    )


def _create_mail_messages() -> None:
    op.create_table(
        "mail_messages",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("kind", _string(16), nullable=False),
        sa.Column("about", _string(160), nullable=False),
        sa.Column("recipient", _string(320), nullable=False),
        sa.Column("subject", _TEXT, nullable=False),
        sa.Column("content", sa.LargeBinary),
        sa.Column("state", _string(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", _MOMENT, nullable=False),
        sa.Column("lease_until", _MOMENT),
        sa.Column("last_error", _TEXT),
        sa.Column("finished_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_mail_messages"),
        sa.CheckConstraint("state IN ('pending', 'sent', 'dead')", name="ck_mail_messages_state"),
        sa.UniqueConstraint("about", "recipient", name="uq_mail_messages_about"),
    )
    op.create_index("ix_mail_messages_state_next_at", "mail_messages", ["state", "next_at"])


def _create_settings_thresholds() -> None:
    op.create_table(
        "settings_thresholds",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("thresholds", sa.JSON, nullable=False),
        sa.Column("created_by", _TEXT, nullable=False),
        sa.Column("note", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_settings_thresholds"),
        sa.UniqueConstraint("channel", "version", name="uq_settings_thresholds_channel"),
    )


# -- by hand
_CHECKED = ("moderation_decisions", "catalogue_products")
_WITH_PHOTOS = {
    "predictions": "image_key IS NOT NULL",
    "batch_items": "key IS NOT NULL AND state IN ('done', 'quarantined', 'dismissed')",
}


def _upgrade_by_hand() -> None:
    """Photos that retention deletes, traces of events, random checks, days by job, what is normal."""
    for table, where in _WITH_PHOTOS.items():
        op.add_column(table, sa.Column("photo_deleted_at", _MOMENT))
        columns = ["channel", "id" if table == "predictions" else "seq"]
        op.create_index(
            f"ix_{table}_photos", table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where)
        )
    op.add_column("webhook_events", sa.Column("traceparent", _string(55)))
    for table in _CHECKED:
        op.add_column(table, sa.Column("check_share", sa.Double))
        op.add_column(table, sa.Column("check_drawn", sa.Boolean))
    with op.batch_alter_table("monitoring_days") as days:
        days.add_column(sa.Column("job", _string(16), nullable=False, server_default="predictions"))
        days.drop_constraint("pk_monitoring_days", type_="primary")
        days.create_primary_key("pk_monitoring_days", ["begins_s", "channel", "job"])
    with op.batch_alter_table("monitoring_days") as days:
        days.alter_column("job", server_default=None)
    op.create_table(
        "monitoring_baselines",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("begins_s", sa.BigInteger, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("withdrawn_at", _MOMENT),
        sa.Column("withdrawn_by", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_monitoring_baselines"),
    )
    op.create_index("ix_monitoring_baselines_channel_begins_s", "monitoring_baselines", ["channel", "begins_s"])


def _downgrade_by_hand() -> None:
    """Days of moderation and catalogue have no place before."""
    op.drop_table("monitoring_baselines")
    op.execute("DELETE FROM monitoring_days WHERE job <> 'predictions'")
    with op.batch_alter_table("monitoring_days") as days:
        days.drop_constraint("pk_monitoring_days", type_="primary")
        days.drop_column("job")
        days.create_primary_key("pk_monitoring_days", ["begins_s", "channel"])
    for table in _CHECKED:
        for name in ("check_share", "check_drawn"):
            op.drop_column(table, name)
    op.drop_column("webhook_events", "traceparent")
    for table in _WITH_PHOTOS:
        op.drop_index(f"ix_{table}_photos", table)
        op.drop_column(table, "photo_deleted_at")


# -- end
