"""Create the tables of the catalogue, of shadowed models and of retraining."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _string(length: int) -> sa.types.TypeEngine[str]:
    """Compared byte by byte, with every locale of PostgreSQL."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_MOMENT = sa.DateTime(timezone=True)
_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Add them to those of 0002."""
    _create_catalogue_bulk_jobs()
    _create_catalogue_imports()
    _create_catalogue_products()
    _create_catalogue_runs()
    _create_catalogue_trees()
    _create_retraining_runs()
    _create_catalogue_categories()
    _create_catalogue_decisions()
    _create_catalogue_embeddings()
    _create_catalogue_import_faults()
    _create_catalogue_mappings()
    _create_catalogue_photos()
    _create_retraining_suspects()
    _create_shadow_answers()
    _upgrade_by_hand()


def downgrade() -> None:
    """Drop them again."""
    _downgrade_by_hand()
    for name in (
        "shadow_answers",
        "retraining_suspects",
        "catalogue_photos",
        "catalogue_mappings",
        "catalogue_import_faults",
        "catalogue_embeddings",
        "catalogue_decisions",
        "catalogue_categories",
        "retraining_runs",
        "catalogue_trees",
        "catalogue_runs",
        "catalogue_products",
        "catalogue_imports",
        "catalogue_bulk_jobs",
    ):
        op.drop_table(name)


def _create_catalogue_bulk_jobs() -> None:
    op.create_table(
        "catalogue_bulk_jobs",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("by", _TEXT, nullable=False),
        sa.Column("by_name", _TEXT, nullable=False),
        sa.Column("wanted", sa.JSON, nullable=False),
        sa.Column("undoes", _string(26)),
        sa.Column("planned", sa.Integer, nullable=False),
        sa.Column("done", sa.Integer, nullable=False),
        sa.Column("cursor", _TEXT, nullable=False),
        sa.Column("active", sa.Integer),
        sa.Column("pid", sa.Integer),
        sa.Column("process", _TEXT),
        sa.Column("beat_at", _MOMENT),
        sa.Column("finished_at", _MOMENT),
        sa.Column("cancelled_by", _TEXT),
        sa.Column("error", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_catalogue_bulk_jobs"),
        sa.UniqueConstraint("channel", "active", name="uq_catalogue_bulk_jobs_channel"),
    )
    op.create_index("ix_catalogue_bulk_jobs_channel_id", "catalogue_bulk_jobs", ["channel", "id"])


def _create_catalogue_imports() -> None:
    op.create_table(
        "catalogue_imports",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", _TEXT, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("added", sa.Integer, nullable=False),
        sa.Column("changed", sa.Integer, nullable=False),
        sa.Column("unchanged", sa.Integer, nullable=False),
        sa.Column("faults", sa.Integer, nullable=False),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("pid", sa.Integer),
        sa.Column("process", _TEXT),
        sa.Column("beat_at", _MOMENT),
        sa.Column("finished_at", _MOMENT),
        sa.Column("error", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_catalogue_imports"),
    )
    op.create_index("ix_catalogue_imports_channel_id", "catalogue_imports", ["channel", "id"])


def _create_catalogue_products() -> None:
    op.create_table(
        "catalogue_products",
        sa.Column("seq", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("reference", _TEXT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("changed_at", _MOMENT, nullable=False),
        sa.Column("designation", _TEXT, nullable=False),
        sa.Column("description", _TEXT, nullable=False),
        sa.Column("state", _string(16), nullable=False),
        sa.Column("category", _TEXT),
        sa.Column("given", _TEXT),
        sa.Column("decided_at", _MOMENT),
        sa.Column("decided_by", _TEXT),
        sa.Column("answer", _TEXT),
        sa.Column("score", sa.Double),
        sa.Column("suggestions", sa.JSON, nullable=False),
        sa.Column("needs_review", sa.Boolean, nullable=False),
        sa.Column("kind", _string(8)),
        sa.Column("model", _TEXT),
        sa.Column("tree", sa.Integer),
        sa.Column("suggested_at", _MOMENT),
        sa.Column("import_id", _string(26)),
        sa.Column("run_id", _string(26)),
        sa.Column("failure_code", _TEXT),
        sa.Column("failure", _TEXT),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("search", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_catalogue_products"),
        sa.CheckConstraint(
            "state IN ('new', 'suggested', 'accepted', 'corrected')", name="ck_catalogue_products_state"
        ),
        sa.UniqueConstraint("channel", "reference", name="uq_catalogue_products_channel"),
        sa.UniqueConstraint("id", name="uq_catalogue_products_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_catalogue_products_channel_state_id", "catalogue_products", ["channel", "state", "id"])
    op.create_index("ix_catalogue_products_page", "catalogue_products", ["channel", "id"])
    op.create_index(
        "ix_catalogue_products_review",
        "catalogue_products",
        ["channel", "score", "id"],
        sqlite_where=sa.text("needs_review"),
        postgresql_where=sa.text("needs_review"),
    )


def _create_catalogue_runs() -> None:
    op.create_table(
        "catalogue_runs",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("requested_by", _TEXT, nullable=False),
        sa.Column("again", sa.Boolean, nullable=False),
        sa.Column("active", sa.Integer),
        sa.Column("planned", sa.Integer, nullable=False),
        sa.Column("suggested", sa.Integer, nullable=False),
        sa.Column("failed", sa.Integer, nullable=False),
        sa.Column("model", _TEXT),
        sa.Column("tree", sa.Integer),
        sa.Column("owner", _string(26)),
        sa.Column("host", _TEXT),
        sa.Column("pid", sa.Integer),
        sa.Column("process", _TEXT),
        sa.Column("heartbeat", sa.BigInteger, nullable=False),
        sa.Column("started_at", _MOMENT),
        sa.Column("heartbeat_at", _MOMENT),
        sa.Column("finished_at", _MOMENT),
        sa.Column("cancelled_by", _TEXT),
        sa.Column("failure", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_catalogue_runs"),
        sa.UniqueConstraint("channel", "active", name="uq_catalogue_runs_channel"),
    )
    op.create_index("ix_catalogue_runs_channel_id", "catalogue_runs", ["channel", "id"])


def _create_catalogue_trees() -> None:
    op.create_table(
        "catalogue_trees",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("created_by", _TEXT, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("note", _TEXT, nullable=False),
        sa.Column("categories", sa.Integer, nullable=False),
        sa.Column("digest", _string(64), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_catalogue_trees"),
        sa.UniqueConstraint("channel", "version", name="uq_catalogue_trees_channel"),
    )


def _create_retraining_runs() -> None:
    op.create_table(
        "retraining_runs",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("model", _TEXT, nullable=False),
        sa.Column("active", sa.Integer),
        sa.Column("requested_by", _TEXT, nullable=False),
        sa.Column("recipe", _string(16), nullable=False),
        sa.Column("base", _TEXT),
        sa.Column("test", _TEXT),
        sa.Column("promote", _string(16), nullable=False),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        sa.Column("state", _string(16), nullable=False),
        sa.Column("stage", _string(16), nullable=False),
        sa.Column("candidate", _TEXT, nullable=False),
        sa.Column("champion", _TEXT),
        sa.Column("label_set", sa.Integer),
        sa.Column("label_digest", _string(64)),
        sa.Column("labels", sa.Integer),
        sa.Column("test_set", sa.Integer),
        sa.Column("test_digest", _string(64)),
        sa.Column("test_samples", sa.Integer),
        sa.Column("passed", sa.Boolean),
        sa.Column("accuracy_before", sa.Double),
        sa.Column("accuracy", sa.Double),
        sa.Column("report_key", _TEXT),
        sa.Column("tracked_as", _TEXT),
        sa.Column("owner", _string(26)),
        sa.Column("host", _TEXT),
        sa.Column("pid", sa.Integer),
        sa.Column("process", _TEXT),
        sa.Column("heartbeat", sa.BigInteger, nullable=False),
        sa.Column("heartbeat_at", _MOMENT),
        sa.Column("finished_at", _MOMENT),
        sa.Column("failure_code", _TEXT),
        sa.Column("failure", _TEXT),
        sa.Column("decided_at", _MOMENT),
        sa.Column("decided_by", _TEXT),
        sa.Column("decided_why", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_retraining_runs"),
        sa.CheckConstraint(
            "state IN ('running', 'shadowing', 'waiting', 'promoted', 'refused', 'rejected', 'measured', 'failed')",
            name="ck_retraining_runs_state",
        ),
        sa.UniqueConstraint("model", "active", name="uq_retraining_runs_model"),
    )
    op.create_index("ix_retraining_runs_channel_id", "retraining_runs", ["channel", "id"])


def _create_catalogue_categories() -> None:
    op.create_table(
        "catalogue_categories",
        sa.Column("tree_id", _string(26), nullable=False),
        sa.Column("id", _TEXT, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("path", sa.JSON, nullable=False),
        sa.Column("names", sa.JSON, nullable=False),
        sa.Column("synonyms", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("tree_id", "id", name="pk_catalogue_categories"),
        sa.ForeignKeyConstraint(
            ["tree_id"], ["catalogue_trees.id"], name="fk_catalogue_categories_tree_id", ondelete="CASCADE"
        ),
    )


def _create_catalogue_decisions() -> None:
    op.create_table(
        "catalogue_decisions",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("product_id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("by", _TEXT, nullable=False),
        sa.Column("by_name", _TEXT, nullable=False),
        sa.Column("kind", _string(16), nullable=False),
        sa.Column("category", _TEXT),
        sa.Column("before", _TEXT),
        sa.Column("suggested", _TEXT),
        sa.Column("score", sa.Double),
        sa.Column("model", _TEXT),
        sa.Column("tree", sa.Integer),
        sa.Column("state_before", _string(16), nullable=False),
        sa.Column("review_before", sa.Boolean, nullable=False),
        sa.Column("bulk_id", _string(26)),
        sa.Column("undone_at", _MOMENT),
        sa.PrimaryKeyConstraint("id", name="pk_catalogue_decisions"),
        sa.CheckConstraint("kind IN ('accepted', 'corrected', 'undone')", name="ck_catalogue_decisions_kind"),
        sa.ForeignKeyConstraint(
            ["product_id"], ["catalogue_products.id"], name="fk_catalogue_decisions_product_id", ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_catalogue_decisions_bulk_id_id", "catalogue_decisions", ["bulk_id", "id"])
    op.create_index("ix_catalogue_decisions_channel_created_at", "catalogue_decisions", ["channel", "created_at"])
    op.create_index("ix_catalogue_decisions_product_id_id", "catalogue_decisions", ["product_id", "id"])


def _create_catalogue_embeddings() -> None:
    op.create_table(
        "catalogue_embeddings",
        sa.Column("product_id", _string(26), nullable=False),
        sa.Column("encoder", _string(64), nullable=False),
        sa.Column("embedding", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("product_id", name="pk_catalogue_embeddings"),
        sa.ForeignKeyConstraint(
            ["product_id"], ["catalogue_products.id"], name="fk_catalogue_embeddings_product_id", ondelete="CASCADE"
        ),
    )


def _create_catalogue_import_faults() -> None:
    op.create_table(
        "catalogue_import_faults",
        sa.Column("id", _SEQUENCE, autoincrement=True, nullable=False),
        sa.Column("import_id", _string(26), nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("code", _TEXT, nullable=False),
        sa.Column("reason", _TEXT, nullable=False),
        sa.Column("reference", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_catalogue_import_faults"),
        sa.ForeignKeyConstraint(
            ["import_id"], ["catalogue_imports.id"], name="fk_catalogue_import_faults_import_id", ondelete="CASCADE"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_catalogue_import_faults_import_id_id", "catalogue_import_faults", ["import_id", "id"])


def _create_catalogue_mappings() -> None:
    op.create_table(
        "catalogue_mappings",
        sa.Column("tree_id", _string(26), nullable=False),
        sa.Column("before", _TEXT, nullable=False),
        sa.Column("after", _TEXT),
        sa.PrimaryKeyConstraint("tree_id", "before", name="pk_catalogue_mappings"),
        sa.ForeignKeyConstraint(
            ["tree_id"], ["catalogue_trees.id"], name="fk_catalogue_mappings_tree_id", ondelete="CASCADE"
        ),
    )


def _create_catalogue_photos() -> None:
    op.create_table(
        "catalogue_photos",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("product_id", _string(26), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("name", _TEXT, nullable=False),
        sa.Column("image_format", _TEXT, nullable=False),
        sa.Column("image_width", sa.Integer, nullable=False),
        sa.Column("image_height", sa.Integer, nullable=False),
        sa.Column("image_byte_count", sa.BigInteger, nullable=False),
        sa.Column("image_sha256", _string(64), nullable=False),
        sa.Column("image_phash", _string(16), nullable=False),
        sa.Column("image_key", _TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_catalogue_photos"),
        sa.ForeignKeyConstraint(
            ["product_id"], ["catalogue_products.id"], name="fk_catalogue_photos_product_id", ondelete="CASCADE"
        ),
        sa.UniqueConstraint("product_id", "position", name="uq_catalogue_photos_product_id"),
    )
    op.create_index("ix_catalogue_photos_image_sha256", "catalogue_photos", ["image_sha256"])


def _create_retraining_suspects() -> None:
    op.create_table(
        "retraining_suspects",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("run_id", _string(26), nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("source", _TEXT, nullable=False),
        sa.Column("sample_id", _TEXT, nullable=False),
        sa.Column("label", _TEXT, nullable=False),
        sa.Column("suggested", _TEXT, nullable=False),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("image_key", _TEXT),
        sa.Column("image_sha256", _string(64), nullable=False),
        sa.Column("text", _TEXT),
        sa.Column("outcome", _string(8)),
        sa.Column("decided_at", _MOMENT),
        sa.Column("decided_by", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_retraining_suspects"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["retraining_runs.id"], name="fk_retraining_suspects_run_id", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_retraining_suspects_channel_outcome_rank", "retraining_suspects", ["channel", "outcome", "rank"]
    )
    op.create_index(
        "ix_retraining_suspects_channel_source_sample_id", "retraining_suspects", ["channel", "source", "sample_id"]
    )


def _create_shadow_answers() -> None:
    op.create_table(
        "shadow_answers",
        sa.Column("id", _string(26), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("channel", _TEXT, nullable=False),
        sa.Column("prediction_id", _string(26)),
        sa.Column("photo_id", _string(26)),
        sa.Column("product_id", _string(26)),
        sa.Column("model", _TEXT, nullable=False),
        sa.Column("champion", _TEXT, nullable=False),
        sa.Column("challenger", _TEXT, nullable=False),
        sa.Column("champion_label", _TEXT, nullable=False),
        sa.Column("champion_score", sa.Double, nullable=False),
        sa.Column("challenger_label", _TEXT),
        sa.Column("challenger_score", sa.Double),
        sa.Column("agrees", sa.Boolean, nullable=False),
        sa.Column("failure_code", _TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_shadow_answers"),
        sa.ForeignKeyConstraint(
            ["photo_id"], ["moderation_photos.id"], name="fk_shadow_answers_photo_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["prediction_id"], ["predictions.id"], name="fk_shadow_answers_prediction_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["product_id"], ["catalogue_products.id"], name="fk_shadow_answers_product_id", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_shadow_answers_model_champion_challenger_agrees_id",
        "shadow_answers",
        ["model", "champion", "challenger", "agrees", "id"],
    )
    op.create_index("ix_shadow_answers_photo_id", "shadow_answers", ["photo_id"])
    op.create_index("ix_shadow_answers_prediction_id", "shadow_answers", ["prediction_id"])
    op.create_index("ix_shadow_answers_product_id", "shadow_answers", ["product_id"])


# -- by hand
def _upgrade_by_hand() -> None:
    """The text of a prediction, and the index of words: SQLite's keeps no text of its own and follows by triggers."""
    op.add_column("predictions", sa.Column("text", _TEXT))
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE INDEX catalogue_search ON catalogue_products "
            "USING gin (array_to_tsvector(string_to_array(search, ' ')))"
        )
        return
    op.execute(
        "CREATE VIRTUAL TABLE catalogue_search USING fts5(search, content='catalogue_products', content_rowid='seq', "
        "tokenize='unicode61 remove_diacritics 0', prefix='2 3')"
    )
    added = "INSERT INTO catalogue_search(rowid, search) VALUES (new.seq, new.search);"
    removed = "INSERT INTO catalogue_search(catalogue_search, rowid, search) VALUES ('delete', old.seq, old.search);"
    for name, when, act in (
        ("added", "INSERT ON catalogue_products", added),
        ("removed", "DELETE ON catalogue_products", removed),
        ("changed", "UPDATE OF search ON catalogue_products WHEN old.search <> new.search", removed + added),
    ):
        op.execute(f"CREATE TRIGGER catalogue_search_{name} AFTER {when} BEGIN {act} END")


def _downgrade_by_hand() -> None:
    """The triggers, and on PostgreSQL the index, go with the table."""
    op.drop_column("predictions", "text")
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE catalogue_search")


# -- end
