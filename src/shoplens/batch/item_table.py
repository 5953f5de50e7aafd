"""The repository of the finished table of returns: what belongs to a run, how it adds up, what is tried again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, func, or_, select, update

from shoplens.batch.entities import COMPLETED, BatchItem, BatchRun, ItemFilter, ItemState
from shoplens.batch.item_queries import AS_NEW, item_from_row
from shoplens.batch.tables import batch_items, batch_runs
from shoplens.bundles.manifest import ModelRef
from shoplens.predictions.tables import predictions

_STREAM_ROWS: Final = 500
_LABELS_OF_RUNS: Final = 10
_items: Final = batch_items.c


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRange:
    """What a run accounts for: its items, and what arrived after `beyond` up to `bound` and belongs to no run.

    `beyond` is the bound of the run before. So each arrival is in the table of exactly one run: duplicates and what
    was refused on arrival, which no run works on, are in that of the run that came next.
    """

    channel: str
    run_id: str
    beyond: int
    bound: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """An item with what decided it; both None where nothing was predicted."""

    item: BatchItem
    model: ModelRef | None
    threshold: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureCount:
    """How many items of a run were set aside for one reason; `example` is one of the sentences."""

    code: str
    example: str
    count: int


def _nothing() -> None:
    """A unit of work keeps its transaction between the pages of a stream."""


class ItemTableReader:
    """Read over the items of runs. Raises DatabaseUnavailable through the unit of work that owns it."""

    def __init__(self, connection: Connection, *, after_page: Callable[[], None] = _nothing) -> None:
        self._connection = connection
        self._after_page = after_page

    def range_of(self, run: BatchRun) -> RunRange:
        """What `run` accounts for."""
        earlier = select(batch_runs.c.bound).where(batch_runs.c.channel == run.channel, batch_runs.c.id < run.id)
        before = earlier.order_by(batch_runs.c.id.desc()).limit(1)
        return RunRange(
            channel=run.channel, run_id=run.id, beyond=int(self._connection.scalar(before) or 0), bound=run.bound
        )

    def rows(self, wanted: ItemFilter, within: RunRange | None) -> Iterator[TableRow]:
        """Every row that matches, in the order of arrival, a page in memory at a time; each page has its own view.

        `within` stands for `wanted.run_id`. What arrives after the first row was asked for is left out.
        """
        last, bound = self._ends(within)
        query = _rows(wanted, within)
        while last < bound:
            found = self._connection.execute(
                query.where(_items.seq > last, _items.seq <= bound).order_by(_items.seq).limit(_STREAM_ROWS)
            ).all()
            self._after_page()
            yield from map(_table_row, found)
            last = found[-1].seq if len(found) == _STREAM_ROWS else bound

    def count_states(self, within: RunRange) -> dict[ItemState, int]:
        """How many rows of a run's table stand where."""
        counts: dict[ItemState, int] = {}
        for condition in (_items.run_id == within.run_id, _arrived_for_nobody(within)):
            found = select(_items.state, func.count()).where(condition).group_by(_items.state)
            for state, count in self._connection.execute(found):
                counts[ItemState(state)] = counts.get(ItemState(state), 0) + count
        return counts

    def count_arrived(self, within: RunRange) -> int:
        """How many files arrived after the run before."""
        arrived = (_items.channel == within.channel, _items.seq > within.beyond, _items.seq <= within.bound)
        found = select(func.count()).where(*arrived)
        return int(self._connection.scalar(found) or 0)

    def count_older(self, within: RunRange) -> int:
        """How many items of a run had arrived before the run before it began."""
        found = select(func.count()).where(_items.run_id == within.run_id, _items.seq <= within.beyond)
        return int(self._connection.scalar(found) or 0)

    def count_passed_on(self, run: BatchRun) -> int:
        """How many items that were there for `run` wait again, or belong to a later run."""
        later = or_(
            and_(_items.run_id.is_(None), _items.state.in_((ItemState.WAITING.value, ItemState.PROCESSING.value))),
            _items.run_id > run.id,
        )
        return int(
            self._connection.scalar(
                select(func.count()).where(_items.channel == run.channel, _items.seq <= run.bound, later)
            )
            or 0
        )

    def count_corrected(self, run_id: str) -> int:
        """How many items of a run a person has looked at and named."""
        found = select(func.count()).where(_items.run_id == run_id, _items.corrected_at.is_not(None))
        return int(self._connection.scalar(found) or 0)

    def failures(self, within: RunRange) -> list[FailureCount]:
        """The reasons for which items of a run's table were set aside, the most frequent first."""
        code = func.coalesce(_items.failure_code, "unknown")
        found = (
            select(code.label("code"), func.min(_items.failure).label("example"), func.count().label("times"))
            .where(_belongs(within), _items.state == ItemState.QUARANTINED.value)
            .group_by(code)
            .order_by(func.count().desc(), code)
        )
        return [
            FailureCount(code=row.code, example=row.example or "", count=int(row.times))
            for row in self._connection.execute(found)
        ]

    def set_aside(self, within: RunRange, code: str, limit: int) -> list[BatchItem]:
        """Items of a run's table that were set aside for this reason, those that can be shown first."""
        found = (
            select(batch_items)
            .where(_belongs(within), _items.state == ItemState.QUARANTINED.value)
            .where(func.coalesce(_items.failure_code, "unknown") == code)
            .order_by(_items.thumbnail_key.is_(None), _items.seq)
            .limit(limit)
        )
        return [item_from_row(row) for row in self._connection.execute(found)]

    def least_sure(self, run_id: str, limit: int) -> list[BatchItem]:
        """Doubtful items of a run, the least sure first."""
        found = (
            select(batch_items)
            .where(_items.run_id == run_id, _items.state == ItemState.NEEDS_REVIEW.value)
            .order_by(_items.score, _items.seq)
            .limit(limit)
        )
        return [item_from_row(row) for row in self._connection.execute(found)]

    def duplicates_of(self, item: BatchItem, limit: int) -> list[BatchItem]:
        """Later arrivals of the photo of `item`, oldest first."""
        found = select(batch_items).where(
            _items.channel == item.channel, _items.sha256 == item.sha256, _items.duplicate_of == item.id
        )
        return [item_from_row(row) for row in self._connection.execute(found.order_by(_items.seq).limit(limit))]

    def by_prediction(self, prediction_id: str) -> BatchItem | None:
        """The item that a prediction was made for."""
        # By its content, which has an index; a photo that came by another channel as well has other predictions.
        found = (
            select(batch_items)
            .join(
                predictions,
                and_(predictions.c.channel == _items.channel, predictions.c.image_sha256 == _items.sha256),
            )
            .where(predictions.c.id == prediction_id, _items.prediction_id == prediction_id)
        )
        row = self._connection.execute(found).one_or_none()
        return None if row is None else item_from_row(row)

    def labels(self, channel: str) -> list[str]:
        """The different labels of the items of the last runs, in alphabetical order."""
        runs = self._connection.scalars(
            select(batch_runs.c.id)
            .where(batch_runs.c.channel == channel)
            .order_by(batch_runs.c.id.desc())
            .limit(_LABELS_OF_RUNS)
        )
        return sorted({label for run_id in runs.all() for state in COMPLETED for label in self._leaps(run_id, state)})

    def _leaps(self, run_id: str, state: ItemState) -> Iterator[str]:
        """One search per label instead of a walk over all items."""
        least = select(func.min(_items.label)).where(_items.run_id == run_id, _items.state == state.value)
        label = self._connection.scalar(least)
        while label is not None:
            yield label
            label = self._connection.scalar(least.where(_items.label > label))

    def knows_label(self, channel: str, label: str) -> bool:
        """Whether an item has this label."""
        return (
            self._connection.execute(
                select(_items.seq).where(_items.channel == channel, _items.label == label).limit(1)
            ).first()
            is not None
        )

    def _ends(self, within: RunRange | None) -> tuple[int, int]:
        """After and up to which `seq` the rows lie: items that were tried again are older than the rest of a run."""
        if within is None:
            return 0, int(self._connection.scalar(select(func.max(_items.seq))) or 0)
        first = self._connection.scalar(select(func.min(_items.seq)).where(_items.run_id == within.run_id))
        return min(within.beyond, within.bound if first is None else first - 1), within.bound


