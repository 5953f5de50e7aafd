"""Errors of SQLAlchemy, SQLite and psycopg become DatabaseUnavailable or RecordRefused that say what to do.

The drivers themselves are not needed for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, SQLAlchemyError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from shoplens.db.sqlite import driver
from shoplens.errors import DatabaseUnavailable, DatabaseUnusable, RecordRefused, RequestInvalid

# Waiting does not help: the file or the server must be changed first. A prefix of SQLite's error name or of SQLSTATE.
_LASTING: Final = (
    "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH", "SQLITE_CANTOPEN", "SQLITE_NOTADB", "SQLITE_CORRUPT",
    "28", "3D000", "3F000", "42501", "42P01", "42703", "XX001", "XX002",
)  # fmt: skip
_LASTING_MESSAGES: Final = re.compile(
    r'password authentication failed|no password supplied|no pg_hba\.conf entry|(database|role) ".*" does not exist'
    "|invalid connection option|does not support SSL"
)
"""The same, while connecting to PostgreSQL: those errors have no code."""
# Prefixes of SQLite's error names, and what a person can do about each.
_SQLITE_ADVICE: Final = (
    ("SQLITE_BUSY", "is locked by another process; stop that process or try again"),
    ("SQLITE_LOCKED", "is locked by another connection; try again"),
    ("SQLITE_READONLY_DBMOVED", "was moved or removed while it was in use; put it back, then start this again"),
    ("SQLITE_READONLY", "is read-only; give this user write permission to the file and to its directory"),
    ("SQLITE_PERM", "may not be opened by this user; check the permissions of the file and of its directory"),
    ("SQLITE_AUTH", "may not be opened by this user; check the permissions of the file and of its directory"),
    ("SQLITE_CANTOPEN", "cannot be opened; check that its directory exists and that this user may write there"),
    ("SQLITE_NOTADB", "is not an SQLite database; restore it from a backup or choose another path"),
    ("SQLITE_CORRUPT", "is damaged; restore it from a backup (`PRAGMA integrity_check` says how far it is readable)"),
    ("SQLITE_FULL", "cannot grow because the disk is full; free some space"),
    ("SQLITE_IOERR", "cannot be read or written because the disk reports an error or is full; check the disk"),
)

_SETTING: Final = "the setting database_url"

# SQLSTATE codes of PostgreSQL or their prefixes, the more specific ones first.
_POSTGRES_ADVICE: Final = (
    ("40P01", "undid a change because two processes waited for each other; try again"),
    ("40", "undid a change because another process changed the same; try again"),
    ("55P03", "is locked by another process; stop that process or try again"),
    ("57014", "did not answer a query in time; try again, and look at what else it is doing"),
    ("57P05", "ended a connection that was idle for too long; try again"),
    ("25P03", "ended a transaction that was idle for too long; try again"),
    ("57P0", "is being stopped or started; try again in a moment"),
    ("53300", "has no connection left; raise max_connections at the server or lower the setting database_pool"),
    ("53100", "cannot grow because the disk is full; free some space"),
    ("53", "has too little memory or disk; look into its log"),
    ("25006", f"is read-only, as a standby is; name the primary server in {_SETTING}"),
    ("28P01", f"refused the user or the password; correct them in {_SETTING}"),
    ("28", f"does not let this user in from this machine; look at {_SETTING} and at the server's pg_hba.conf"),
    ("3D000", f"does not exist; create it with `createdb`, or correct its name in {_SETTING}"),
    ("3F000", f"has no such schema; create it, or correct `search_path` in {_SETTING}"),
    ("42501", "does not give this user the right to do that; let it own the database, or grant it the schema"),
    ("42P01", "lacks a table; run `shoplens db upgrade`"),
    ("42703", "lacks a column; run `shoplens db upgrade`"),
    ("58", "reports an error of its disk; look into its log"),
    ("XX", "is damaged; look into its log, and restore it from a backup"),
    ("08", "broke the connection; try again"),
)
_LOST: Final = "(closed the connection|connection is closed|connection is lost|connection not open|SSL error)"
# Errors while connecting have no code: patterns of the messages of libpq and psycopg, in the order they are tried.
_MESSAGE_ADVICE: Final = (
    ("password authentication failed", f"refused the user or the password; correct them in {_SETTING}"),
    ("no password supplied", f"wants a password; put it into {_SETTING}, as in postgresql://user:password@host/name"),
    (r"no pg_hba\.conf entry", "does not let this user in from this machine; add a line to the server's pg_hba.conf"),
    ("too many connections", "has no connection left; raise max_connections or lower the setting database_pool"),
    ("remaining connection slots", "has no connection left; raise max_connections or lower the setting database_pool"),
    ("the database system is", "is being stopped or started; try again in a moment"),
    ("invalid response to SSL", f"is no PostgreSQL: something else answers there; correct host and port in {_SETTING}"),
    ("expected authentication", f"is no PostgreSQL: something else answers there; correct host and port in {_SETTING}"),
    ("does not support SSL", f"offers no encryption, but sslmode in {_SETTING} asks for it; change one of them"),
    ("certificate", f"shows a certificate that is not trusted; look at sslmode and sslrootcert in {_SETTING}"),
    ("timeout", f"did not answer in time; see that the server is up, and that {_SETTING} has the right host and port"),
    (
        "[Cc]onnection refused",
        f"cannot be reached, nothing listens there; start it, or correct host and port in {_SETTING}",
    ),
    ("failed to resolve host", f"cannot be found, nobody knows its host; correct the host in {_SETTING}"),
    ("could not translate host", f"cannot be found, nobody knows its host; correct the host in {_SETTING}"),
    ("No such file", f"cannot be reached, nothing listens there; start it, or name its host in {_SETTING}"),
    ("unreachable", f"cannot be reached from this machine; look at the network and at the host in {_SETTING}"),
    ("No route to host", f"cannot be reached from this machine; look at the network and at the host in {_SETTING}"),
    ("invalid connection option", f"cannot be asked so: {_SETTING} has an option that psycopg does not know"),
    (r'database ".*" does not exist', f"does not exist; create it with `createdb`, or correct its name in {_SETTING}"),
    (r'role ".*" does not exist', f"refused the user or the password; correct them in {_SETTING}"),
    (
        f"(?s)connection failed.*{_LOST}",
        f"is no PostgreSQL, or is just being started; look at host and port in {_SETTING}",
    ),
    (_LOST, "broke the connection; it may be restarting, try again"),
)


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Within the block, raise our errors instead of the drivers'; `place` is the database without its password."""
    try:
        yield
    except driver.Error as error:  # from statements that go to the driver directly
        raise _unavailable(error, place) from error
    except SQLAlchemyError as error:
        raise from_driver(error, place) from error
    except UnicodeEncodeError as error:
        raise RequestInvalid("The text contains characters that cannot be stored (half a surrogate pair).") from error


