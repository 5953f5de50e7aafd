"""Engines for PostgreSQL, through psycopg and any pooler in front of the server.

No setting of a connection outlives its transaction and no statement stays prepared: behind a pooler the next
transaction may run on another connection of the server. Every wait is bounded, by the server and by the client.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, text

from shoplens.errors import ExtraMissing, Misconfigured

CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_S: Final = 60.0
"""How long a statement may take; migrations have no such bound."""
_IDLE_TIMEOUT_S: Final = 60
"""How long a process that hangs within a transaction may hold its locks."""
_RECYCLE_S: Final = 1_800
_SILENCE_MS: Final = 15_000
"""How long the kernel of the server may leave sent data unacknowledged."""
_REACHING: Final = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": _SILENCE_MS,
    "application_name": "shoplens",
    "prepare_threshold": None,
}
_UPGRADING: Final = 0x53484F50
_ARRIVING: Final = 0x53484F51
"""Names of locks that belong to no row; the database releases them when the transaction ends."""


def make_postgres_engine(
    url: URL, *, pool: int, lock_timeout_s: float, statement_timeout_s: float | None, **options: Any
) -> Engine:
    """An engine that keeps at most `pool` connections. Raises ExtraMissing without the driver."""
    try:
        engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",  # `begin` sends BEGIN itself
            use_native_hstore=False,
            pool_size=pool,
            max_overflow=0,
            pool_pre_ping=True,
            pool_recycle=_RECYCLE_S,
            pool_use_lifo=True,
            **options,
        )
        from shoplens.db.postgres_driver import BoundedConnection, Writable
    except ImportError as error:
        raise ExtraMissing("A PostgreSQL database needs the extra `scale`: pip install 'shoplens[scale]'.") from error
    bounds = _bounds(lock_timeout_s, statement_timeout_s)

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, record: Any, positional: Any, named: Any) -> Any:
        connection = BoundedConnection.connect(*positional, **{**_REACHING, **named})
        _require_utf8(connection)
        connection.statement_timeout_s = statement_timeout_s
        connection.adapters.register_dumper(str, Writable)
        record.info["bounds"] = bounds
        return connection

    return engine


def _require_utf8(connection: Any) -> None:
    """Other encodings cannot store every file name and label, and for SQL_ASCII the driver returns bytes."""
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        connection.close()
        raise Misconfigured(
            f"The database that database_url names is encoded in {encoding}; Shoplens needs UTF8. Create another "
            "one with `createdb --encoding=UTF8 --template=template0`."
        )


def begin(connection: Connection, *, writes: bool) -> None:
    """One round trip: begin, and bound every wait within the transaction.

    A reader sees one state throughout. A writer sees what others have committed; where that matters it holds the row,
    or one of the two locks below, before it looks.
    """
    mode = "ISOLATION LEVEL READ COMMITTED" if writes else "ISOLATION LEVEL REPEATABLE READ READ ONLY"
    connection.exec_driver_sql(f"BEGIN {mode}; {connection.info['bounds']}")


def hold_upgrades(connection: Connection) -> None:
    """Wait for another upgrade of the schema, and hold the lock until the transaction ends."""
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADING})"))


def hold_arrivals(connection: Connection) -> None:
    """Hold the lock under which items are imported until the transaction ends.

    So the numbers of items become visible in their order, as on SQLite: none appears later below one that is visible.
    """
    connection.execute(text(f"SELECT pg_advisory_xact_lock({_ARRIVING})"))


def _bounds(lock_timeout_s: float, statement_timeout_s: float | None) -> str:
    values = {
        "lock_timeout": int(lock_timeout_s * 1000),
        "statement_timeout": int((statement_timeout_s or 0) * 1000),
        "idle_in_transaction_session_timeout": _IDLE_TIMEOUT_S * 1000,
    }
    return "; ".join(f"SET LOCAL {name} = {value}" for name, value in values.items())
