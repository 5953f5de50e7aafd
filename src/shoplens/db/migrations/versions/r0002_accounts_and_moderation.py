"""Create the tables of accounts, webhooks, label sets and moderation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _string(length: int) -> sa.types.TypeEngine[str]:
    """Compared byte by byte, with every locale of PostgreSQL."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_MOMENT = sa.DateTime(timezone=True)
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add them to those of 0001."""
    _create_api_keys()
    _create_audit_log()
    _create_label_removals()
    _create_label_sets()
    _create_moderation_erasures()
    _create_moderation_hashes()
    _create_moderation_intakes()
    _create_moderation_keys()
    _create_moderation_moderators()
    _create_moderation_photos()
    _create_moderation_policies()
    _create_moderation_tasks()
    _create_people()
    _create_webhook_endpoints()
    _create_webhook_events()
    _create_moderation_appeals()
    _create_moderation_decisions()
    _create_moderation_reports()
    _create_moderation_skips()
    _create_one_time_links()
    _create_recovery_codes()
    _create_sessions()
    _create_webhook_deliveries()
    _create_moderation_human_reviews()
    for name in ("customer_ref", "review_ref"):
        op.add_column("batch_items", sa.Column(name, _TEXT))


def downgrade() -> None:
    """Drop them again."""
    for name in ("customer_ref", "review_ref"):
        op.drop_column("batch_items", name)
    for name in (
        "moderation_human_reviews",
        "webhook_deliveries",
        "sessions",
        "recovery_codes",
        "one_time_links",
        "moderation_skips",
        "moderation_reports",
        "moderation_decisions",
        "moderation_appeals",
        "webhook_events",
        "webhook_endpoints",
        "people",
        "moderation_tasks",
        "moderation_policies",
        "moderation_photos",
        "moderation_moderators",
        "moderation_keys",
        "moderation_intakes",
        "moderation_hashes",
        "moderation_erasures",
        "label_sets",
        "label_removals",
        "audit_log",
        "api_keys",
    ):
        op.drop_table(name)


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("name", _string(100), nullable=False),
        sa.Column("prefix", _string(16), nullable=False),
        sa.Column("key_hash", _string(64), nullable=False),
        sa.Column("scopes", _TEXT, nullable=False),
        sa.Column("created_by", _TEXT, nullable=False),
        sa.Column("per_minute", sa.Integer),
        sa.Column("expires_at", _MOMENT),
        sa.Column("last_used_at", _MOMENT),
        sa.Column("revoked_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("key_hash", name="uq_api_keys_key_hash"),
    )


def _create_audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("seq", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("actor_kind", _string(8), nullable=False),
        sa.Column("actor_id", _TEXT, nullable=False),
        sa.Column("actor_name", _TEXT, nullable=False),
        sa.Column("action", _string(64), nullable=False),
        sa.Column("target", _TEXT),
        sa.Column("details", sa.JSON, nullable=False),
        sa.Column("address", _TEXT),
        sa.Column("request_id", _string(64)),
        sa.Column("previous_hash", _string(64), nullable=False),
        sa.Column("hash", _string(64), nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_audit_log"),
        sa.UniqueConstraint("hash", name="uq_audit_log_hash"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_log_action_seq", "audit_log", ["action", "seq"])
    op.create_index("ix_audit_log_actor_id_seq", "audit_log", ["actor_id", "seq"])


def _create_label_removals() -> None:
    op.create_table(
        "label_removals",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_label_removals"),
    )


def _create_label_sets() -> None:
    op.create_table(
        "label_sets",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("labels", sa.Integer, nullable=False),
        sa.Column("digest", _string(64), nullable=False),
        sa.Column("key", _TEXT, nullable=False),
        sa.Column("created_by", _TEXT, nullable=False),
        sa.Column("changed_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_label_sets"),
        sa.UniqueConstraint("channel", "version", name="uq_label_sets_channel"),
    )


def _create_moderation_erasures() -> None:
    op.create_table(
        "moderation_erasures",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("customer_digest", _string(64), nullable=False),
        sa.Column("photos", sa.Integer, nullable=False),
        sa.Column("hashes", sa.Integer, nullable=False),
        sa.Column("files", sa.Integer, nullable=False),
        sa.Column("events", sa.Integer, nullable=False),
        sa.Column("label_sets", sa.Integer, nullable=False),
        sa.Column("by", _TEXT, nullable=False),
        sa.Column("finished_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_moderation_erasures"),
    )
    op.create_index("ix_moderation_erasures_customer_digest_id", "moderation_erasures", ["customer_digest", "id"])


def _create_moderation_hashes() -> None:
    op.create_table(
        "moderation_hashes",
        sa.Column("seq", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("hashes", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("verdict", _string(16), nullable=False),
        sa.Column("photo_id", _string(26)),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_moderation_hashes"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_moderation_hashes_photo_id", "moderation_hashes", ["photo_id"])


def _create_moderation_intakes() -> None:
    op.create_table(
        "moderation_intakes",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("caller", _TEXT, nullable=False),
        sa.Column("idempotency_key", _string(255)),
        sa.Column("body_digest", _string(64), nullable=False),
        sa.Column("unusable", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_moderation_intakes"),
        sa.UniqueConstraint("caller", "idempotency_key", name="uq_moderation_intakes_caller"),
    )
    op.create_index("ix_moderation_intakes_created_at", "moderation_intakes", ["created_at"])


def _create_moderation_keys() -> None:
    op.create_table(
        "moderation_keys",
        sa.Column("name", _string(32), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("secret", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_moderation_keys"),
    )


def _create_moderation_moderators() -> None:
    op.create_table(
        "moderation_moderators",
        sa.Column("principal_id", _TEXT, nullable=False),
        sa.Column("view", _string(8), nullable=False),
        sa.Column("pause_after", sa.Integer),
        sa.Column("letters", sa.Boolean, nullable=False),
        sa.Column("paused_at", _MOMENT),
        sa.PrimaryKeyConstraint("principal_id", name="pk_moderation_moderators"),
    )


def _create_moderation_photos() -> None:
    op.create_table(
        "moderation_photos",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("intake_id", _string(26), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("ref_customer", _TEXT),
        sa.Column("ref_product", _TEXT),
        sa.Column("ref_order", _TEXT),
        sa.Column("ref_review", _TEXT),
        sa.Column("state", _string(16), nullable=False),
        sa.Column("image_format", _string(16), nullable=False),
        sa.Column("image_width", sa.Integer, nullable=False),
        sa.Column("image_height", sa.Integer, nullable=False),
        sa.Column("image_byte_count", sa.BigInteger, nullable=False),
        sa.Column("image_sha256", _string(64), nullable=False),
        sa.Column("image_phash", _string(16), nullable=False),
        sa.Column("image_key", _TEXT),
        sa.Column("signals", sa.JSON, nullable=False),
        sa.Column("policy_version", _TEXT, nullable=False),
        sa.Column("decided_by", _TEXT, nullable=False),
        sa.Column("decided_at", _MOMENT, nullable=False),
        sa.Column("rule", _TEXT),
        sa.Column("reason", _TEXT),
        sa.Column("queue", _string(16)),
        sa.Column("queue_rank", sa.Integer, nullable=False),
        sa.Column("claimed_by", _TEXT),
        sa.Column("claimed_until", _MOMENT),
        sa.Column("reports", sa.Integer, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("source_name", _TEXT),
        sa.Column("files_deleted_at", _MOMENT),
        sa.Column("fingerprint", sa.LargeBinary),
        sa.PrimaryKeyConstraint("id", name="pk_moderation_photos"),
        sa.CheckConstraint("state IN ('held', 'published', 'refused')", name="ck_moderation_photos_state"),
    )
    op.create_index("ix_moderation_photos_channel_state_id", "moderation_photos", ["channel", "state", "id"])
    op.create_index(
        "ix_moderation_photos_claimed",
        "moderation_photos",
        ["channel", "claimed_until"],
        sqlite_where=sa.text("claimed_until IS NOT NULL"),
        postgresql_where=sa.text("claimed_until IS NOT NULL"),
    )
    op.create_index("ix_moderation_photos_intake_id_position", "moderation_photos", ["intake_id", "position"])
    op.create_index(
        "ix_moderation_photos_queue",
        "moderation_photos",
        ["channel", "queue_rank", "id"],
        sqlite_where=sa.text("queue IS NOT NULL"),
        postgresql_where=sa.text("queue IS NOT NULL"),
    )
    op.create_index(
        "ix_moderation_photos_ref_customer_state_decided_at",
        "moderation_photos",
        ["ref_customer", "state", "decided_at"],
    )
    op.create_index("ix_moderation_photos_ref_product_state_id", "moderation_photos", ["ref_product", "state", "id"])
    op.create_index("ix_moderation_photos_state_decided_at", "moderation_photos", ["state", "decided_at"])
    op.create_index(
        "uq_moderation_photos_source",
        "moderation_photos",
        ["channel", "source_name"],
        unique=True,
        sqlite_where=sa.text("source_name IS NOT NULL"),
        postgresql_where=sa.text("source_name IS NOT NULL"),
    )


def _create_moderation_policies() -> None:
    op.create_table(
        "moderation_policies",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("digest", _string(12), nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", _TEXT, nullable=False),
        sa.Column("note", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_moderation_policies"),
        sa.UniqueConstraint("channel", "version", name="uq_moderation_policies_channel"),
    )


def _create_moderation_tasks() -> None:
    op.create_table(
        "moderation_tasks",
        sa.Column("name", _string(32), nullable=False),
        sa.Column("next_at", _MOMENT, nullable=False),
        sa.Column("lease_until", _MOMENT),
        sa.PrimaryKeyConstraint("name", name="pk_moderation_tasks"),
    )


def _create_people() -> None:
    op.create_table(
        "people",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("name", _string(100), nullable=False),
        sa.Column("role", _string(16), nullable=False),
        sa.Column("email", _TEXT),
        sa.Column("password_hash", _TEXT),
        sa.Column("password_changed_at", _MOMENT),
        sa.Column("totp_secret", _TEXT),
        sa.Column("totp_confirmed_at", _MOMENT),
        sa.Column("totp_step", sa.Integer),
        sa.Column("issuer", _TEXT),
        sa.Column("subject", _TEXT),
        sa.Column("failed_sign_ins", sa.Integer, nullable=False),
        sa.Column("locked_until", _MOMENT),
        sa.Column("last_sign_in_at", _MOMENT),
        sa.Column("disabled_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_people"),
        sa.CheckConstraint("role IN ('admin', 'moderator', 'clerk', 'merchandiser', 'viewer')", name="ck_people_role"),
        sa.UniqueConstraint("issuer", "subject", name="uq_people_issuer"),
        sa.UniqueConstraint("name", name="uq_people_name"),
    )


def _create_webhook_endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("url", _TEXT, nullable=False),
        sa.Column("secret", _TEXT, nullable=False),
        sa.Column("events", _TEXT, nullable=False),
        sa.Column("disabled_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )


def _create_webhook_events() -> None:
    op.create_table(
        "webhook_events",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("type", _string(64), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_events"),
    )


def _create_moderation_appeals() -> None:
    op.create_table(
        "moderation_appeals",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("photo_id", _string(26), nullable=False),
        sa.Column("message", _TEXT, nullable=False),
        sa.Column("decided_at", _MOMENT),
        sa.Column("decided_by", _TEXT),
        sa.Column("outcome", _string(16)),
        sa.Column("answer", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_moderation_appeals"),
        sa.ForeignKeyConstraint(
            ["photo_id"], ["moderation_photos.id"], name="fk_moderation_appeals_photo_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("photo_id", name="uq_moderation_appeals_photo_id"),
    )


def _create_moderation_decisions() -> None:
    op.create_table(
        "moderation_decisions",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("photo_id", _string(26), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("kind", _string(16), nullable=False),
        sa.Column("by_id", _TEXT, nullable=False),
        sa.Column("by_name", _TEXT, nullable=False),
        sa.Column("from_state", _string(16)),
        sa.Column("to_state", _string(16), nullable=False),
        sa.Column("policy_version", _TEXT, nullable=False),
        sa.Column("rule", _TEXT),
        sa.Column("reason", _TEXT),
        sa.Column("comment", _TEXT),
        sa.Column("undone_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_moderation_decisions"),
        sa.ForeignKeyConstraint(
            ["photo_id"], ["moderation_photos.id"], name="fk_moderation_decisions_photo_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_moderation_decisions_by_id_id", "moderation_decisions", ["by_id", "id"])
    op.create_index("ix_moderation_decisions_channel_kind_id", "moderation_decisions", ["channel", "kind", "id"])
    op.create_index("ix_moderation_decisions_photo_id_id", "moderation_decisions", ["photo_id", "id"])


def _create_moderation_reports() -> None:
    op.create_table(
        "moderation_reports",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("photo_id", _string(26), nullable=False),
        sa.Column("reason", _TEXT),
        sa.Column("resolved_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_moderation_reports"),
        sa.ForeignKeyConstraint(
            ["photo_id"], ["moderation_photos.id"], name="fk_moderation_reports_photo_id", ondelete="CASCADE"
        ),
    )
    op.create_index("ix_moderation_reports_photo_id", "moderation_reports", ["photo_id"])


def _create_moderation_skips() -> None:
    op.create_table(
        "moderation_skips",
        sa.Column("photo_id", _string(26), nullable=False),
        sa.Column("principal_id", _TEXT, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("photo_id", "principal_id", name="pk_moderation_skips"),
        sa.ForeignKeyConstraint(
            ["photo_id"], ["moderation_photos.id"], name="fk_moderation_skips_photo_id", ondelete="CASCADE"
        ),
    )


def _create_one_time_links() -> None:
    op.create_table(
        "one_time_links",
        sa.Column("token_hash", _string(64), nullable=False),
        sa.Column("person_id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("used_at", _MOMENT),
        sa.PrimaryKeyConstraint("token_hash", name="pk_one_time_links"),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_one_time_links_person_id", ondelete="CASCADE"),
    )
    op.create_index("ix_one_time_links_person_id", "one_time_links", ["person_id"])


def _create_recovery_codes() -> None:
    op.create_table(
        "recovery_codes",
        sa.Column("code_hash", _string(64), nullable=False),
        sa.Column("person_id", _string(26), nullable=False),
        sa.PrimaryKeyConstraint("code_hash", name="pk_recovery_codes"),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_recovery_codes_person_id", ondelete="CASCADE"),
    )
    op.create_index("ix_recovery_codes_person_id", "recovery_codes", ["person_id"])


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("token_hash", _string(64), nullable=False),
        sa.Column("person_id", _string(26), nullable=False),
        sa.Column("kind", _string(8), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("last_used_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("needs_totp", sa.Boolean, nullable=False),
        sa.Column("address", _TEXT),
        sa.Column("user_agent", _TEXT),
        sa.PrimaryKeyConstraint("token_hash", name="pk_sessions"),
        sa.ForeignKeyConstraint(["person_id"], ["people.id"], name="fk_sessions_person_id", ondelete="CASCADE"),
    )
    op.create_index("ix_sessions_expires_at", "sessions", ["expires_at"])
    op.create_index("ix_sessions_person_id", "sessions", ["person_id"])


def _create_webhook_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("event_id", _string(26), nullable=False),
        sa.Column("endpoint_id", _string(26), nullable=False),
        sa.Column("state", _string(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_at", _MOMENT, nullable=False),
        sa.Column("lease_until", _MOMENT),
        sa.Column("last_status", sa.Integer),
        sa.Column("last_error", _TEXT),
        sa.Column("finished_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_deliveries"),
        sa.CheckConstraint("state IN ('pending', 'delivered', 'dead')", name="ck_webhook_deliveries_state"),
        sa.ForeignKeyConstraint(
            ["endpoint_id"], ["webhook_endpoints.id"], name="fk_webhook_deliveries_endpoint_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["event_id"], ["webhook_events.id"], name="fk_webhook_deliveries_event_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("event_id", "endpoint_id", name="uq_webhook_deliveries_event_id"),
    )
    op.create_index("ix_webhook_deliveries_endpoint_id_id", "webhook_deliveries", ["endpoint_id", "id"])
    op.create_index("ix_webhook_deliveries_state_next_at", "webhook_deliveries", ["state", "next_at"])


def _create_moderation_human_reviews() -> None:
    op.create_table(
        "moderation_human_reviews",
        sa.Column("decision_id", _string(26), nullable=False),
        sa.Column("hard", sa.Boolean, nullable=False),
        sa.Column("before_state", _string(16), nullable=False),
        sa.Column("before_policy_version", _TEXT, nullable=False),
        sa.Column("before_decided_by", _TEXT, nullable=False),
        sa.Column("before_decided_at", _MOMENT, nullable=False),
        sa.Column("before_rule", _TEXT),
        sa.Column("before_reason", _TEXT),
        sa.Column("before_queue", _string(16)),
        sa.Column("before_queue_rank", sa.Integer, nullable=False),
        sa.Column("before_reports", sa.Integer, nullable=False),
        sa.Column("first_by", _TEXT),
        sa.Column("agreed", sa.Boolean),
        sa.PrimaryKeyConstraint("decision_id", name="pk_moderation_human_reviews"),
        sa.ForeignKeyConstraint(
            ["decision_id"],
            ["moderation_decisions.id"],
            name="fk_moderation_human_reviews_decision_id",
            ondelete="CASCADE",
        ),
    )
    op.create_index("ix_moderation_human_reviews_first_by", "moderation_human_reviews", ["first_by"])
