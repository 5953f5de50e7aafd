"""The tables of retrainings and of labels in question."""

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
    Table,
    UniqueConstraint,
)

from shoplens.db.tables import ID_LENGTH, TEXT, UtcDateTime, metadata, required, string

retraining_runs: Final = Table(
    "retraining_runs",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("channel", TEXT),
    required("model", TEXT),
    # 1 while it runs, else NULL: so the database itself allows only one such retraining per model.
    Column("active", Integer),
    required("requested_by", TEXT),
    required("recipe", string(16)),
    Column("base", TEXT),
    Column("test", TEXT),
    required("promote", string(16)),
    required("dry_run", Boolean),
    required("state", string(16)),
    required("stage", string(16)),
    required("candidate", TEXT),
    Column("champion", TEXT),
    Column("label_set", Integer),
    Column("label_digest", string(64)),
    Column("labels", Integer),
    Column("test_set", Integer),
    Column("test_digest", string(64)),
    Column("test_samples", Integer),
    Column("passed", Boolean),
    Column("accuracy_before", Double),
    Column("accuracy", Double),
    Column("report_key", TEXT),
    Column("tracked_as", TEXT),
    Column("owner", string(ID_LENGTH)),
    Column("host", TEXT),
    Column("pid", Integer),
    Column("process", TEXT),
    required("heartbeat", BigInteger),
    Column("heartbeat_at", UtcDateTime()),
    Column("finished_at", UtcDateTime()),
    Column("failure_code", TEXT),
    Column("failure", TEXT),
    Column("decided_at", UtcDateTime()),
    Column("decided_by", TEXT),
    Column("decided_why", TEXT),
    UniqueConstraint("model", "active"),
    CheckConstraint(
        "state IN ('running', 'shadowing', 'waiting', 'promoted', 'refused', 'rejected', 'measured', 'failed')",
        name="state",
    ),
    Index(None, "channel", "id"),
)

retraining_suspects: Final = Table(
    "retraining_suspects",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("run_id", string(ID_LENGTH), ForeignKey("retraining_runs.id", ondelete="CASCADE")),
    required("channel", TEXT),
    required("rank", Integer),
    required("source", TEXT),
    required("sample_id", TEXT),
    required("label", TEXT),
    required("suggested", TEXT),
    required("score", Double),
    Column("image_key", TEXT),
    required("image_sha256", string(64)),
    Column("text", TEXT),
    Column("outcome", string(8)),
    Column("decided_at", UtcDateTime()),
    Column("decided_by", TEXT),
    Index(None, "channel", "outcome", "rank"),
    Index(None, "channel", "source", "sample_id"),
)
