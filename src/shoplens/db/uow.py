"""The one owner of transactions: nothing else in Shoplens commits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, Engine

from shoplens.db.feedback import FeedbackReader, FeedbackRepository
from shoplens.db.predictions import PredictionReader, PredictionRepository


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Commit at the end of the block, roll back on an error."""
    with engine.begin() as connection:
        yield connection


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
