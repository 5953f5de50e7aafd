"""Predictions and feedback in the database: one class per table, over a transaction that the caller opened.

Every method raises DatabaseUnavailable and RecordRefused through that transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select, union_all, update

from shoplens.db.tables import distinct, from_row, make_id, to_row
from shoplens.errors import PredictionNotFound
from shoplens.predictions.entities import Aged, Feedback, PredictionRecord, RecordFilter, key_of
from shoplens.predictions.policy import Outcome
from shoplens.predictions.tables import feedback, predictions
from shoplens.serving.engine import LabelScore

MOST_CHANNELS: Final = 100
"""With more channels than this, a filter without a channel reads one range and sorts: SQLite merges at most 500."""

_CHUNK: Final = 500
"""How many ids one statement names."""
_AFTER_ALL: Final = "\U0010ffff"
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
        if wanted.ids is not None:
            return self._page_of_ids(wanted, wanted.ids, limit=limit, before=before, after=after)
        found = self._matching(wanted, before=before, after=after)
        # Towards newer records the nearest ones come first, so they are read upwards and reversed.
        upwards = after is not None and before is None
        order = found.selected_columns.id.asc() if upwards else found.selected_columns.id.desc()
        rows = self._tx.execute(found.order_by(order).limit(limit))
        records = [from_row(PredictionRecord, row) for row in rows]
        return records[::-1] if upwards else records

    def count(self, wanted: RecordFilter, *, most: int) -> int:
        """How many records match; `most` where there are as many or more."""
        if wanted.ids is not None:
            counted = 0
            for ids in _chunks([each for each in wanted.ids if _within(each, wanted)]):
                query = select(func.count()).where(predictions.c.id.in_(ids), *_equal(wanted))
                counted += int(self._tx.scalar(query) or 0)
            return min(counted, most)
        found = self._matching(wanted, before=None, after=None, columns=(predictions.c.id,))
        # Each range is bounded on its own, so that a database that merges them reads no further either.
        return int(self._tx.scalar(select(func.count()).select_from(found.limit(most).subquery())) or 0)

    def newest_ids(self, wanted: RecordFilter, limit: int) -> list[str]:
        """The ids of at most `limit` records that match, newest first."""
        if wanted.ids is not None:
            ids: list[str] = []
            for some in _chunks([each for each in wanted.ids if _within(each, wanted)]):
                query = select(predictions.c.id).where(predictions.c.id.in_(some), *_equal(wanted))
                ids += sorted(self._tx.scalars(query), reverse=True)
            return ids[:limit]
        found = self._matching(wanted, before=None, after=None, columns=(predictions.c.id,))
        return list(self._tx.scalars(found.order_by(found.selected_columns.id.desc()).limit(limit)))

    def named(self, beginning: str, limit: int) -> list[str]:
        """The ids of at most `limit` records whose file name begins so, in any case and in no particular order."""
        key = key_of(beginning) or ""
        column = predictions.c.file_key
        found = select(predictions.c.id).where(column >= key, column < key + _AFTER_ALL)
        return list(self._tx.scalars(found.order_by(column, predictions.c.id).limit(limit)))

    def hashes(self, after: str, limit: int) -> list[tuple[str, str]]:
        """Ids and perceptual hashes of at most `limit` records after an id, oldest first; "" without a photo."""
        found = select(predictions.c.id, predictions.c.image_phash).where(predictions.c.id > after)
        return [(row.id, row.image_phash) for row in self._tx.execute(found.order_by(predictions.c.id).limit(limit))]

    def scores(self, ids: Sequence[str]) -> dict[str, tuple[LabelScore, ...]]:
        """The stored labels of these records, best first."""
        found = select(predictions.c.id, predictions.c.labels).where(predictions.c.id.in_(ids))
        return {row.id: row.labels for row in self._tx.execute(found)}

    def with_hash(self, phash: str, limit: int) -> list[PredictionRecord]:
        """The newest records of photos with this perceptual hash."""
        found = select(predictions).where(predictions.c.image_phash == phash)
        rows = self._tx.execute(found.order_by(predictions.c.id.desc()).limit(limit))
        return [from_row(PredictionRecord, row) for row in rows]

    def photo_elsewhere(self, record: PredictionRecord, than: Sequence[str]) -> set[str]:
        """The keys under which records that are not among `than` show the same photo."""
        # The perceptual hash has an index, and equal photos have equal ones.
        same = (predictions.c.image_phash == record.image.phash, predictions.c.image_sha256 == record.image.sha256)
        shown = (predictions.c.image_key.is_not(None), predictions.c.photo_deleted_at.is_(None))
        found = select(predictions.c.image_key).where(*same, *shown, predictions.c.id.not_in(than)).distinct()
        return {str(key) for key in self._tx.scalars(found)}

    def aged(self, channel: str, *, after: str, until: datetime, limit: int, with_photo: bool) -> list[Aged]:
        """At most `limit` records of a channel that were made before `until`, oldest first, from the one after `after`
        on; with `with_photo` only those that still have one. The days of a record begin with the last feedback.
        """
        column, made = predictions.c.id, predictions.c.created_at
        within = [predictions.c.channel == channel, column > after, column < _first_id(until)]
        if with_photo:
            within.append(predictions.c.image_key.is_not(None))
        chosen = select(column, made, predictions.c.decision_outcome).where(*within).order_by(column).limit(limit)
        rows = self._tx.execute(chosen).all()
        said: dict[str, datetime] = {}
        valid = feedback.c.withdrawn_at.is_(None)
        for ids in _chunks([row.id for row in rows]):
            newest = select(feedback.c.prediction_id, func.max(feedback.c.created_at).label("at"))
            newest = newest.where(feedback.c.prediction_id.in_(ids), valid).group_by(feedback.c.prediction_id)
            said |= {row.prediction_id: row.at for row in self._tx.execute(newest)}
        return [
            Aged(
                id=row.id,
                made_at=row.created_at,
                since=max(row.created_at, said.get(row.id, row.created_at)),
                waits=row.decision_outcome == Outcome.REVIEW and row.id not in said,
            )
            for row in rows
        ]

    def mark_photos(self, ids: Sequence[str], *, now: datetime) -> None:
        """Note that the photos of these records are being deleted: nothing shows them from now on."""
        kept = (predictions.c.image_key.is_not(None), predictions.c.photo_deleted_at.is_(None))
        marked = update(predictions).where(predictions.c.id.in_(ids), *kept)
        self._tx.execute(marked.values(photo_deleted_at=now))

    def drop_photos(self, ids: Sequence[str]) -> int:
        """Forget the keys of photos that were deleted; how many there were."""
        gone = (predictions.c.image_key.is_not(None), predictions.c.photo_deleted_at.is_not(None))
        dropped = update(predictions).where(predictions.c.id.in_(ids), *gone).values(image_key=None)
        return self._tx.execute(dropped).rowcount

    def remove(self, ids: Sequence[str]) -> int:
        """Delete these records with their feedback; how many there were."""
        return self._tx.execute(delete(predictions).where(predictions.c.id.in_(ids))).rowcount

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

    def keys_in_deletion(self) -> set[str]:
        """The keys of photos that are being deleted: each is there or not."""
        gone = (predictions.c.photo_deleted_at.is_not(None), predictions.c.image_key.is_not(None))
        return set(self._tx.scalars(select(predictions.c.image_key).where(*gone)))

    def _page_of_ids(
        self, wanted: RecordFilter, ids: Sequence[str], *, limit: int, before: str | None, after: str | None
    ) -> list[PredictionRecord]:
        inside = [each for each in ids if _within(each, wanted, before=before, after=after)]
        upwards = after is not None and before is None
        found: list[PredictionRecord] = []
        for some in _chunks(inside[::-1] if upwards else inside):
            query = select(predictions).where(predictions.c.id.in_(some), *_equal(wanted))
            rows = {row.id: row for row in self._tx.execute(query)}
            found += [from_row(PredictionRecord, rows[each]) for each in some if each in rows]
            if len(found) >= limit:
                break
        return found[:limit][::-1] if upwards else found[:limit]

    def _matching(
        self,
        wanted: RecordFilter,
        *,
        before: str | None,
        after: str | None,
        columns: Sequence[Any] = (predictions,),
    ) -> Any:
        channels: Sequence[str] = ()
        if wanted.channel is None and (wanted.label is not None or wanted.outcome is not None):
            channels = self.channels(MOST_CHANNELS + 1)
        return matching(wanted, before=before, after=after, channels=channels, columns=columns)


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

    def said_of(self, prediction_ids: Iterable[str]) -> set[str]:
        """Those of these predictions of which somebody ever said something, also if it was withdrawn."""
        found = select(feedback.c.prediction_id).where(feedback.c.prediction_id.in_(list(prediction_ids)))
        return set(self._tx.scalars(found))

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


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[first : first + _CHUNK] for first in range(0, len(ids), _CHUNK))


def _within(record_id: str, wanted: RecordFilter, *, before: str | None = None, after: str | None = None) -> bool:
    """Whether an id lies within the times of a filter and between two cursors."""
    return (
        (wanted.since is None or record_id >= _first_id(wanted.since))
        and (wanted.until is None or record_id < _first_id(wanted.until))
        and (before is None or record_id < before)
        and (after is None or record_id > after)
    )


def _equal(wanted: RecordFilter) -> list[ColumnElement[bool]]:
    """The conditions of a filter that are no range, for rows that are chosen by their ids: no index serves them."""
    values = (
        (predictions.c.channel, wanted.channel),
        (predictions.c.top_label, wanted.label),
        (predictions.c.decision_outcome, wanted.outcome),
    )
    return [func.coalesce(column, "") == value for column, value in values if value is not None]


def matching(
    wanted: RecordFilter,
    *,
    before: str | None,
    after: str | None,
    channels: Sequence[str],
    columns: Sequence[Any] = (predictions,),
) -> Any:
    """A SELECT of all columns, or of `columns`, of the rows that match. Ordering it by id needs no sorting.

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
        return select(*columns).where(*equal, *within)
    ranges: list[Select[Any]] = [
        select(*columns).where(
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
