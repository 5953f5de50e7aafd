"""The tables of the catalogue. A column is called as the field of the entity: `image.sha256` is `image_sha256`."""

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

from shoplens.catalogue.entities import CategoryScore
from shoplens.db.tables import ID_LENGTH, SEQUENCE, TEXT, UtcDateTime, metadata, required, string


class CategoryScores(TypeDecorator[tuple[CategoryScore, ...]]):
    """Categories with their scores, as JSON `[[category, score], ...]`."""

    impl = JSON
    cache_ok = True

    def process_bind_param(self, value: tuple[CategoryScore, ...] | None, dialect: Dialect) -> Any:
        """A list for each category."""
        return [(each.category, each.score) for each in value or ()]

    def process_result_value(self, value: Any, dialect: Dialect) -> tuple[CategoryScore, ...]:
        """The categories as they were stored."""
        return tuple(CategoryScore(category=category, score=score) for category, score in value or ())


products: Final = Table(
    "catalogue_products",
    metadata,
    # The rowid of the full-text index of SQLite, which has to stay the same through a VACUUM.
    Column("seq", SEQUENCE, primary_key=True, autoincrement=True),
    required("id", string(ID_LENGTH), unique=True),
    required("channel", TEXT),
    required("reference", TEXT),
    required("created_at", UtcDateTime),
    required("changed_at", UtcDateTime),
    required("designation", TEXT),
    required("description", TEXT),
    required("state", string(16)),
    Column("category", TEXT),
    Column("given", TEXT),
    Column("decided_at", UtcDateTime),
    Column("decided_by", TEXT),
    Column("answer", TEXT),
    Column("score", Double),
    required("suggestions", CategoryScores),
    required("needs_review", Boolean),
    Column("kind", string(8)),
    Column("model", TEXT),
    Column("tree", Integer),
    Column("suggested_at", UtcDateTime),
    Column("import_id", string(ID_LENGTH)),
    Column("run_id", string(ID_LENGTH)),
    Column("failure_code", TEXT),
    Column("failure", TEXT),
    required("revision", Integer),
    Column("check_share", Double),
    Column("check_drawn", Boolean),
    # The words of reference, designation and description as `search.py` folds them: what a search looks through.
    required("search", TEXT),
    UniqueConstraint("channel", "reference"),
    CheckConstraint("state IN ('new', 'suggested', 'accepted', 'corrected')", name="state"),
    Index(None, "channel", "state", "id"),
    Index(
        "ix_catalogue_products_review",
        "channel",
        "score",
        "id",
        sqlite_where=text("needs_review"),
        postgresql_where=text("needs_review"),
    ),
    Index("ix_catalogue_products_page", "channel", "id"),
    sqlite_autoincrement=True,
)

photos: Final = Table(
    "catalogue_photos",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("product_id", string(ID_LENGTH), ForeignKey("catalogue_products.id", ondelete="CASCADE")),
    required("position", Integer),
    required("name", TEXT),
    required("image_format", TEXT),
    required("image_width", Integer),
    required("image_height", Integer),
    required("image_byte_count", BigInteger),
    required("image_sha256", string(64)),
    required("image_phash", string(16)),
    required("image_key", TEXT),
    UniqueConstraint("product_id", "position"),
    Index(None, "image_sha256"),
)

embeddings: Final = Table(
    "catalogue_embeddings",
    metadata,
    Column("product_id", string(ID_LENGTH), ForeignKey("catalogue_products.id", ondelete="CASCADE"), primary_key=True),
    required("encoder", string(64)),
    required("embedding", LargeBinary),
)
"""The mean embedding of a product's photos (float16), by the encoder whose file has this SHA-256."""

trees: Final = Table(
    "catalogue_trees",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("channel", TEXT),
    required("version", Integer),
    required("created_at", UtcDateTime),
    required("created_by", TEXT),
    required("source", TEXT),
    required("note", TEXT),
    required("categories", Integer),
    required("digest", string(64)),
    UniqueConstraint("channel", "version"),
)

categories: Final = Table(
    "catalogue_categories",
    metadata,
    Column("tree_id", string(ID_LENGTH), ForeignKey("catalogue_trees.id", ondelete="CASCADE"), primary_key=True),
    Column("id", TEXT, primary_key=True),
    required("position", Integer),
    required("path", JSON),
    required("names", JSON),
    required("synonyms", JSON),
)

