"""The tables of batch runs and their items."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
    text,
)

from shoplens.db.tables import ID_LENGTH, SEQUENCE, TEXT, UtcDateTime, metadata, required, string

_NOT_DUPLICATE: Final = text("duplicate_of IS NULL AND retried_as IS NULL")
_NOT_RETRIED: Final = text("retried_as IS NULL")
_MOVING: Final = text("target_key IS NOT NULL")
SETTLED_PHOTO: Final = text("key IS NOT NULL AND state IN ('done', 'quarantined', 'dismissed')")
"""Items that have a photo and need no review, as the index of them says it."""

batch_runs: Final = Table(
    "batch_runs",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("channel", TEXT),
    required("created_at", UtcDateTime()),
    required("requested_by", TEXT),
    required("state", string(12)),
    # 1 while it is requested or running, else NULL: so the database itself allows only one such run per channel.
    Column("active", Integer),
    required("bound", BigInteger),
    required("planned", Integer),
    Column("model_name", TEXT),
    Column("model_version", TEXT),
    Column("policy_version", TEXT),
    Column("owner", string(ID_LENGTH)),
    Column("host", TEXT),
    Column("pid", Integer),
    # A mark that no later process with this number has: `batch/process.py` makes and reads it.
    Column("process", TEXT),
    required("heartbeat", BigInteger),
    Column("started_at", UtcDateTime()),
    Column("heartbeat_at", UtcDateTime()),
    Column("last_item_at", UtcDateTime()),
    Column("finished_at", UtcDateTime()),
    required("stalled", Boolean),
    Column("failure", TEXT),
    Column("report_key", TEXT),
    UniqueConstraint("channel", "active"),
    CheckConstraint("state IN ('requested', 'running', 'finished')", name="state"),
)

batch_items: Final = Table(
    "batch_items",
    metadata,
    Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    required("id", string(ID_LENGTH), unique=True),
    required("channel", TEXT),
    required("received_at", UtcDateTime()),
    required("source_name", TEXT),
    Column("source_stamp", TEXT),
    Column("item_ref", TEXT),
    Column("order_ref", TEXT),
    Column("reason", TEXT),
    Column("customer_ref", TEXT),
    Column("review_ref", TEXT),
    required("sha256", string(64)),
    required("byte_count", BigInteger),
    required("state", string(12)),
    Column("key", TEXT),
    Column("target_key", TEXT),
    Column("thumbnail_key", TEXT),
    Column("duplicate_of", string(ID_LENGTH)),
    required("attempts", Integer),
    Column("run_id", string(ID_LENGTH), ForeignKey("batch_runs.id")),
    Column("lease_owner", string(ID_LENGTH)),
    Column("prediction_id", string(ID_LENGTH), ForeignKey("predictions.id", ondelete="SET NULL")),
    Column("predicted", TEXT),
    Column("score", Double),
    # The label that a person set, else the predicted one: what pages, exports and filters use.
    Column("label", TEXT),
    Column("corrected_at", UtcDateTime()),
    Column("finished_at", UtcDateTime()),
    Column("work_ms", Double),
    Column("failure_code", TEXT),
    Column("failure", TEXT),
    # What a person said, and what it takes to withdraw it.
    Column("answer", string(16)),
    Column("proposed", TEXT),
    Column("answered_by", string(64)),
    Column("reviewed_from", string(12)),
    required("revision", Integer),
    # The item that waits, or was processed, instead of this one, which stays in its run as the run left it.
    Column("retried_as", string(ID_LENGTH)),
    # When retention began to delete the photo; `key` is NULL once its files are gone.
    Column("photo_deleted_at", UtcDateTime()),
    CheckConstraint(
        "state IN ('waiting', 'processing', 'done', 'needs_review', 'quarantined', 'duplicate', 'dismissed')",
        name="state",
    ),
    # The same content is one item, also for several imports at once; later files only point to it.
    Index(
        "uq_batch_items_content",
        "channel",
        "sha256",
        unique=True,
        sqlite_where=_NOT_DUPLICATE,
        postgresql_where=_NOT_DUPLICATE,
    ),
    Index(
        "uq_batch_items_arrival",
        "channel",
        "sha256",
        "source_name",
        unique=True,
        sqlite_where=_NOT_RETRIED,
        postgresql_where=_NOT_RETRIED,
    ),
    Index(None, "channel", "source_name"),
    Index(None, "channel", "state", "attempts", "seq"),
    Index(None, "run_id", "state", "label", "seq"),
    Index(None, "run_id", "work_ms"),
    Index(None, "run_id", "answer"),
    # For the search in Records, and for deleting a record: its item is found by each.
    Index(None, "order_ref"),
    Index(None, "item_ref"),
    Index(None, "prediction_id"),
    # Small: it has rows only while photos are being moved.
    Index("ix_batch_items_moving", "channel", "seq", sqlite_where=_MOVING, postgresql_where=_MOVING),
    # For retention: photos that no run works on and no review waits for.
    Index("ix_batch_items_photos", "channel", "seq", sqlite_where=SETTLED_PHOTO, postgresql_where=SETTLED_PHOTO),
    sqlite_autoincrement=True,
)

batch_looks: Final = Table(
    "batch_looks",
    metadata,
    required("item_id", string(ID_LENGTH)),
    required("browser", string(64)),
    # The photo is shown to somebody until then; NULL: it is not.
    Column("until", UtcDateTime()),
    Column("skipped_at", UtcDateTime()),
    PrimaryKeyConstraint("item_id", "browser"),
    Index(None, "browser"),
)
"""Who looks at which item, and who skipped it. The rows of an item go with its answer."""
