"""Predictions and feedback in the database: one class per table, over a transaction that the caller opened.

Every method raises DatabaseUnavailable and RecordRefused through that transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, insert, select, union_all, update

from shoplens.db.tables import distinct, from_row, make_id, to_row
from shoplens.errors import PredictionNotFound
from shoplens.predictions.entities import Feedback, PredictionRecord, RecordFilter
from shoplens.predictions.policy import Outcome
from shoplens.predictions.search import key_of
from shoplens.predictions.tables import feedback, predictions

MOST_CHANNELS: Final = 100
"""With more channels than this, a filter without a channel reads one range and sorts: SQLite merges at most 500."""

_LAST_MS: Final = (1 << 48) - 1
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class PredictionRepository:
    """The table `predictions`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add_many(self, records: Iterable[PredictionRecord]) -> None:
        """Add all of `records` or, on an error, none."""
        rows = [
            to_row(record)
            | {
                "top_label": record.labels[0].label,
                "top_score": record.labels[0].score,
                "file_key": key_of(record.file_name),
            }
            for record in records
        ]
        if rows:
            self._tx.execute(insert(predictions), rows)

    def move_image(self, prediction_id: str, image_key: str) -> None:
        """Note that the stored image has another key now. Raises PredictionNotFound."""
        moved = update(predictions).where(predictions.c.id == prediction_id).values(image_key=image_key)
        if self._tx.execute(moved).rowcount != 1:
            raise PredictionNotFound(f"There is no prediction {prediction_id!r}.")

    def get(self, prediction_id: str) -> PredictionRecord:
        """Raises PredictionNotFound."""
        row = self._tx.execute(select(predictions).where(predictions.c.id == prediction_id)).one_or_none()
        if row is None:
            raise PredictionNotFound(f"There is no prediction {prediction_id!r}.")
        return from_row(PredictionRecord, row)

    def page(
        self, wanted: RecordFilter, *, limit: int, before: str | None = None, after: str | None = None
    ) -> list[PredictionRecord]:
        """At most `limit` records, newest first: the newest, the next older than `before`, or the next newer than
        `after` (both are ids of records and exclusive). Reads only rows that it returns, however many there are.
        """
        found = self._matching(wanted, before=before, after=after)
        # Towards newer records the nearest ones come first, so they are read upwards and reversed.
        upwards = after is not None and before is None
        order = found.selected_columns.id.asc() if upwards else found.selected_columns.id.desc()
        rows = self._tx.execute(found.order_by(order).limit(limit))
        records = [from_row(PredictionRecord, row) for row in rows]
        return records[::-1] if upwards else records

    def labels(self, limit: int = 5_000) -> list[str]:
        """The distinct top labels in alphabetical order, at most `limit`."""
        return list(self._tx.scalars(distinct(predictions.c.top_label).limit(limit)))

    def channels(self, limit: int = 100) -> list[str]:
        """The distinct channels in alphabetical order, at most `limit`."""
        return list(self._tx.scalars(distinct(predictions.c.channel).limit(limit)))

    def photo_keys(self, limit: int) -> list[tuple[str, str]]:
        """The newest keys of kept photos, each with the hash of the photo that was sent."""
        rows = select(predictions.c.image_key, predictions.c.image_sha256).where(predictions.c.image_key.is_not(None))
        found = self._tx.execute(rows.order_by(predictions.c.id.desc()).limit(limit))
        return [(str(key), sha256) for key, sha256 in found]

    def _matching(self, wanted: RecordFilter, *, before: str | None, after: str | None) -> Any:
        channels: Sequence[str] = ()
        if wanted.channel is None and (wanted.label is not None or wanted.outcome is not None):
            channels = self.channels(MOST_CHANNELS + 1)
        return matching(wanted, before=before, after=after, channels=channels)


def add_records(tx: Connection, records: Iterable[PredictionRecord]) -> None:
    """Add all of `records` or, on an error, none: what a `GroupWriter` of predictions does within its transaction."""
    PredictionRepository(tx).add_many(records)


