"""The repository of predictions: find, page, stream and add rows within a transaction that someone else owns."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from sqlalchemy import CompoundSelect, Connection, Select, func, select, update

from shoplens.db.tables import predictions
from shoplens.errors import PredictionNotFound
from shoplens.predictions import record_queries
from shoplens.predictions.entities import PredictionRecord, RecordFilter
from shoplens.predictions.prediction_insert import insert_predictions
from shoplens.predictions.rows import prediction_from_row, prediction_to_values

_STREAM_ROWS: Final = 500


def _nothing() -> None:
    """A unit of work keeps its transaction between the pages of a stream."""


class PredictionReader:
    """Read predictions. Every method raises DatabaseUnavailable through the unit of work that owns it."""

    def __init__(self, connection: Connection, *, after_page: Callable[[], None] = _nothing) -> None:
        self._connection = connection
        self._after_page = after_page

    def get(self, prediction_id: str) -> PredictionRecord:
        """Raises PredictionNotFound."""
        row = self._connection.execute(select(predictions).where(predictions.c.id == prediction_id)).one_or_none()
        if row is None:
            raise PredictionNotFound(f"There is no prediction {prediction_id!r}.")
        return prediction_from_row(row)

    def page(
        self, wanted: RecordFilter, *, limit: int, before: str | None = None, after: str | None = None
    ) -> list[PredictionRecord]:
        """At most `limit` records, newest first: the newest, the next older than `before`, or the next newer than
        `after` (both are ids of records, themselves excluded). Needs no sorting, however many rows there are.
        """
        found = self._rows(wanted, before=before, after=after)
        # Towards newer records the nearest ones come first, so they are asked for upwards and turned round.
        upwards = after is not None and before is None
        order = found.selected_columns.id.asc() if upwards else found.selected_columns.id.desc()
        records = [prediction_from_row(row) for row in self._connection.execute(found.order_by(order).limit(limit))]
        return records[::-1] if upwards else records

    def stream(self, wanted: RecordFilter) -> Iterator[PredictionRecord]:
        """Every record that matches, newest first, a page in memory at a time.

        For a reader, each page has a view of its own: a slow consumer holds nothing back. Newer records never appear.
        """
        last: str | None = None
        while records := self.page(wanted, limit=_STREAM_ROWS, before=last):
            self._after_page()
            yield from records
            last = records[-1].id

    def count_at_most(self, wanted: RecordFilter, limit: int) -> int:
        """How many records match, counting no further than `limit`."""
        found = self._rows(wanted, before=None, after=None).limit(limit).subquery()
        return int(self._connection.execute(select(func.count()).select_from(found)).scalar_one())

    def labels(self, limit: int = 5_000) -> list[str]:
        """The different best labels in alphabetical order, at most `limit`."""
        return list(self._connection.scalars(record_queries.distinct(predictions.c.top_label).limit(limit)))

    def channels(self, limit: int = 100) -> list[str]:
        """The different channels in alphabetical order, at most `limit`."""
        return list(self._connection.scalars(record_queries.distinct(predictions.c.channel).limit(limit)))

    def _rows(
        self, wanted: RecordFilter, *, before: str | None, after: str | None
    ) -> Select[Any] | CompoundSelect[Any]:
        channels = self.channels(record_queries.MOST_CHANNELS + 1) if record_queries.needs_channels(wanted) else []
        return record_queries.rows(wanted, record_queries.id_range(wanted, before=before, after=after), channels)


class PredictionRepository(PredictionReader):
    """Read and add predictions, and follow their photos."""

    def add_many(self, records: Iterable[PredictionRecord]) -> None:
        """All or none of `records`. Raises RecordRefused (through the unit of work) where a row does not fit."""
        insert_predictions(self._connection, [prediction_to_values(record) for record in records])

    def move_image(self, prediction_id: str, image_key: str) -> None:
        """The kept photo lies under another key from now on. Raises PredictionNotFound."""
        moved = update(predictions).where(predictions.c.id == prediction_id).values(image_key=image_key)
        if self._connection.execute(moved).rowcount != 1:
            raise PredictionNotFound(f"There is no prediction {prediction_id!r}.")
