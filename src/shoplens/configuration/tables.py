"""The table of the thresholds that were edited on the page Settings."""

from __future__ import annotations

from typing import Final

from sqlalchemy import JSON, Column, Integer, Table, UniqueConstraint

from shoplens.db.tables import ID_LENGTH, TEXT, UtcDateTime, metadata, required, string

settings_thresholds: Final = Table(
    "settings_thresholds",
    metadata,
    Column("id", string(ID_LENGTH), primary_key=True),
    required("created_at", UtcDateTime()),
    required("channel", TEXT),
    # Counts up by channel. Of two people who save at once, the database refuses the second.
    required("version", Integer),
    # All thresholds of the channel that are edited, by their names in the settings.
    required("thresholds", JSON),
    required("created_by", TEXT),
    Column("note", TEXT),
    UniqueConstraint("channel", "version"),
)
"""Rows are only added: the newest version of a channel applies."""
