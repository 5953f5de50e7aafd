"""The repositories of one transaction in one object. Only for `batch`, until its repositories take a connection."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from shoplens.batch.item_queries import ItemReader, ItemRepository
from shoplens.batch.item_table import ItemTableReader, ItemTableRepository
from shoplens.batch.run_queries import RunReader, RunRepository
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository


class ReadWork:
    """The repositories for reading, over one consistent view; streams renew it after every page."""

    def __init__(self, connection: Connection, renew: Callable[[], None]) -> None:
        self.predictions = PredictionRepository(connection)
        self.feedback = FeedbackRepository(connection)
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
