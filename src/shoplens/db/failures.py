"""What drivers raise, in our words: SQLAlchemy's errors in, DatabaseUnavailable or RecordRefused out."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shoplens.db.postgres_failures import postgres_advice
from shoplens.errors import DatabaseUnavailable, RecordRefused, RequestInvalid

# Prefixes of SQLite's error names, and what a person can do about each.
_SQLITE_ADVICE: Final = (
    ("SQLITE_BUSY", "is locked by another process; stop that process or try again"),
    ("SQLITE_LOCKED", "is locked by another connection; try again"),
    ("SQLITE_READONLY", "is read-only; give this user write permission to the file and to its directory"),
    ("SQLITE_PERM", "may not be opened by this user; check the permissions of the file and of its directory"),
    ("SQLITE_AUTH", "may not be opened by this user; check the permissions of the file and of its directory"),
    ("SQLITE_CANTOPEN", "cannot be opened; check that its directory exists and that this user may write there"),
    ("SQLITE_NOTADB", "is not an SQLite database; restore it from a backup or choose another path"),
    ("SQLITE_CORRUPT", "is damaged; restore it from a backup (`PRAGMA integrity_check` says how far it is readable)"),
    ("SQLITE_FULL", "cannot grow because the disk is full; free some space"),
    ("SQLITE_IOERR", "cannot be read or written because the disk reports an error or is full; check the disk"),
)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Raise our errors for SQLAlchemy's within the block; `place` names the database without its password."""
    try:
        yield
    except sqlite3.Error as error:  # from statements that are handed to the driver directly
        raise DatabaseUnavailable(f"The database {place} {_advice(error)}.") from error
    except SQLAlchemyError as error:
        raise from_driver(error, place) from error
    except UnicodeEncodeError as error:
        raise RequestInvalid("The text contains characters that cannot be stored (half a surrogate pair).") from error


def from_driver(error: SQLAlchemyError, place: str) -> DatabaseUnavailable:
    """The error of ours that says what `error` says, with what to do about it."""
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable(f"All connections to the database {place} are in use; try again.")
    if isinstance(error, DBAPIError):
        if isinstance(error, (IntegrityError, DataError)) or _is_unbindable(error):
            return RecordRefused(f"The database {place} refused a row: {_first_line(error.orig)}.")
        return DatabaseUnavailable(f"The database {place} {_advice(error.orig)}.")
    if isinstance(error, StatementError):
        return RecordRefused(f"A row does not fit the database {place}: {error.orig}.")
    return DatabaseUnavailable(f"The database {place} cannot be used: {error}.")


def _is_unbindable(error: DBAPIError) -> bool:
    """SQLite's way to say that it cannot take a value; psycopg's InterfaceError says that the connection is closed."""
    return isinstance(error, InterfaceError) and isinstance(error.orig, sqlite3.Error)


def _advice(error: BaseException | None) -> str:
    name = getattr(error, "sqlite_errorname", "")
    for prefix, advice in _SQLITE_ADVICE:
        if name.startswith(prefix):
            return advice
    if error is not None and (advice := postgres_advice(error)):
        return advice
    return f"did not do what was asked: {_first_line(error)}"


def _first_line(error: BaseException | None) -> str:
    """PostgreSQL adds the row, which may hold what customers wrote."""
    return str(error).strip().partition("\n")[0].rstrip(".")
