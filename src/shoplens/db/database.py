"""The database: a connection pool behind a URL, and the transactions on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import orjson
from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError

from shoplens.advice import file_advice, how_to_install
from shoplens.db.failures import translated
from shoplens.db.sqlite import driver
from shoplens.errors import DatabaseUnusable, ExtraMissing, Misconfigured

Synchronous = Literal["NORMAL", "FULL"]

_UNREADABLE: Final = (
    "The setting database_url cannot be read. It looks like sqlite:///shoplens.db or postgresql://user:password@host/"
    "database; in a password, write characters such as @ : / ? # % as %40 %3A %2F %3F %23 %25."
)

REVISIONS: Final = ("0001", "0002", "0003", "0004", "0005")
"""Every migration, oldest first."""
HEAD: Final = REVISIONS[-1]
BUSY_TIMEOUT_S: Final = 5.0
"""How long a writer waits for another one before it fails with "is locked"."""
POOL_SIZE: Final = 8
"""How many connections to PostgreSQL one process keeps at most."""
STATEMENT_TIMEOUT_S: Final = 60.0
"""How long a statement of PostgreSQL may take; migrations have no such bound."""
_UPGRADING: Final = 0x53484F50
_ARRIVING: Final = 0x53484F51
_AUDITING: Final = 0x53484F52
_LABELLING: Final = 0x53484F53
_MONITORING: Final = 0x53484F54
"""Names of PostgreSQL's locks that belong to no row; it releases them when the transaction ends."""
_CACHE_KIB: Final = 8_192
_POOL_TIMEOUT_S: Final = 5
_MOST_FAULTS: Final = 10
_STEPS_PER_LOOK: Final = 10_000
"""After how many steps of SQLite's machine it is asked whether there is time left; a few milliseconds."""


class Database:
    """A pool of connections to one database with the newest schema. Thread-safe; close it at the end."""

    def __init__(self, engine: Engine, place: str, file: Path | None = None) -> None:
        """`file` is that of a SQLite database. Raises DatabaseUnusable where there is none."""
        self._engine = engine
        self._file = file
        self.place = place
        self._identity = self._identify()

    @property
    def system(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction that may write: committed at the end of the block, rolled back on an error.

        Raises DatabaseUnavailable; RecordRefused for a row that does not fit; DatabaseUnusable also where the file of
        SQLite was removed or replaced: SQLite itself would go on writing into what nobody finds again.
        """
        self._require_same_file()
        with translated(self.place), begun(self._engine, writes=True) as connection:
            yield connection
            connection.commit()
        self._require_same_file()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view for reading, which neither takes nor waits for the write lock.

        Keep it short: a long one keeps SQLite from reusing its write-ahead log. Raises DatabaseUnavailable, and
        DatabaseUnusable as `transaction`.
        """
        self._require_same_file()
        with translated(self.place), begun(self._engine, writes=False) as connection:
            yield connection

    def check(self) -> None:
        """Raises DatabaseUnavailable unless the database answers and takes a commit now.

        It commits a row without changing it: only a write shows a full disk or a read-only file before a photo arrives.
        """
        with self.transaction() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = version_num"))

    def faults(self, *, within_s: float) -> list[str] | None:
        """What `PRAGMA quick_check` says of a damaged SQLite database, one sentence each; empty where all is well.

        None where that takes longer than `within_s`, and for PostgreSQL, which checks what it reads. Raises
        DatabaseUnavailable.
        """
        if self._file is None:
            return None
        with self.reading() as connection:
            raw: Any = connection.connection.dbapi_connection
            give_up_at = time.monotonic() + within_s
            raw.set_progress_handler(lambda: time.monotonic() > give_up_at, _STEPS_PER_LOOK)
            try:
                found = [str(row[0]) for row in raw.execute(f"PRAGMA quick_check({_MOST_FAULTS})")]
            except driver.OperationalError as error:
                if getattr(error, "sqlite_errorname", "") != "SQLITE_INTERRUPT":
                    raise
                return None
            finally:
                raw.set_progress_handler(None, 0)
        return [] if found == ["ok"] else found

    def close(self) -> None:
        """Close every connection. A new one is opened when the database is used again."""
        self._engine.dispose()

    def _require_same_file(self) -> None:
        if self._identity != self._identify():
            raise DatabaseUnusable(
                f"The database {self.place} was replaced by another file while it was in use. Start this program again "
                "to use that one; what was written meanwhile is not in it."
            )

    def _identify(self) -> tuple[int, int] | None:
        """Which file is at the place of a SQLite database; None for others."""
        if self._file is None:
            return None
        try:
            found = self._file.stat()
        except OSError as error:
            raise DatabaseUnusable(
                f"The database {self.place} cannot be used: {file_advice(error)}. Put it back or restore it from a "
                "backup, then start this program again."
            ) from error
        return found.st_dev, found.st_ino


@contextmanager
def begun(engine: Engine, *, writes: bool) -> Iterator[Connection]:
    """A connection within a transaction, which is rolled back at the end of the block unless it was committed."""
    with engine.connect() as connection:
        begin(connection, writes=writes)
        yield connection


def begin(connection: Connection, *, writes: bool) -> None:
    """Begin a transaction at the driver: through SQLAlchemy this statement costs more than SQLite's transaction.

    On SQLite a reader that turns into a writer fails at once when another process wrote meanwhile, so a transaction
    that may write takes the lock at its start. On PostgreSQL one round trip begins and bounds every wait within the
    transaction. A reader sees one state throughout. A writer sees what others have committed; where that matters it
    holds the row, or one of the locks below, before it looks.
    """
    connection.begin()
    if connection.dialect.name == "postgresql":
        mode = "ISOLATION LEVEL READ COMMITTED" if writes else "ISOLATION LEVEL REPEATABLE READ READ ONLY"
        connection.exec_driver_sql(f"BEGIN {mode}; {connection.info['bounds']}")
    else:
        driver: Any = connection.connection.dbapi_connection
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")


def hold_upgrades(connection: Connection) -> None:
    """On PostgreSQL: wait for another upgrade of the schema, and hold the lock until the transaction ends."""
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADING})"))


