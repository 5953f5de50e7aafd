"""Stored predictions: look one up, page through them, and record what people say of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from shoplens.bundles.manifest import ModelRef
from shoplens.db import Database
from shoplens.predictions.confusion import Confusion, confusion
from shoplens.predictions.entities import Feedback, PredictionRecord, RecordFilter
from shoplens.predictions.feedback import NewFeedback, Settle, give
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.predictions.search import MOST_FOUND, RecordSearch
from shoplens.telemetry.metrics import Metrics

MAX_PAGE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPage:
    """Records with their feedback. `older` and `newer` are cursors, None where there are no such records.

    `total` counts all records that match; if it is not exact there are more.
    """

    records: list[PredictionRecord]
    feedback: dict[str, list[Feedback]]
    older: str | None
    newer: str | None
    total: int
    total_is_exact: bool


class RecordService:
    """Stored predictions and their feedback. All methods block and may be called from many threads.

    `settle` is asked first by `give_feedback`. `search` looks up the texts of filters.
    """

    def __init__(
        self,
        database: Database,
        *,
        clock: Callable[[], datetime],
        metrics: Metrics,
        settle: Settle = lambda _: None,
        search: RecordSearch | None = None,
    ) -> None:
        self._search = search or RecordSearch()
        self._database = database
        self._settle = settle
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
            repository = PredictionRepository(tx)
            searched = self._search.resolve(tx, wanted)
            found = repository.page(searched.wanted, limit=limit + 1, before=before, after=after)
            total = repository.count(searched.wanted, most=MOST_FOUND + 1)
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
            total=min(total, MOST_FOUND),
            total_is_exact=total <= MOST_FOUND and not searched.more,
        )

    def neighbours(self, wanted: RecordFilter, record_id: str) -> tuple[str | None, str | None]:
        """The ids of the next newer and the next older record that match; None at the ends."""
        with self._database.reading() as tx:
            searched = self._search.resolve(tx, wanted).wanted
            repository = PredictionRepository(tx)
            newer = repository.page(searched, limit=1, after=record_id)
            older = repository.page(searched, limit=1, before=record_id)
        return newer[0].id if newer else None, older[0].id if older else None

    def resolved(self, wanted: RecordFilter) -> RecordFilter:
        """The filter with what its text finds now, for reads that take long."""
        with self._database.reading() as tx:
            return self._search.resolve(tx, wanted).wanted

    def labels(self) -> list[str]:
        """The distinct top labels of all records, for filters."""
        with self._database.reading() as tx:
            return PredictionRepository(tx).labels()

    def confusion(self, model: ModelRef) -> Confusion:
        """What people said that the photos show, against what this version of a model predicted."""
        with self._database.reading() as tx:
            return confusion(tx, model)

    def give_feedback(self, new: NewFeedback) -> Feedback:
        """Store what a person said, committed when this returns. What else shows the prediction is settled with it.

        Raises PredictionNotFound, RequestInvalid for a text that is too long, and ItemChanged if somebody else
        answered since `new.seen`.
        """
        new = new.cleaned()
        given = self._settle(new)
        if given is None:
            with self._database.transaction() as tx:
                given = give(tx, new, now=self._clock())
        self._metrics.feedback.labels(verdict=new.verdict).inc()
        return given
