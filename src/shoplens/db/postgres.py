"""Engines for PostgreSQL, through psycopg and any pooler in front of the server.

No setting of a connection outlives its transaction and no statement stays prepared: behind a pooler the next
transaction may run on another connection of the server. Every wait is bounded, by the server and by the client.
Imported only where PostgreSQL is used: its driver is an extra.
"""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import URL, Engine, create_engine, event

from shoplens.errors import Misconfigured

CONNECT_TIMEOUT_S: Final = 5
_IDLE_TIMEOUT_S: Final = 60
"""How long a process that hangs within a transaction may hold its locks."""
_RECYCLE_S: Final = 1_800
_SILENCE_MS: Final = 15_000
"""How long the kernel of the server may leave sent data unacknowledged."""
_CONNECT_OPTIONS: Final = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": _SILENCE_MS,
    "application_name": "shoplens",
    "prepare_threshold": None,
}
_ANSWER_S: Final = 5.0
"""How long the server may take outside of a transaction: for a ping, or to begin one."""
_MORE_THAN_SERVER_S: Final = 5.0
"""How much longer than the server's own statement timeout the client waits within a transaction."""


def make_postgres_engine(
    url: URL, *, pool: int, lock_timeout_s: float, statement_timeout_s: float | None, **options: Any
) -> Engine:
    """An engine that keeps at most `pool` connections.

    `connection.info["bounds"]` has the statements that bound the waits of a transaction; see `database.begin`.
    """
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
    timeouts_ms = {
        "lock_timeout": int(lock_timeout_s * 1000),
        "statement_timeout": int((statement_timeout_s or 0) * 1000),
        "idle_in_transaction_session_timeout": _IDLE_TIMEOUT_S * 1000,
    }
    bounds = "; ".join(f"SET LOCAL {name} = {value}" for name, value in timeouts_ms.items())

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: Any, record: Any, positional: Any, named: Any) -> Any:
        connection = BoundedConnection.connect(*positional, **{**_CONNECT_OPTIONS, **named})
        encoding = connection.info.parameter_status("server_encoding")
        if encoding != "UTF8":  # others cannot store every file name and label; for SQL_ASCII the driver returns bytes
            connection.close()
            raise Misconfigured(
                f"The database that database_url names is encoded in {encoding}; Shoplens needs UTF8. Create another "
                "one with `createdb --encoding=UTF8 --template=template0`."
            )
        connection.statement_timeout_s = statement_timeout_s
        connection.adapters.register_dumper(str, Writable)
        record.info["bounds"] = bounds
        return connection

    return engine


class Writable(StrDumperUnknown):
    """Sends U+FFFD for NUL, both in stored values and in filters: PostgreSQL has no NUL in its texts."""

    def dump(self, obj: str) -> Any:
        """The bytes to send."""
        return super().dump(obj.replace("\x00", "\ufffd") if "\x00" in obj else obj)


class BoundedConnection(psycopg.Connection[Any]):
    """Bounds every wait for an answer by the client's clock.

    A server that is frozen ends no statement, and its kernel still acknowledges what is sent to it, so neither
    `statement_timeout` nor keepalives nor `tcp_user_timeout` end the wait. Decision record 20 has figures.
    """

    statement_timeout_s: float | None = None
    """The statement timeout that the server was given; None where it has none, as for migrations."""

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """See psycopg. Raises OperationalError and closes the connection when there is no answer in time."""
        if timeout is None:
            if self.pgconn.transaction_status == TransactionStatus.IDLE:
                timeout = _ANSWER_S
            elif self.statement_timeout_s is not None:
                timeout = self.statement_timeout_s + _MORE_THAN_SERVER_S
        try:
            return super().wait(gen, interval=interval, timeout=timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:  # the answer may still arrive
                self.pgconn.finish()
            raise
