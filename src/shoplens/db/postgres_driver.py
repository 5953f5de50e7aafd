"""A psycopg connection on which no wait is endless. Imported only where PostgreSQL is used: its driver is an extra."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.string import StrDumperUnknown

_ANSWER_S: Final = 5.0
"""How long the server may take outside of a transaction: for a ping, or to begin one."""
_MORE_THAN_SERVER_S: Final = 5.0
"""How much longer than the server's own statement timeout the client waits within a transaction."""


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
