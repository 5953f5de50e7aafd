"""The tables of label sets, and of how often samples were removed."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Column, Integer, Table, UniqueConstraint

from shoplens.db.tables import ID_LENGTH, TEXT, UtcDateTime, metadata, required, string

label_sets: Final = Table(
    "label_sets",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("channel", TEXT),
    required("version", Integer),
    required("labels", Integer),
    required("digest", string(64)),
    required("key", TEXT),
    required("created_by", TEXT),
    Column("changed_at", UtcDateTime()),
    UniqueConstraint("channel", "version"),
)

label_removals: Final = Table(
    "label_removals",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    required("count", Integer),
)
"""One row, with how often samples were removed for good: a set that is being built then has to be built again."""
