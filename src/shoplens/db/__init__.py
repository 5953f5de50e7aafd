"""The database: connections, transactions, group commit, migrations and the differences between its dialects."""

from shoplens.db.database import Database, Synchronous, open_database
from shoplens.db.group_writer import GroupWriter
from shoplens.db.migrate import current_revision, downgrade, upgrade

__all__ = [
    "Database",
    "GroupWriter",
    "Synchronous",
    "current_revision",
    "downgrade",
    "open_database",
    "upgrade",
]
