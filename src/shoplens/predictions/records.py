"""Stored predictions: look one up, page through them, and record what people say of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from shoplens.db import Database
from shoplens.db.tables import make_id
from shoplens.errors import RequestInvalid
from shoplens.predictions.entities import Feedback, FeedbackValue, PredictionRecord, RecordFilter
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.telemetry.metrics import Metrics

MAX_PAGE = 200
MAX_LABEL = 200
MAX_COMMENT = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPage:
    """Records with their feedback. `older` and `newer` are cursors, None where there are no such records."""

    records: list[PredictionRecord]
    feedback: dict[str, list[Feedback]]
    older: str | None
    newer: str | None


class RecordService:
    """Stored predictions and their feedback. All methods block and may be called from many threads."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime], metrics: Metrics) -> None:
        self._database = database
        self._clock = clock
        self._metrics = metrics

    def get(self, record_id: str) -> tuple[PredictionRecord, list[Feedback]]:
        """One record with its feedback, oldest first. Raises PredictionNotFound."""
        with self._database.reading() as tx:
            record = PredictionRepository(tx).get(record_id)
            return record, FeedbackRepository(tx).for_predictions([record_id]).get(record_id, [])

    def page(
        self, wanted: RecordFilter, *, limit: int = 50, before: str | None = None, after: str | None = None
    ) -> RecordPage:
        """Up to `limit` records, newest first: the newest, those older than `before`, or the ones next after `after`.

        `limit` is at most `MAX_PAGE`.
        """
        limit = min(limit, MAX_PAGE)
        with self._database.reading() as tx:
            found = PredictionRepository(tx).page(wanted, limit=limit + 1, before=before, after=after)
            more = len(found) > limit
            records = (found[-limit:] if after else found[:limit]) if more else found
            feedback = FeedbackRepository(tx).for_predictions([record.id for record in records])
        has_older = bool(records) and (more or bool(after))
        has_newer = bool(records) and (more if after else before is not None)
        return RecordPage(
            records=records,
            feedback=feedback,
            older=records[-1].id if has_older else None,
            newer=records[0].id if has_newer else None,
        )

    def labels(self) -> list[str]:
        """The distinct top labels of all records, for filters."""
        with self._database.reading() as tx:
            return PredictionRepository(tx).labels()

    def give_feedback(
        self,
        prediction_id: str,
        *,
        verdict: FeedbackValue = FeedbackValue.WRONG,
        label: str | None = None,
        comment: str | None = None,
    ) -> Feedback:
        """The feedback, committed when this returns.

        Raises PredictionNotFound, and RequestInvalid for a label or comment that is too long.
        """
        now = self._clock()
        feedback = Feedback(
            id=make_id(int(now.timestamp() * 1000), os.urandom(10)),
            created_at=now,
            prediction_id=prediction_id,
            verdict=verdict,
            label=_clean(label, "label", MAX_LABEL),
            comment=_clean(comment, "comment", MAX_COMMENT),
        )
        with self._database.transaction() as tx:
            FeedbackRepository(tx).add(feedback)
        self._metrics.feedback.labels(verdict=verdict).inc()
        return feedback


def _clean(text: str | None, name: str, limit: int) -> str | None:
    """Without surrounding blanks and NUL characters, which databases refuse; None where nothing is left."""
    cleaned = (text or "").replace("\x00", "").strip()
    if len(cleaned) > limit:
        raise RequestInvalid(f"The {name} has {len(cleaned)} characters; at most {limit} are stored.")
    return cleaned or None
