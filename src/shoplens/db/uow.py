"""The one owner of transactions: nothing else in Shoplens commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine

from shoplens.batch.item_queries import ItemReader, ItemRepository
from shoplens.batch.item_table import ItemTableReader, ItemTableRepository
from shoplens.batch.run_queries import RunReader, RunRepository
from shoplens.db import postgres
from shoplens.predictions.feedback_repository import FeedbackReader, FeedbackRepository
from shoplens.predictions.predictions_repository import PredictionReader, PredictionRepository


class ReadWork:
    """The repositories for reading, over one consistent view; streams renew it after every page."""

    def __init__(self, connection: Connection) -> None:
        def renew() -> None:
            connection.rollback()
            _begin(connection, writes=False)

        self.predictions = PredictionReader(connection, after_page=renew)
        self.feedback = FeedbackReader(connection, after_page=renew)
        self.batch_items = ItemReader(connection, after_page=renew)
        self.batch_runs = RunReader(connection)
        self.item_table = ItemTableReader(connection, after_page=renew)


class UnitOfWork:
    """The repositories for reading and writing, over one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.predictions = PredictionRepository(connection)
        self.feedback = FeedbackRepository(connection)
        self.batch_items = ItemRepository(connection)
        self.batch_runs = RunRepository(connection)
        self.item_table = ItemTableRepository(connection)


@contextmanager
def reading(engine: Engine) -> Iterator[ReadWork]:
    """A transaction that only reads."""
    with engine.connect() as connection:
        _begin(connection, writes=False)
        yield ReadWork(connection)


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that may write: committed at the end of the block, rolled back on an error."""
    with engine.connect() as connection:
        _begin(connection, writes=True)
        yield connection
        connection.commit()


def _begin(connection: Connection, *, writes: bool) -> None:
    """On SQLite straight at the driver: through SQLAlchemy this statement costs more than the transaction itself.

    A reader that turns into a writer fails at once when somebody wrote meanwhile, so writers lock from the start.
    """
    connection.begin()
    if connection.dialect.name == "postgresql":
        postgres.begin(connection, writes=writes)
    else:
        driver: Any = connection.connection.dbapi_connection
        driver.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
