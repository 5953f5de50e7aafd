"""Batch items in the database, over a transaction that the caller opened; `run_repository.py` has the runs.

Every method raises DatabaseUnavailable and RecordRefused through that transaction. A method that only the owner of a
run may call raises RunLost once another process has taken the run over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from itertools import product
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    and_,
    bindparam,
    func,
    insert,
    not_,
    or_,
    select,
    tuple_,
    update,
)

from shoplens.batch.entities import (
    COMPLETED,
    BatchItem,
    BatchRun,
    FailureCount,
    ItemFilter,
    ItemResult,
    ItemState,
    References,
    RunCounts,
    RunRange,
    TableRow,
)
from shoplens.batch.run_repository import model_of
from shoplens.batch.tables import batch_items, batch_looks, batch_runs
from shoplens.db.database import hold_arrivals
from shoplens.errors import ItemNotFound, RunLost
from shoplens.predictions.entities import Answer
from shoplens.predictions.tables import predictions

TABLE_PAGE: Final = 500
_LABELS_OF_RUNS: Final = 10
_items: Final = batch_items.c
_runs: Final = batch_runs.c
_OPEN_FIRST: Final = (_items.retried_as.is_not(None), _items.thumbnail_key.is_(None))
_IS_WAITING: Final = _items.state == ItemState.WAITING.value
_IS_PROCESSING: Final = _items.state == ItemState.PROCESSING.value
failure_code_of: Final[ColumnElement[Any]] = func.coalesce(_items.failure_code, "unknown")
Condition = ColumnElement[bool]


class ItemRepository:
    """The table `batch_items`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    # One item, pages and lists

    def get(self, item_id: str, *, lock: bool = False) -> BatchItem:
        """With `lock` it is locked until this transaction ends. Raises ItemNotFound."""
        found = select(batch_items).where(_items.id == item_id)
        row = self._tx.execute(found.with_for_update() if lock else found).one_or_none()
        if row is None:
            raise ItemNotFound(f"There is no batch item {item_id!r}.")
        return item_of(row)

    def locked(self, item_ids: Sequence[str]) -> list[BatchItem]:
        """Those of these items that exist, locked until this transaction ends."""
        found = select(batch_items).where(_items.id.in_(item_ids)).order_by(_items.seq).with_for_update()
        return [item_of(row) for row in self._tx.execute(found)]

    def arrival(self, channel: str, sha256: str, source_name: str) -> BatchItem | None:
        """The item of this content under this name; of a retried one, the latest."""
        here = (
            _items.channel == channel,
            _items.sha256 == sha256,
            _items.source_name == source_name,
            _items.retried_as.is_(None),
        )
        return next(iter(self._find(*here)), None)

    def by_prediction(self, prediction_id: str) -> BatchItem | None:
        """The item that a prediction was made for."""
        # By its content, which has an index; a photo that came by another channel as well has other predictions.
        same = and_(predictions.c.channel == _items.channel, predictions.c.image_sha256 == _items.sha256)
        found = select(batch_items).join(predictions, same)
        row = self._tx.execute(
            found.where(predictions.c.id == prediction_id, _items.prediction_id == prediction_id)
        ).one_or_none()
        return None if row is None else item_of(row)

    def page(
        self,
        wanted: ItemFilter,
        *,
        limit: int,
        before: int | None = None,
        after: int | None = None,
        of_no_run: tuple[int, int] | None = None,
    ) -> list[BatchItem]:
        """At most `limit` items, newest first: the newest, those older than `before`, or those just newer than `after`.

        Both are values of `seq`, themselves excluded. With `of_no_run` only items that belong to no run and arrived
        after its first value, up to its second.
        """
        found = select(_items.seq).where(*conditions_of(wanted))
        if wanted.run_id is not None:
            found = found.where(_items.run_id == wanted.run_id)
        if of_no_run is not None:
            found = found.where(_items.run_id.is_(None), _items.seq > of_no_run[0], _items.seq <= of_no_run[1])
        if before is not None:
            found = found.where(_items.seq < before)
        upwards = after is not None and before is None
        if upwards:
            found = found.where(_items.seq > after)
        order = _items.seq.asc() if upwards else _items.seq.desc()
        # What is sorted is numbers out of an index; whole rows are read only for the page.
        items = self._find(_items.seq.in_(found.order_by(order).limit(limit)), order=[order])
        return items[::-1] if upwards else items

    def with_contents(self, channel: str, hashes: Collection[str]) -> dict[str, BatchItem]:
        """The items whose photo has one of these contents, by its hash; later arrivals of it are left out."""
        live = (_items.duplicate_of.is_(None), _items.retried_as.is_(None))
        found = self._find(_items.channel == channel, _items.sha256.in_(hashes), *live, order=[])
        return {item.sha256: item for item in found}

    def duplicates_of(self, item: BatchItem, limit: int) -> list[BatchItem]:
        """Later arrivals of the photo of `item`, oldest first."""
        same = (_items.channel == item.channel, _items.sha256 == item.sha256, _items.duplicate_of == item.id)
        return self._find(*same, limit=limit)

    def moving(self, channel: str, *, limit: int, beyond: int = 0) -> list[BatchItem]:
        """Items whose photo is not yet where it belongs and whose `seq` is beyond `beyond`, oldest first."""
        outstanding = (_items.channel == channel, _items.target_key.is_not(None), _items.seq > beyond)
        return self._find(*outstanding, limit=limit)

    def keys_in_motion(self) -> set[str]:
        """The keys of all photos that are being moved, each at one of two, or deleted."""
        moving = or_(
            _items.target_key.is_not(None), and_(_items.photo_deleted_at.is_not(None), _items.key.is_not(None))
        )
        found = self._tx.execute(select(_items.key, _items.target_key, _items.thumbnail_key).where(moving))
        return {key for row in found for key in row if key is not None}

    def photo_keys(self, limit: int) -> list[tuple[str, str]]:
        """The newest keys of photos and of their thumbnails, each with the hash of the photo."""
        found: list[tuple[str, str]] = []
        for column in (_items.key, _items.thumbnail_key):
            rows = select(column, _items.sha256).where(column.is_not(None)).order_by(_items.seq.desc()).limit(limit)
            found += [(str(key), sha256) for key, sha256 in self._tx.execute(rows)]
        return found

    def slowest(self, run_id: str, limit: int) -> list[BatchItem]:
        """The items of a run whose classification took longest."""
        timed = (_items.run_id == run_id, _items.work_ms.is_not(None))
        return self._find(*timed, order=[_items.work_ms.desc()], limit=limit)

    def least_sure(self, run_id: str, limit: int) -> list[BatchItem]:
        """Items that need review of a run, the least sure first."""
        unsure = (_items.run_id == run_id, _items.state == ItemState.NEEDS_REVIEW.value)
        return self._find(*unsure, order=[_items.score, _items.seq], limit=limit)

    def quarantined(self, within: RunRange, code: str, limit: int) -> list[BatchItem]:
        """Items of a run's table that were quarantined for this reason.

        First those that nobody has queued again, and of these first those that can be shown.
        """
        broken = (belongs(within), _items.state == ItemState.QUARANTINED.value, failure_code_of == code)
        return self._find(*broken, order=[*_OPEN_FIRST, _items.seq], limit=limit)

    # What a run accounts for

    def range_of(self, run: BatchRun) -> RunRange:
        """What `run` accounts for."""
        earlier = select(_runs.bound).where(_runs.channel == run.channel, _runs.id < run.id)
        before = earlier.order_by(_runs.id.desc()).limit(1)
        return RunRange(channel=run.channel, run_id=run.id, beyond=int(self._tx.scalar(before) or 0), bound=run.bound)

    def table_page(self, wanted: ItemFilter, within: RunRange | None, *, after: int, bound: int) -> list[TableRow]:
        """At most `TABLE_PAGE` rows in the order of arrival, with `seq` after `after` and up to `bound`.

        `within` stands for `wanted.run_id`.
        """
        found = _table(wanted, within).where(_items.seq > after, _items.seq <= bound)
        rows = self._tx.execute(found.order_by(_items.seq).limit(TABLE_PAGE))
        return [TableRow(item=item_of(row), model=model_of(row), threshold=row.decision_threshold) for row in rows]

    def table_span(self, within: RunRange | None) -> tuple[int, int]:
        """The rows of a table have a `seq` after the first number, up to the second.

        Items that were tried again are older than the rest of a run.
        """
        if within is None:
            return 0, self.last_seq()
        first = self._tx.scalar(select(func.min(_items.seq)).where(_items.run_id == within.run_id))
        return min(within.beyond, within.bound if first is None else first - 1), within.bound

    # Counts and labels

    def counts(self, run: BatchRun) -> RunCounts:
        """What became of everything that `run` accounts for: the one definition of its numbers."""
        return RunCounts(by_state=self.count_states(self.range_of(run)))

    def count_states(self, within: RunRange) -> dict[ItemState, int]:
        """How many rows of a run's table there are, by state."""
        counts = Counter(self.count_own_states(within.run_id))
        counts.update({ItemState(state): count for state, count in self._tx.execute(_unassigned_states(within))})
        return dict(counts)

    def count_own_states(self, run_id: str) -> dict[ItemState, int]:
        """How many items a run processed, by state; states without items are left out."""
        return self._count_states(_items.run_id == run_id)

    def count_labels(self, run_id: str) -> dict[tuple[ItemState, str], int]:
        """How many items of a run have which label in which state; items without a label are left out."""
        labelled = (_items.run_id == run_id, _items.label.is_not(None))
        found = select(_items.state, _items.label, func.count()).where(*labelled).group_by(_items.state, _items.label)
        return {(ItemState(state), label): count for state, label, count in self._tx.execute(found)}

    def count_waiting(self, channel: str, *, bound: int | None = None) -> int:
        """How many items of a channel wait, up to `bound` if it is given."""
        waiting = [_items.channel == channel, _IS_WAITING]
        return self._count(*waiting) if bound is None else self._count(*waiting, _items.seq <= bound)

    def last_seq(self) -> int:
        """The number of the newest arrival; 0 where there is none."""
        return int(self._tx.scalar(select(func.max(_items.seq))) or 0)

    def work_ms(self, run_id: str) -> tuple[int, float]:
        """How many items of a run were classified, and how many milliseconds that took in all."""
        found = select(func.count(_items.work_ms), func.sum(_items.work_ms)).where(_items.run_id == run_id)
        count, total = self._tx.execute(found).one()
        return int(count), float(total or 0.0)

    def failures(self, within: RunRange) -> list[FailureCount]:
        """The reasons for which items of a run's table were quarantined, the most frequent first."""
        columns = (
            failure_code_of.label("code"),
            func.min(_items.failure).label("example"),
            func.count().label("times"),
            func.count(_items.retried_as).label("retried"),
        )
        found = (
            select(*columns)
            .where(belongs(within), _items.state == ItemState.QUARANTINED.value)
            .group_by(failure_code_of)
            .order_by(func.count().desc(), failure_code_of)
        )
        return [
            FailureCount(code=row.code, example=row.example or "", count=int(row.times), retried=int(row.retried))
            for row in self._tx.execute(found)
        ]

    def labels(self, channel: str) -> list[str]:
        """The different labels of the items of the last runs, in alphabetical order."""
        last = select(_runs.id).where(_runs.channel == channel).order_by(_runs.id.desc()).limit(_LABELS_OF_RUNS)
        labels: set[str] = set()
        for run_id, state in product(self._tx.scalars(last).all(), COMPLETED):
            # One search per label instead of a scan.
            least = select(func.min(_items.label)).where(_items.run_id == run_id, _items.state == state.value)
            label = self._tx.scalar(least)
            while label is not None:
                labels.add(label)
                label = self._tx.scalar(least.where(_items.label > label))
        return sorted(labels)

    def knows_label(self, channel: str, label: str) -> bool:
        """Whether an item has this label."""
        found = select(_items.seq).where(_items.channel == channel, _items.label == label)
        return self._tx.execute(found.limit(1)).first() is not None

    # Imports

    def known_stamps(self, channel: str, stamps: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these pairs of source name and source stamp that an item has: files that were imported before."""
        return self._known(channel, stamps, _items.source_name, _items.source_stamp)

    def known_arrivals(self, channel: str, arrivals: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these pairs of content hash and source name that an item has."""
        return self._known(channel, arrivals, _items.sha256, _items.source_name)

    def known_names(self, channel: str, names: Collection[str], *, since: datetime) -> set[str]:
        """Those of these source names that an item has which was received at `since` or later."""
        known = (_items.channel == channel, _items.source_name.in_(names), _items.received_at >= since)
        return set(self._tx.scalars(select(_items.source_name).where(*known)))

    def hold_arrivals(self) -> None:
        """Block additions by other transactions until this one ends."""
        if self._tx.dialect.name == "postgresql":  # on SQLite there is only one writer anyway
            hold_arrivals(self._tx)

    def add_many(self, arrived: Sequence[BatchItem]) -> None:
        """All or none. Raises RecordRefused where content or arrival is known already."""
        rows = [
            {
                **{name: getattr(item, name) for name in _PLAIN_ITEM if name != "seq"},
                "state": item.state.value,
                "answer": item.answer.value if item.answer else None,
                "reviewed_from": item.reviewed_from.value if item.reviewed_from else None,
                **{column: getattr(item.references, name) for name, column in _REFERENCES.items()},
            }
            for item in arrived
        ]
        if rows:
            self._tx.execute(insert(batch_items), rows)

    # Leases and results

    def lease(self, channel: str, *, owner: str, run_id: str, bound: int, limit: int) -> list[BatchItem]:
        """Take up to `limit` waiting items for `owner`: the least tried first, then the oldest.

        Items whose photo is being moved are left out.
        """
        taken: list[BatchItem] = []
        tried = -1
        while len(taken) < limit:
            # One search per number of attempts, then a range: rows beyond `bound` are never read.
            waiting = (_items.channel == channel, _IS_WAITING)
            fewest = self._tx.scalar(select(func.min(_items.attempts)).where(*waiting, _items.attempts > tried))
            if fewest is None:
                break
            tried = int(fewest)
            free = (_items.attempts == tried, _items.seq <= bound, _items.target_key.is_(None))
            chosen = select(_items.seq).where(*waiting, *free).order_by(_items.seq).limit(limit - len(taken))
            if self._tx.dialect.name == "postgresql":
                # Skip rows that another transaction has locked, and evaluate the choice only once.
                locked = chosen.with_for_update(skip_locked=True).cte("chosen")
                chosen = select(locked.c.seq)
            leased = {"state": ItemState.PROCESSING.value, "run_id": run_id, "lease_owner": owner}
            lease = update(batch_items).where(_items.seq.in_(chosen)).values(leased).returning(batch_items)
            taken += sorted(map(item_of, self._tx.execute(lease)), key=lambda item: item.seq)
        return taken

    def release(self, channel: str, owner: str, *, keep: Collection[str] = ()) -> int:
        """Let every item that `owner` leased wait again, except the ids in `keep`; returns how many there were."""
        mine = [_items.lease_owner == owner, _items.id.not_in(keep)]
        return self._release(channel, *(mine if keep else mine[:1]))

    def release_others(self, channel: str, owner: str) -> int:
        """Let every item that another owner leased wait again; returns how many there were.

        Only for the owner of the active run: no other lease can be valid.
        """
        return self._release(channel, _items.lease_owner != owner)

    def leased_by(self, channel: str, owner: str) -> set[str]:
        """The ids of the items that `owner` has leased and not completed."""
        found = select(_items.id).where(_items.channel == channel, _IS_PROCESSING, _items.lease_owner == owner)
        return set(self._tx.scalars(found))

    def complete(self, results: Iterable[ItemResult], *, owner: str) -> None:
        """Write the results of items that `owner` has leased. Raises RunLost if it has lost one of the leases."""
        rows = [
            {
                **{f"new_{name}": getattr(each, name) for name in _RESULT},
                "new_state": each.state.value,
                "of": each.item_id,
                "held_by": owner,
            }
            for each in results
        ]
        if rows and self._tx.execute(_COMPLETE, rows).rowcount != len(rows):
            raise RunLost("This process has lost the lease of an item; its result was not written.")

    # Moves

    def moved(self, arrived: Iterable[tuple[str, str]]) -> None:
        """Photos have been moved: the ids of their items, each with the new key of its photo.

        An item that got another target meanwhile is not changed: its photo is moved again.
        """
        rows = [{"of": item_id, "at": key} for item_id, key in sorted(arrived)]  # in one order, against deadlocks
        if rows:
            self._tx.execute(_AT_TARGET.values(key=_items.target_key, target_key=None), rows)

    def lost(self, gone: Iterable[tuple[str, str]], *, code: str, failure: str) -> None:
        """Note a failure for items whose photo, which was to be moved to this key, is missing."""
        rows = [{"of": item_id, "at": key} for item_id, key in sorted(gone)]
        if rows:
            self._tx.execute(_AT_TARGET.values(target_key=None, failure_code=code, failure=failure), rows)

    # What several of these do

    def _find(
        self, *where: Condition, order: Sequence[ColumnElement[Any]] = (_items.seq,), limit: int | None = None
    ) -> list[BatchItem]:
        found = select(batch_items).where(*where).order_by(*order).limit(limit)
        return [item_of(row) for row in self._tx.execute(found)]

    def _count(self, *where: Condition) -> int:
        return int(self._tx.scalar(select(func.count()).select_from(batch_items).where(*where)) or 0)

    def _count_states(self, where: Condition) -> dict[ItemState, int]:
        found = select(_items.state, func.count()).where(where).group_by(_items.state)
        return {ItemState(state): count for state, count in self._tx.execute(found)}

    def _known(
        self, channel: str, pairs: Collection[tuple[str, str]], *columns: ColumnElement[Any]
    ) -> set[tuple[str, str]]:
        found = select(*columns).where(_items.channel == channel, tuple_(*columns).in_(pairs))
        return {(first, second) for first, second in self._tx.execute(found)}

    def _release(self, channel: str, *where: Condition) -> int:
        freed = update(batch_items).where(_items.channel == channel, _IS_PROCESSING, *where)
        return self._tx.execute(freed.values(state=ItemState.WAITING.value, lease_owner=None)).rowcount


_ENUMS: Final = ("state", "answer", "reviewed_from")
_REFERENCES: Final = {name: "reason" if name == "reason" else f"{name}_ref" for name in References.__dataclass_fields__}
_PLAIN_ITEM: Final = tuple(name for name in BatchItem.__dataclass_fields__ if name not in ("references", *_ENUMS))


def item_of(row: Row[Any]) -> BatchItem:
    """The item of a row of `batch_items`."""
    columns = row._mapping  # noqa: SLF001  public, see Row
    return BatchItem(
        state=ItemState(row.state),
        answer=Answer(row.answer) if row.answer else None,
        reviewed_from=ItemState(row.reviewed_from) if row.reviewed_from else None,
        references=References(**{name: columns[column] for name, column in _REFERENCES.items()}),
        **{name: columns[name] for name in _PLAIN_ITEM},
    )


_AT_TARGET: Final = update(batch_items).where(_items.id == bindparam("of"), _items.target_key == bindparam("at"))
_RESULT: Final = tuple(field for field in ItemResult.__dataclass_fields__ if field != "item_id")
_COMPLETE: Final = (
    update(batch_items)
    .where(_items.id == bindparam("of"), _items.lease_owner == bindparam("held_by"), _IS_PROCESSING)
    .values({name: bindparam(f"new_{name}") for name in _RESULT})
    .values(lease_owner=None, label=bindparam("new_predicted"))
)


def conditions_of(
    wanted: ItemFilter, of: Callable[[ColumnElement[Any]], ColumnElement[Any]] = lambda column: column
) -> list[Condition]:
    """The conditions of a filter except its run, each on what `of` makes of a column."""
    state = None if wanted.state is None else wanted.state.value
    values = ((_items.channel, wanted.channel), (_items.state, state), (_items.label, wanted.label))
    conditions = [of(column) == value for column, value in values if value is not None]
    if wanted.text is not None:
        numbers = (_items.item_ref, _items.order_ref)
        conditions.append(or_(*(column.istartswith(wanted.text, autoescape=True) for column in numbers)))
    if wanted.browser is not None:
        mine = (batch_looks.c.browser == wanted.browser, batch_looks.c.skipped_at.is_not(None))
        skipped = _items.id.in_(select(batch_looks.c.item_id).where(*mine))
        conditions.append(skipped if wanted.skipped else not_(skipped))
    return conditions


def _table(wanted: ItemFilter, within: RunRange | None) -> Select[Any]:
    """Conditions are written so that no index serves them: the rows are read in order of arrival, never sorted."""
    decided = (predictions.c.model_name, predictions.c.model_version, predictions.c.decision_threshold)
    found = select(batch_items, *decided).outerjoin(predictions, predictions.c.id == _items.prediction_id)
    if within is not None:
        arrived = and_(
            _unindexed(_items.channel) == within.channel, _items.run_id.is_(None), _items.seq > within.beyond
        )
        found = found.where(or_(_unindexed(_items.run_id) == within.run_id, arrived))
    return found.where(*conditions_of(wanted, _unindexed))


def _unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(column, "")


def belongs(within: RunRange) -> Condition:
    """The items of a run, and what arrived since the run before and belongs to no run."""
    return or_(_items.run_id == within.run_id, _unassigned(within))


def _unassigned_states(within: RunRange) -> Select[Any]:
    """The states of what belongs to no run, counted. Only arrivals since the run before are read, by their numbers:
    conditions are written so that no other index serves, whose range would grow with every run.
    """
    state = _unindexed(_items.state)
    found = select(state, func.count()).where(_items.seq > within.beyond, _items.seq <= within.bound)
    here = (_unindexed(_items.channel) == within.channel, _unindexed(_items.run_id) == "")
    return found.where(*here).group_by(state)


def _unassigned(within: RunRange) -> Condition:
    return and_(
        _items.channel == within.channel,
        _items.run_id.is_(None),
        _items.seq > within.beyond,
        _items.seq <= within.bound,
    )
