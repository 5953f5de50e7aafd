"""The repository of feedback: what people said of predictions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from sqlalchemy import Connection, insert, select

from shoplens.db.tables import feedback, predictions
from shoplens.errors import PredictionNotFound
from shoplens.predictions.entities import Feedback, PredictionRecord
from shoplens.predictions.rows import feedback_from_row, feedback_to_row, prediction_from_row

_STREAM_ROWS: Final = 500


def _nothing() -> None:
    """A unit of work keeps its transaction between the pages of a stream."""


class FeedbackReader:
    """Read feedback."""

    def __init__(self, connection: Connection, *, after_page: Callable[[], None] = _nothing) -> None:
        self._connection = connection
        self._after_page = after_page

    def for_predictions(self, prediction_ids: Iterable[str]) -> dict[str, list[Feedback]]:
        """The remarks on each of these predictions, oldest first; predictions without any are left out."""
        query = select(feedback).where(feedback.c.prediction_id.in_(list(prediction_ids))).order_by(feedback.c.id)
        found: defaultdict[str, list[Feedback]] = defaultdict(list)
        for row in self._connection.execute(query):
            found[row.prediction_id].append(feedback_from_row(row))
        return dict(found)

    def stream(self) -> Iterator[tuple[Feedback, PredictionRecord]]:
        """Every remark with its prediction, oldest first, a page in memory at a time."""
        last = ""
        while remarks := self._page(after=last):
            records = self._records(remark.prediction_id for remark in remarks)
            self._after_page()
            for remark in remarks:
                yield remark, records[remark.prediction_id]
            last = remarks[-1].id

    def _page(self, *, after: str) -> list[Feedback]:
        query = select(feedback).where(feedback.c.id > after).order_by(feedback.c.id).limit(_STREAM_ROWS)
        return [feedback_from_row(row) for row in self._connection.execute(query)]

    def _records(self, prediction_ids: Iterable[str]) -> dict[str, PredictionRecord]:
        query = select(predictions).where(predictions.c.id.in_(set(prediction_ids)))
        return {row.id: prediction_from_row(row) for row in self._connection.execute(query)}


class FeedbackRepository(FeedbackReader):
    """Read and add feedback."""

    def add(self, remark: Feedback) -> None:
        """Raises PredictionNotFound where there is no such prediction."""
        query = select(predictions.c.id).where(predictions.c.id == remark.prediction_id)
        if self._connection.execute(query).first() is None:
            raise PredictionNotFound(f"There is no prediction {remark.prediction_id!r}.")
        self._connection.execute(insert(feedback), feedback_to_row(remark))