class ItemTableRepository(ItemTableReader):
    """Read the table, and let what was set aside be tried again."""

    def retry_quarantined(self, channel: str, within: RunRange | None) -> int:
        """Let every quarantined item (of a run's table, if one is given) wait for the next run; how many there were."""
        again = update(batch_items).where(_items.channel == channel, _items.state == ItemState.QUARANTINED.value)
        if within is not None:
            again = again.where(_belongs(within))
        return self._connection.execute(again.values(AS_NEW)).rowcount


def _rows(wanted: ItemFilter, within: RunRange | None) -> Select[Any]:
    """Conditions are written so that no index serves them: the rows are read in order of arrival, never sorted."""
    columns = (predictions.c.model_name, predictions.c.model_version, predictions.c.decision_threshold)
    found = select(batch_items, *columns).outerjoin(predictions, predictions.c.id == _items.prediction_id)
    if within is not None:
        arrived = and_(
            _unindexed(_items.channel) == within.channel, _items.run_id.is_(None), _items.seq > within.beyond
        )
        found = found.where(or_(_unindexed(_items.run_id) == within.run_id, arrived))
    if wanted.channel is not None:
        found = found.where(_unindexed(_items.channel) == wanted.channel)
    if wanted.state is not None:
        found = found.where(_unindexed(_items.state) == wanted.state.value)
    if wanted.label is not None:
        found = found.where(_unindexed(_items.label) == wanted.label)
    if wanted.text is not None:
        begins = [column.istartswith(wanted.text, autoescape=True) for column in (_items.item_ref, _items.order_ref)]
        found = found.where(or_(*begins))
    return found


def _unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(column, "")


def _belongs(within: RunRange) -> ColumnElement[bool]:
    return or_(_items.run_id == within.run_id, _arrived_for_nobody(within))


def _arrived_for_nobody(within: RunRange) -> ColumnElement[bool]:
    return and_(
        _items.channel == within.channel,
        _items.run_id.is_(None),
        _items.seq > within.beyond,
        _items.seq <= within.bound,
    )


def _table_row(row: Row[Any]) -> TableRow:
    model = ModelRef(name=row.model_name, version=row.model_version) if row.model_name else None
    return TableRow(item=item_from_row(row), model=model, threshold=row.decision_threshold)