def hold_arrivals(connection: Connection) -> None:
    """On PostgreSQL: hold the lock under which items are imported until the transaction ends.

    So the numbers of items become visible in their order, as on SQLite: none appears later below one that is visible.
    """
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_ARRIVING})"))


def hold_audit(connection: Connection) -> None:
    """On PostgreSQL: hold the lock under which the audit log grows until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_AUDITING})"))


def hold_labels(connection: Connection) -> None:
    """On PostgreSQL: hold the lock under which label sets are added and samples removed, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_LABELLING})"))


def hold_monitoring(connection: Connection) -> None:
    """On PostgreSQL: hold the lock under which processes add to the same steps of a time series, in any order."""
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT pg_advisory_xact_lock({_MONITORING})"))


def open_database(
    url: str,
    *,
    synchronous: Synchronous = "NORMAL",
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    pool: int = POOL_SIZE,
) -> Database:
    """Open an existing database whose schema fits this program.

    `synchronous`, for SQLite: NORMAL keeps every commit through a crash of the process; FULL also through a loss of
    power. `pool` bounds the connections to PostgreSQL. A writer waits at most `busy_timeout_s` for another process's.
    Raises Misconfigured for a URL that names no usable database, ExtraMissing without the driver for it,
    DatabaseUnavailable with what to do otherwise.
    """
    parsed = parse_url(url)
    place = describe(parsed)
    if (file := require_directory(parsed)) and not file.exists():  # SQLite would create it, also for a mistyped path
        raise DatabaseUnusable(f"There is no database at {file} yet; run `shoplens db upgrade`.")
    if file is not None:  # without this mode a connection that is opened later would create a removed database again
        parsed = parsed.set(database=f"file:{quote(str(file))}").update_query_dict({"mode": "rw", "uri": "true"})
    engine = make_engine(parsed, synchronous=synchronous, busy_timeout_s=busy_timeout_s, pool=pool)
    try:
        with translated(place), engine.connect() as connection:
            require_current(read_revision(connection), place)
    except BaseException:
        engine.dispose()
        raise
    return Database(engine, place, file)