mappings: Final = Table(
    "catalogue_mappings",
    metadata,
    Column("tree_id", string(ID_LENGTH), ForeignKey("catalogue_trees.id", ondelete="CASCADE"), primary_key=True),
    Column("before", TEXT, primary_key=True),
    Column("after", TEXT),
)
"""What became of a category of the version before in this one; `after` NULL: it has no successor."""

decisions: Final = Table(
    "catalogue_decisions",
    metadata,
    Column("id", SEQUENCE, primary_key=True, autoincrement=True),
    required("product_id", string(ID_LENGTH), ForeignKey("catalogue_products.id", ondelete="CASCADE")),
    required("channel", TEXT),
    required("created_at", UtcDateTime),
    required("by", TEXT),
    required("by_name", TEXT),
    required("kind", string(16)),
    Column("category", TEXT),
    Column("before", TEXT),
    Column("suggested", TEXT),
    Column("score", Double),
    Column("model", TEXT),
    Column("tree", Integer),
    required("state_before", string(16)),
    required("review_before", Boolean),
    Column("bulk_id", string(ID_LENGTH)),
    Column("undone_at", UtcDateTime),
    CheckConstraint("kind IN ('accepted', 'corrected', 'undone')", name="kind"),
    Index(None, "product_id", "id"),
    Index(None, "channel", "created_at"),
    Index(None, "bulk_id", "id"),
    sqlite_autoincrement=True,
)

imports: Final = Table(
    "catalogue_imports",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("channel", TEXT),
    required("created_at", UtcDateTime),
    required("created_by", TEXT),
    required("source", TEXT),
    required("rows", Integer),
    required("added", Integer),
    required("changed", Integer),
    required("unchanged", Integer),
    required("faults", Integer),
    required("options", JSON),
    Column("pid", Integer),
    Column("process", TEXT),
    Column("beat_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("error", TEXT),
    Index(None, "channel", "id"),
)

import_faults: Final = Table(
    "catalogue_import_faults",
    metadata,
    Column("id", SEQUENCE, primary_key=True, autoincrement=True),
    required("import_id", string(ID_LENGTH), ForeignKey("catalogue_imports.id", ondelete="CASCADE")),
    required("line", Integer),
    required("code", TEXT),
    required("reason", TEXT),
    Column("reference", TEXT),
    Index(None, "import_id", "id"),
    sqlite_autoincrement=True,
)

bulk_jobs: Final = Table(
    "catalogue_bulk_jobs",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("channel", TEXT),
    required("created_at", UtcDateTime),
    required("by", TEXT),
    required("by_name", TEXT),
    required("wanted", JSON),
    Column("undoes", string(ID_LENGTH)),
    required("planned", Integer),
    required("done", Integer),
    required("cursor", TEXT),
    # 1 until it has ended, else NULL: so the database itself allows only one such job per channel.
    Column("active", Integer),
    Column("pid", Integer),
    Column("process", TEXT),
    Column("beat_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("cancelled_by", TEXT),
    Column("error", TEXT),
    UniqueConstraint("channel", "active"),
    Index(None, "channel", "id"),
)

runs: Final = Table(
    "catalogue_runs",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("channel", TEXT),
    required("created_at", UtcDateTime),
    required("requested_by", TEXT),
    required("again", Boolean),
    # 1 until it is finished, else NULL: so the database itself allows only one such run per channel.
    Column("active", Integer),
    required("planned", Integer),
    required("suggested", Integer),
    required("failed", Integer),
    Column("model", TEXT),
    Column("tree", Integer),
    Column("owner", string(ID_LENGTH)),
    Column("host", TEXT),
    Column("pid", Integer),
    Column("process", TEXT),
    required("heartbeat", BigInteger),
    Column("started_at", UtcDateTime),
    Column("heartbeat_at", UtcDateTime),
    Column("finished_at", UtcDateTime),
    Column("cancelled_by", TEXT),
    Column("failure", TEXT),
    UniqueConstraint("channel", "active"),
    Index(None, "channel", "id"),
)
"""Runs over the catalogue. Which products one has looked at is in the column `run_id` of the products."""
