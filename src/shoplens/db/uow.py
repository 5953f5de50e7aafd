"""The one owner of transactions: nothing else in Shoplens commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine

from shoplens.db.feedback import FeedbackReader, FeedbackRepository
from shoplens.db.predictions import PredictionReader, PredictionRepository


@contextmanager
def transaction(engine: Engine, *, writes: bool) -> Iterator[Connection]:
    """Commit at the end of the block, roll back on an error; `writes` says whether the block may write."""
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            _begin_sqlite(connection, writes=writes)
        yield connection


def _begin_sqlite(connection: Connection, *, writes: bool) -> None:
    """Straight to the driver: through SQLAlchemy this statement would cost more than the transaction itself.

    A reader that turns into a writer fails at once when somebody wrote meanwhile, so writers lock from the start.
    """
    driver: Any = connection.connection.dbapi_connection
    driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")


class ReadWork:
    """The repositories for reading, over one consistent view."""

    def __init__(self, connection: Connection) -> None:
        self.predictions = PredictionReader(connection)
        self.feedback = FeedbackReader(connection)


class UnitOfWork:
    """The repositories for reading and writing, over one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.predictions = PredictionRepository(connection)
        self.feedback = FeedbackRepository(connection)