def read_revision(connection: Connection) -> str | None:
    """The newest migration that was run on the database; None before the first one."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if revision is None else str(revision)


def require_current(revision: str | None, place: str) -> None:
    """Raises DatabaseUnavailable with what to do unless `revision` is the newest that this program knows."""
    if revision == HEAD:
        return
    if revision is None:
        raise DatabaseUnusable(f"The database {place} has no tables yet; run `shoplens db upgrade`.")
    if revision in REVISIONS:
        raise DatabaseUnusable(
            f"The database {place} is at schema {revision} and this program needs {HEAD}; run `shoplens db upgrade`."
        )
    raise DatabaseUnusable(
        f"The database {place} is at schema {revision}, which is newer than this program; install a newer Shoplens."
    )


def require_directory(url: URL) -> Path | None:
    """The file of a SQLite database, None for others and for `file:` URIs. Raises DatabaseUnavailable without its
    directory.
    """
    if url.get_backend_name() != "sqlite" or str(url.database).startswith("file:"):
        return None
    file = Path(str(url.database))
    if not file.parent.is_dir():
        raise DatabaseUnusable(f"The directory {file.parent} of the database does not exist; create it first.")
    return file


def parse_url(url: str) -> URL:
    """Parse a database URL: `sqlite:///file` or `postgresql://…` (through psycopg). Raises Misconfigured."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # not as its cause: what it quotes may be a part of the password
        raise Misconfigured(_UNREADABLE) from None
    if "@" in f"{parsed.host}{parsed.database}":  # a password with @ in it, whose rest would be taken for a host
        raise Misconfigured(_UNREADABLE)
    backend = parsed.get_backend_name()
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise Misconfigured(f"A database of the kind {backend!r} is not supported; use sqlite or postgresql.")
    if parsed.database in (None, "", ":memory:"):
        raise Misconfigured("The database needs a file, as in sqlite:///shoplens.db; one in memory has no threads.")
    return parsed


def describe(url: URL) -> str:
    """How messages name the database: the file, or the URL without its password and its options."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    bare = URL.create("postgresql", username=url.username, host=url.host, port=url.port, database=url.database)
    return bare.render_as_string()


def make_engine(
    url: URL,
    *,
    synchronous: Synchronous = "NORMAL",
    busy_timeout_s: float = BUSY_TIMEOUT_S,
    pool: int = POOL_SIZE,
    statement_timeout_s: float | None = STATEMENT_TIMEOUT_S,
) -> Engine:
    """An engine with explicit BEGIN, fast JSON and bounded waits. Raises ExtraMissing."""
    options: dict[str, Any] = {
        "json_serializer": lambda value: orjson.dumps(value).decode(),
        "json_deserializer": orjson.loads,
        "pool_timeout": _POOL_TIMEOUT_S,
        "hide_parameters": True,  # logs must not contain what customers wrote
    }
    if url.get_backend_name() != "sqlite":
        try:
            from shoplens.db.postgres import make_postgres_engine
        except ImportError as error:
            raise ExtraMissing(f"A PostgreSQL database needs the extra `scale`. {how_to_install('scale')}") from error
        return make_postgres_engine(
            url, pool=pool, lock_timeout_s=busy_timeout_s, statement_timeout_s=statement_timeout_s, **options
        )
    engine = create_engine(url, module=driver, pool_size=8, max_overflow=24, **options)
    pragmas = (
        f"PRAGMA busy_timeout = {int(busy_timeout_s * 1000)}",
        "PRAGMA foreign_keys = ON",
        f"PRAGMA synchronous = {synchronous}",
        f"PRAGMA cache_size = -{_CACHE_KIB}",
        "PRAGMA temp_store = MEMORY",
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        # The driver's own BEGIN comes too late (before the first write), so a read and a write could not be one.
        connection.isolation_level = None
        for pragma in pragmas:
            connection.execute(pragma)

    return engine
