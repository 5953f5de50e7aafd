"""Write records and feedback as CSV that is safe to open in a spreadsheet, row by row."""

from __future__ import annotations

from collections.abc import Iterator

from shoplens.db import Database
from shoplens.predictions.entities import Feedback, PredictionRecord, RecordFilter
from shoplens.predictions.repository import FeedbackRepository, PredictionRepository
from shoplens.spreadsheets import csv_chunks

_PAGE = 100

RECORD_COLUMNS = (
    "id",
    "created_at",
    "channel",
    "model",
    "model_version",
    "label",
    "score",
    "decision",
    "decided_by",
    "threshold",
    "policy_version",
    "image_path",
    "image_format",
    "width",
    "height",
    "bytes",
    "sha256",
    "total_ms",
    "text",
    "file_name",
)
FEEDBACK_COLUMNS = (
    "feedback_id",
    "said_at",
    "verdict",
    "right_label",
    "comment",
    "image_path",
    "predicted_label",
    "score",
    "prediction_id",
    "predicted_at",
    "channel",
    "model",
    "model_version",
    "proposed_label",
)


class ExportTables:
    """Both exports stream in bounded memory. Iterating blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def records(self, wanted: RecordFilter) -> Iterator[str]:
        """Chunks of CSV text, newest record first."""
        yield from csv_chunks(RECORD_COLUMNS, map(_record_row, stream_records(self._database, wanted)))

    def feedback(self) -> Iterator[str]:
        """Chunks of CSV text, one row per remark."""
        yield from csv_chunks(FEEDBACK_COLUMNS, (_feedback_row(*pair) for pair in stream_feedback(self._database)))


def stream_records(database: Database, wanted: RecordFilter) -> Iterator[PredictionRecord]:
    """Every record that matches, newest first, a page in memory at a time; records added meanwhile do not appear.

    Each page is a transaction of its own, so a slow reader keeps nothing open.
    """
    last: str | None = None
    while True:
        with database.reading() as tx:
            page = PredictionRepository(tx).page(wanted, limit=_PAGE, before=last)
        if not page:
            return
        yield from page
        last = page[-1].id


def stream_feedback(database: Database) -> Iterator[tuple[Feedback, PredictionRecord]]:
    """All feedback with its predictions, oldest first, a page in memory at a time, each a transaction of its own."""
    last = ""
    while True:
        with database.reading() as tx:
            page = FeedbackRepository(tx).page(limit=_PAGE, after=last)
        if not page:
            return
        yield from page
        last = page[-1][0].id


def _record_row(record: PredictionRecord) -> tuple[object, ...]:
    best, image = record.labels[0], record.image
    return (
        record.id,
        record.created_at.isoformat(),
        record.channel,
        record.model.name,
        record.model.version,
        best.label,
        round(best.score, 6),
        record.decision.outcome.value,
        record.decision.label,
        record.decision.threshold,
        record.decision.policy_version,
        record.image_key,
        image.format,
        image.width,
        image.height,
        image.byte_count,
        image.sha256,
        record.timing.total_ms,
        record.text,
        record.file_name,
    )


def _feedback_row(feedback: Feedback, record: PredictionRecord) -> tuple[object, ...]:
    return (
        feedback.id,
        feedback.created_at.isoformat(),
        feedback.verdict.value,
        feedback.label,
        feedback.comment,
        record.image_key,
        record.labels[0].label,
        round(record.labels[0].score, 6),
        record.id,
        record.created_at.isoformat(),
        record.channel,
        record.model.name,
        record.model.version,
        feedback.proposed,
    )