class FeedbackRepository:
    """The table `feedback`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, given: Feedback) -> None:
        """Raises PredictionNotFound where there is no such prediction."""
        query = select(predictions.c.id).where(predictions.c.id == given.prediction_id)
        if self._tx.execute(query).first() is None:
            raise PredictionNotFound(f"There is no prediction {given.prediction_id!r}.")
        self._tx.execute(insert(feedback), to_row(given))

    def withdraw(self, prediction_id: str, *, now: datetime) -> int:
        """Mark all feedback on a prediction as withdrawn; returns how many there were."""
        valid = (feedback.c.prediction_id == prediction_id, feedback.c.withdrawn_at.is_(None))
        return self._tx.execute(update(feedback).where(*valid).values(withdrawn_at=now)).rowcount

    def for_predictions(self, prediction_ids: Iterable[str]) -> dict[str, list[Feedback]]:
        """The feedback on each of these predictions, oldest first; predictions without any are left out.

        Feedback that was withdrawn is left out too.
        """
        these = (feedback.c.prediction_id.in_(list(prediction_ids)), feedback.c.withdrawn_at.is_(None))
        query = select(feedback).where(*these).order_by(feedback.c.id)
        found: defaultdict[str, list[Feedback]] = defaultdict(list)
        for row in self._tx.execute(query):
            found[row.prediction_id].append(from_row(Feedback, row))
        return dict(found)

    def page(self, *, limit: int, after: str = "") -> list[tuple[Feedback, PredictionRecord]]:
        """At most `limit` entries with their predictions, oldest first, from the one after the id `after` on.

        Feedback that was withdrawn is left out.
        """
        valid = (feedback.c.id > after, feedback.c.withdrawn_at.is_(None))
        query = select(feedback).where(*valid).order_by(feedback.c.id).limit(limit)
        given = [from_row(Feedback, row) for row in self._tx.execute(query)]
        of_these = select(predictions).where(predictions.c.id.in_({each.prediction_id for each in given}))
        records = {row.id: from_row(PredictionRecord, row) for row in self._tx.execute(of_these)}
        return [(each, records[each.prediction_id]) for each in given]


def matching(wanted: RecordFilter, *, before: str | None, after: str | None, channels: Sequence[str]) -> Any:
    """A SELECT of all columns of the rows that match, which the database can order by id without sorting.

    An index is in the order of ids only within one value of every column before the id. So where a filter leaves such
    a column open, one index range per value is read, and the ranges are merged by id. `channels` are all that exist.
    """
    column = predictions.c.id
    within: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        within.append(column >= _first_id(wanted.since))
    if wanted.until is not None:
        within.append(column < _first_id(wanted.until))
    if after is not None:
        within.append(column > after)
    if before is not None:
        within.append(column < before)
    equal: list[ColumnElement[bool]] = []
    if wanted.label is not None:
        equal.append(predictions.c.top_label == wanted.label)
    if wanted.channel is None and ((wanted.outcome is None and not equal) or not 0 < len(channels) <= MOST_CHANNELS):
        if wanted.outcome is not None:
            equal.append(predictions.c.decision_outcome == wanted.outcome)
        return select(predictions).where(*equal, *within)
    ranges: list[Select[Any]] = [
        select(predictions).where(
            *equal, predictions.c.channel == channel, predictions.c.decision_outcome == outcome, *within
        )
        for channel, outcome in product(
            channels if wanted.channel is None else [wanted.channel],
            Outcome if wanted.outcome is None else [wanted.outcome],
        )
    ]
    return ranges[0] if len(ranges) == 1 else union_all(*ranges)


def _first_id(moment: datetime) -> str:
    """The least id of the millisecond of `moment`, since ids begin with their time; UTC where it names no zone."""
    since_epoch = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    unix_ms = (since_epoch.days * 86_400 + since_epoch.seconds) * 1000 + since_epoch.microseconds // 1000
    return make_id(min(max(unix_ms, 0), _LAST_MS), bytes(10))
