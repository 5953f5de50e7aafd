"""The tables of moderation. A column is called as the field of the entity: `ref.customer` is `ref_customer`."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from shoplens.db.tables import ID_LENGTH, SEQUENCE, TEXT, UtcDateTime, metadata, required, string
from shoplens.moderation.entities import Signal, UnusablePhoto

_WAITING: Final = text("queue IS NOT NULL")
_CLAIMED: Final = text("claimed_until IS NOT NULL")
_FROM_SOURCE: Final = text("source_name IS NOT NULL")


class Signals(TypeDecorator[tuple[Signal, ...]]):
    """Signals; stored as JSON `[[name, score, version, detail], ...]`."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[Signal, ...] | None, dialect: Dialect) -> Any:
        """A list for each signal."""
        return None if value is None else [(each.name, each.score, each.version, each.detail) for each in value]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[Signal, ...] | None:
        """The signals as they were stored."""
        if value is None:
            return None
        return tuple(Signal(name=name, score=score, version=version, detail=detail)
                     for name, score, version, detail in value)  # fmt: skip


class UnusablePhotos(TypeDecorator[tuple[UnusablePhoto, ...]]):
    """Photos that were not stored, as JSON `[[position, code, detail], ...]`."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[UnusablePhoto, ...] | None, dialect: Dialect) -> Any:
        """A list for each photo."""
        return [(each.position, each.code, each.detail) for each in value or ()]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[UnusablePhoto, ...]:
        """The photos as they were stored."""
        return tuple(UnusablePhoto(position=position, code=code, detail=detail) for position, code, detail in value)


moderation_intakes: Final = Table(
    "moderation_intakes",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("channel", TEXT),
    required("caller", TEXT),
    Column("idempotency_key", string(255)),
    required("body_digest", string(64)),
    required("unusable", UnusablePhotos()),
    UniqueConstraint("caller", "idempotency_key"),
    Index(None, "created_at"),
)

moderation_photos: Final = Table(
    "moderation_photos",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("channel", TEXT),
    required("intake_id", string(ID_LENGTH)),
    required("position", Integer),
    Column("ref_customer", TEXT),
    Column("ref_product", TEXT),
    Column("ref_order", TEXT),
    Column("ref_review", TEXT),
    required("state", string(16)),
    required("image_format", string(16)),
    required("image_width", Integer),
    required("image_height", Integer),
    required("image_byte_count", BigInteger),
    required("image_sha256", string(64)),
    required("image_phash", string(16)),
    Column("image_key", TEXT),
    required("signals", Signals()),
    required("policy_version", TEXT),
    required("decided_by", TEXT),
    required("decided_at", UtcDateTime()),
    Column("rule", TEXT),
    Column("reason", TEXT),
    Column("queue", string(16)),
    required("queue_rank", Integer),
    Column("claimed_by", TEXT),
    Column("claimed_until", UtcDateTime()),
    required("reports", Integer),
    required("revision", Integer),
    Column("source_name", TEXT),
    Column("files_deleted_at", UtcDateTime()),
    Column("fingerprint", LargeBinary),
    CheckConstraint("state IN ('held', 'published', 'refused')", name="state"),
    Index(None, "intake_id", "position"),
    Index(None, "ref_customer", "state", "decided_at"),
    Index(None, "ref_product", "state", "id"),
    Index(None, "channel", "state", "id"),
    Index(None, "state", "decided_at"),
    # The queue holds few of all photos.
    Index(
        "ix_moderation_photos_queue", "channel", "queue_rank", "id",
        sqlite_where=_WAITING, postgresql_where=_WAITING,
    ),
    Index(
        "ix_moderation_photos_claimed", "channel", "claimed_until",
        sqlite_where=_CLAIMED, postgresql_where=_CLAIMED,
    ),
    Index(
        "uq_moderation_photos_source", "channel", "source_name", unique=True,
        sqlite_where=_FROM_SOURCE, postgresql_where=_FROM_SOURCE,
    ),
)  # fmt: skip

moderation_decisions: Final = Table(
    "moderation_decisions",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("at", UtcDateTime()),
    required("photo_id", string(ID_LENGTH), ForeignKey("moderation_photos.id", ondelete="CASCADE")),
    required("revision", Integer),
    required("channel", TEXT),
    required("kind", string(16)),
    required("by_id", TEXT),
    required("by_name", TEXT),
    Column("from_state", string(16)),
    required("to_state", string(16)),
    required("policy_version", TEXT),
    Column("rule", TEXT),
    Column("reason", TEXT),
    Column("comment", TEXT),
    Column("undone_at", UtcDateTime()),
    Column("check_share", Double),
    Column("check_drawn", Boolean),
    Index(None, "photo_id", "id"),
    Index(None, "by_id", "id"),
    Index(None, "channel", "kind", "id"),
)

moderation_reports: Final = Table(
    "moderation_reports",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("at", UtcDateTime()),
    required("photo_id", string(ID_LENGTH), ForeignKey("moderation_photos.id", ondelete="CASCADE")),
    Column("reason", TEXT),
    Column("resolved_at", UtcDateTime()),
    Index(None, "photo_id"),
)

moderation_appeals: Final = Table(
    "moderation_appeals",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("at", UtcDateTime()),
    required("photo_id", string(ID_LENGTH), ForeignKey("moderation_photos.id", ondelete="CASCADE"), unique=True),
    required("message", TEXT),
    Column("decided_at", UtcDateTime()),
    Column("decided_by", TEXT),
    Column("outcome", string(16)),
    Column("answer", TEXT),
)

moderation_hashes: Final = Table(
    "moderation_hashes",
    metadata,
    Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    required("channel", TEXT),
    required("hashes", LargeBinary),
    required("fingerprint", LargeBinary),
    required("verdict", string(16)),
    Column("photo_id", string(ID_LENGTH)),
    required("created_at", UtcDateTime()),
    Index(None, "photo_id"),
    sqlite_autoincrement=True,
)
"""What finds copies of decided photos: a fingerprint, and the hashes of the photo and of crops of it, 8 bytes each."""

moderation_policies: Final = Table(
    "moderation_policies",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("channel", TEXT),
    required("version", Integer),
    required("digest", string(12)),
    required("source", TEXT),
    required("created_at", UtcDateTime()),
    required("created_by", TEXT),
    Column("note", TEXT),
    UniqueConstraint("channel", "version"),
)

moderation_moderators: Final = Table(
    "moderation_moderators",
    metadata,
    Column("principal_id", TEXT, primary_key=True),
    required("view", string(8)),
    Column("pause_after", Integer),
    required("letters", Boolean),
    Column("paused_at", UtcDateTime()),
)
"""How each moderator sees photos (`plain`, `grey`, `blur`), and after how many hard ones a pause is suggested."""

moderation_human_reviews: Final = Table(
    "moderation_human_reviews",
    metadata,
    Column(
        "decision_id", string(ID_LENGTH), ForeignKey("moderation_decisions.id", ondelete="CASCADE"), primary_key=True
    ),
    required("hard", Boolean),
    required("before_state", string(16)),
    required("before_policy_version", TEXT),
    required("before_decided_by", TEXT),
    required("before_decided_at", UtcDateTime()),
    Column("before_rule", TEXT),
    Column("before_reason", TEXT),
    Column("before_queue", string(16)),
    required("before_queue_rank", Integer),
    required("before_reports", Integer),
    Column("first_by", TEXT),
    Column("agreed", Boolean),
    Index(None, "first_by"),
)

moderation_skips: Final = Table(
    "moderation_skips",
    metadata,
    Column("photo_id", string(ID_LENGTH), ForeignKey("moderation_photos.id", ondelete="CASCADE"), primary_key=True),
    Column("principal_id", TEXT, primary_key=True),
    required("at", UtcDateTime()),
)
"""Photos that a person put at the end of their queue."""

moderation_erasures: Final = Table(
    "moderation_erasures",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("at", UtcDateTime()),
    required("customer_digest", string(64)),
    required("photos", Integer),
    required("hashes", Integer),
    required("files", Integer),
    required("events", Integer),
    required("label_sets", Integer),
    required("by", TEXT),
    Column("finished_at", UtcDateTime()),
    Index(None, "customer_digest", "id"),
)

moderation_keys: Final = Table(
    "moderation_keys",
    metadata,
    Column("name", string(32), primary_key=True),
    required("created_at", UtcDateTime()),
    required("secret", LargeBinary),
)
"""What this installation signs with. All servers of one database share it."""
