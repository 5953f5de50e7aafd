"""A connection of psycopg that never waits for ever. Imported only where PostgreSQL is used: its driver is an extra."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.types.string import StrDumperUnknown

_ANSWER_S: Final = 5.0
"""How long the server may take outside of a transaction, where it is asked only whether it is there, or to begin."""
_MORE_THAN_SERVER_S: Final = 5.0


class Writable(StrDumperUnknown):
    """PostgreSQL keeps no NUL in a text; what reads like one stands for it, when writing and when asking."""

    def dump(self, obj: str) -> Any:
        """The bytes to send."""
        return super().dump(obj.replace("\x00", "\ufffd") if "\x00" in obj else obj)


class BoundedConnection(psycopg.Connection[Any]):
    """Gives up by its own clock: a server that hangs, or whose machine does, keeps no promise about time.

    `statement_timeout_s` is the bound that the server was given; None is none, as for migrations.
    """

    statement_timeout_s: float | None = None

    def wait(self, gen: Any, *args: Any, **kwargs: Any) -> Any:
        """See psycopg; raises OperationalError when there is no answer for too long, and is then closed."""
        return super().wait(self._bounded(gen), *args, **kwargs)

    def _bounded(self, work: Any) -> Generator[Any, Any, Any]:
        give_up_at = self._give_up_at()
        try:
            wanted = next(work)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > give_up_at:
                    work.close()
                    self.pgconn.finish()
                    raise psycopg.OperationalError("the connection is lost: timeout of an answer")
                wanted = work.send(ready)
        except StopIteration as end:
            return end.value

    def _give_up_at(self) -> float:
        if self.pgconn.transaction_status == TransactionStatus.IDLE:
            return time.monotonic() + _ANSWER_S
        if self.statement_timeout_s is None:
            return float("inf")
        return time.monotonic() + self.statement_timeout_s + _MORE_THAN_SERVER_S
