"""A second process that holds the write lock: others cannot write meanwhile, but can read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import psycopg

from shoplens.db.sqlite import driver as sqlite3

_TABLES: Final = "predictions, feedback, batch_runs, batch_items, alembic_version"


class Blocker:
    """May be called from any thread."""

    def __init__(self, url: str) -> None:
        self._connection: Any
        if url.startswith("sqlite"):
            path = url.removeprefix("sqlite:///")
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._begin = ["BEGIN IMMEDIATE"]
        else:
            self._connection = psycopg.connect(url, autocommit=True)
            self._begin = ["BEGIN", f"LOCK TABLE {_TABLES} IN EXCLUSIVE MODE"]

    def block(self) -> None:
        """From now on no other process can write."""
        for statement in self._begin:
            self._connection.execute(statement)

    def release(self) -> None:
        """They may again."""
        self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()


@contextmanager
def blocked(url: str) -> Iterator[None]:
    """Nobody else writes within the block."""
    with closing(Blocker(url)) as blocker:
        blocker.block()
        yield
        blocker.release()
