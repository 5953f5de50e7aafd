"""Does the schema in the database fit this program? Answered without loading Alembic, which is slow to import."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, inspect, text

from shoplens.errors import DatabaseUnavailable

REVISIONS: Final = ("0001",)
"""Every migration, oldest first."""
HEAD: Final = REVISIONS[-1]


def read_revision(connection: Connection) -> str | None:
    """The migration that the database stands at; None before the first one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if revision is None else str(revision)


def require_current(revision: str | None, place: str) -> None:
    """Raises DatabaseUnavailable with what to do unless `revision` is the newest that this program knows."""
    if revision == HEAD:
        return
    if revision is None:
        raise DatabaseUnavailable(f"The database {place} has no tables yet; run `shoplens db upgrade`.")
    if revision in REVISIONS:
        raise DatabaseUnavailable(
            f"The database {place} is at schema {revision} and this program needs {HEAD}; run `shoplens db upgrade`."
        )
    raise DatabaseUnavailable(
        f"The database {place} is at schema {revision}, which is newer than this program; install a newer Shoplens."
    )
