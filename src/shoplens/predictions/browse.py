"""Look records up: one by its id, or a page of them, newest first."""

from __future__ import annotations

from dataclasses import dataclass

from shoplens.db import Database
from shoplens.predictions.entities import Feedback, PredictionRecord, RecordFilter
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository

MAX_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPage:
    """Records with what people said of them. `older` and `newer` are cursors, None where nothing lies there."""

    records: list[PredictionRecord]
    feedback: dict[str, list[Feedback]]
    older: str | None
    newer: str | None


class BrowseRecords:
    """Reads only. All methods block."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, record_id: str) -> tuple[PredictionRecord, list[Feedback]]:
        """Raises PredictionNotFound."""
        with self._database.reading() as tx:
            record = PredictionRepository(tx).get(record_id)
            return record, FeedbackRepository(tx).for_predictions([record_id]).get(record_id, [])

    def page(
        self, wanted: RecordFilter, *, limit: int = 50, before: str | None = None, after: str | None = None
    ) -> RecordPage:
        """Up to `limit` records older than `before`, or the ones just newer than `after`."""
        limit = min(limit, MAX_PAGE)
        with self._database.reading() as tx:
            found = PredictionRepository(tx).page(wanted, limit=limit + 1, before=before, after=after)
            more = len(found) > limit
            records = (found[-limit:] if after else found[:limit]) if more else found
            feedback = FeedbackRepository(tx).for_predictions([record.id for record in records])
        has_older = bool(records) and (more if not after else True)
        has_newer = bool(records) and (more if after else before is not None)
        return RecordPage(
            records=records,
            feedback=feedback,
            older=records[-1].id if has_older else None,
            newer=records[0].id if has_newer else None,
        )

    def labels(self) -> list[str]:
        """The best labels that occur, for filters."""
        with self._database.reading() as tx:
            return PredictionRepository(tx).labels()
