"""Every prediction as a row: tables, repositories, unit of work, group writer and migrations."""

from shoplens.db.database import Database, Synchronous, open_database
from shoplens.db.group_writer import GroupWriter
from shoplens.db.migrate import current_revision, downgrade, upgrade
from shoplens.db.uow import ReadWork, UnitOfWork

__all__ = [
    "Database",
    "GroupWriter",
    "ReadWork",
    "Synchronous",
    "UnitOfWork",
    "current_revision",
    "downgrade",
    "open_database",
    "upgrade",
]