def from_driver(error: SQLAlchemyError, place: str) -> DatabaseUnavailable:
    """Our error for `error`, with advice."""
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable(f"All connections to the database {place} are in use; try again.")
    if isinstance(error, DBAPIError):
        # SQLite raises InterfaceError for a value that it cannot store; psycopg raises it for a closed connection.
        is_unbindable = isinstance(error, InterfaceError) and isinstance(error.orig, driver.Error)
        if is_unbindable or isinstance(error, (IntegrityError, DataError)):
            return RecordRefused(f"The database {place} refused a row: {_first_line(error.orig)}.")
        return _unavailable(error.orig, place)
    if isinstance(error, StatementError):
        return RecordRefused(f"A row does not fit the database {place}: {error.orig}.")
    return DatabaseUnavailable(f"The database {place} cannot be used: {error}.")


def _unavailable(error: BaseException | None, place: str) -> DatabaseUnavailable:
    """Our error for one of a driver, by whether it can pass."""
    code = getattr(error, "sqlite_errorname", None) or getattr(error, "sqlstate", None) or ""
    lasts = code.startswith(_LASTING) if code else _LASTING_MESSAGES.search(str(error)) is not None
    kind = DatabaseUnusable if lasts else DatabaseUnavailable
    return kind(f"The database {place} {_advice(error)}.")


def _advice(error: BaseException | None) -> str:
    """What happened and what to do, to follow the name of the database. Quotes no more than the server said."""
    for attribute, table in (("sqlite_errorname", _SQLITE_ADVICE), ("sqlstate", _POSTGRES_ADVICE)):
        code = getattr(error, attribute, None) or ""
        for prefix, advice in table:
            if code.startswith(prefix):
                return advice
    for pattern, advice in _MESSAGE_ADVICE:
        if re.search(pattern, str(error)):
            return advice
    return f"did not do what was asked: {_first_line(error)}"


def _first_line(error: BaseException | None) -> str:
    """Without the lines that PostgreSQL adds: they quote the row, which may contain what customers wrote."""
    return str(error).strip().partition("\n")[0].rstrip(".")
