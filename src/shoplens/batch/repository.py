"""Batch items and runs in the database: one class per table, over a transaction that the caller opened.

Every method raises DatabaseUnavailable and RecordRefused through that transaction. A method that only the owner of a
run may call raises RunLost once another process has taken the run over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
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
    or_,
    select,
    tuple_,
    update,
)

from shoplens.batch.entities import (
    COMPLETED,
    BatchItem,
    BatchRun,
    ItemFilter,
    ItemResult,
    ItemState,
    References,
    RunOwner,
    RunState,
)
from shoplens.batch.tables import batch_items, batch_runs
from shoplens.bundles.manifest import ModelRef
from shoplens.db.database import hold_arrivals
from shoplens.errors import ItemNotFound, ItemNotReady, RunLost, RunNotFound
from shoplens.predictions.tables import predictions

TABLE_PAGE: Final = 500
_LABELS_OF_RUNS: Final = 10
_items: Final = batch_items.c
_runs: Final = batch_runs.c
_IS_WAITING: Final = _items.state == ItemState.WAITING.value


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
    """How many items of a run were quarantined for one reason; `example` is one of the sentences."""

    code: str
    example: str
    count: int


class ItemRepository:
    """The table `batch_items`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def get(self, item_id: str) -> BatchItem:
        """Raises ItemNotFound."""
        row = self._tx.execute(select(batch_items).where(_items.id == item_id)).one_or_none()
        if row is None:
            raise ItemNotFound(f"There is no batch item {item_id!r}.")
        return _item(row)

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
        found = _matching(wanted)
        if of_no_run is not None:
            found = found.where(_items.run_id.is_(None), _items.seq > of_no_run[0], _items.seq <= of_no_run[1])
        if before is not None:
            found = found.where(_items.seq < before)
        upwards = after is not None and before is None
        if upwards:
            found = found.where(_items.seq > after)
        order = _items.seq.asc() if upwards else _items.seq.desc()
        # What is sorted is numbers out of an index; whole rows are read only for the page.
        chosen = found.with_only_columns(_items.seq).order_by(order).limit(limit)
        page = select(batch_items).where(_items.seq.in_(chosen.scalar_subquery())).order_by(order)
        rows = [_item(row) for row in self._tx.execute(page)]
        return rows[::-1] if upwards else rows

    def count_own_states(self, run_id: str) -> dict[ItemState, int]:
        """How many items a run processed, by state; states without items are left out."""
        found = select(_items.state, func.count()).where(_items.run_id == run_id).group_by(_items.state)
        return {ItemState(state): count for state, count in self._tx.execute(found)}

    def count_labels(self, run_id: str) -> dict[tuple[ItemState, str], int]:
        """How many items of a run have which label in which state; items without a label are left out."""
        found = (
            select(_items.state, _items.label, func.count())
            .where(_items.run_id == run_id, _items.label.is_not(None))
            .group_by(_items.state, _items.label)
        )
        return {(ItemState(state), label): count for state, label, count in self._tx.execute(found)}

    def count_waiting(self, channel: str, *, bound: int | None = None) -> int:
        """How many items of a channel wait, up to `bound` if it is given."""
        found = select(func.count()).select_from(batch_items).where(_items.channel == channel, _IS_WAITING)
        if bound is not None:
            found = found.where(_items.seq <= bound)
        return int(self._tx.execute(found).scalar_one())

    def last_seq(self) -> int:
        """The number of the newest arrival; 0 where there is none."""
        return int(self._tx.execute(select(func.max(_items.seq))).scalar_one() or 0)

    def work_ms(self, run_id: str) -> tuple[int, float]:
        """How many items of a run were classified, and how many milliseconds that took in all."""
        found = select(func.count(_items.work_ms), func.sum(_items.work_ms)).where(_items.run_id == run_id)
        count, total = self._tx.execute(found).one()
        return int(count), float(total or 0.0)

    def slowest(self, run_id: str, limit: int) -> list[BatchItem]:
        """The items of a run whose classification took longest."""
        found = select(batch_items).where(_items.run_id == run_id, _items.work_ms.is_not(None))
        return [_item(row) for row in self._tx.execute(found.order_by(_items.work_ms.desc()).limit(limit))]

    def known_stamps(self, channel: str, stamps: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these pairs of source name and source stamp that an item has: files that were imported before."""
        pair = tuple_(_items.source_name, _items.source_stamp)
        found = select(_items.source_name, _items.source_stamp).where(_items.channel == channel, pair.in_(stamps))
        return {(name, stamp) for name, stamp in self._tx.execute(found)}

    def known_arrivals(self, channel: str, arrivals: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these pairs of content hash and source name that an item has."""
        pair = tuple_(_items.sha256, _items.source_name)
        found = select(_items.sha256, _items.source_name).where(_items.channel == channel, pair.in_(arrivals))
        return {(sha256, name) for sha256, name in self._tx.execute(found)}

    def known_names(self, channel: str, names: Collection[str], *, since: datetime) -> set[str]:
        """Those of these source names that an item has which was received at `since` or later."""
        known = (_items.channel == channel, _items.source_name.in_(names), _items.received_at >= since)
        found = select(_items.source_name).where(*known)
        return set(self._tx.scalars(found))

    def arrival(self, channel: str, sha256: str, source_name: str) -> BatchItem | None:
        """The item of this content under this name."""
        found = select(batch_items).where(
            _items.channel == channel, _items.sha256 == sha256, _items.source_name == source_name
        )
        row = self._tx.execute(found).one_or_none()
        return None if row is None else _item(row)

    def with_contents(self, channel: str, hashes: Collection[str]) -> dict[str, BatchItem]:
        """The items whose photo has one of these contents, by its hash; later arrivals of it are left out."""
        found = select(batch_items).where(
            _items.channel == channel, _items.sha256.in_(hashes), _items.duplicate_of.is_(None)
        )
        return {row.sha256: _item(row) for row in self._tx.execute(found)}

    def moving(self, channel: str, *, limit: int, beyond: int = 0) -> list[BatchItem]:
        """Items whose photo is not yet where it belongs and whose `seq` is beyond `beyond`, oldest first."""
        outstanding = (_items.channel == channel, _items.target_key.is_not(None), _items.seq > beyond)
        found = select(batch_items).where(*outstanding)
        return [_item(row) for row in self._tx.execute(found.order_by(_items.seq).limit(limit))]

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
        return [_table_row(row) for row in self._tx.execute(found.order_by(_items.seq).limit(TABLE_PAGE))]

    def table_span(self, within: RunRange | None) -> tuple[int, int]:
        """The rows of a table have a `seq` after the first number, up to the second.

        Items that were tried again are older than the rest of a run.
        """
        if within is None:
            return 0, self.last_seq()
        first = self._tx.scalar(select(func.min(_items.seq)).where(_items.run_id == within.run_id))
        return min(within.beyond, within.bound if first is None else first - 1), within.bound

    def count_states(self, within: RunRange) -> dict[ItemState, int]:
        """How many rows of a run's table there are, by state."""
        counts: dict[ItemState, int] = {}
        for condition in (_items.run_id == within.run_id, _unassigned(within)):
            found = select(_items.state, func.count()).where(condition).group_by(_items.state)
            for state, count in self._tx.execute(found):
                counts[ItemState(state)] = counts.get(ItemState(state), 0) + count
        return counts

    def count_arrived(self, within: RunRange) -> int:
        """How many files arrived after the run before."""
        arrived = (_items.channel == within.channel, _items.seq > within.beyond, _items.seq <= within.bound)
        found = select(func.count()).where(*arrived)
        return int(self._tx.scalar(found) or 0)

    def count_older(self, within: RunRange) -> int:
        """How many items of a run had arrived before the run before it began."""
        found = select(func.count()).where(_items.run_id == within.run_id, _items.seq <= within.beyond)
        return int(self._tx.scalar(found) or 0)

    def count_passed_on(self, run: BatchRun) -> int:
        """How many items within the bound of `run` wait again, or belong to a later run."""
        later = or_(
            and_(_items.run_id.is_(None), _items.state.in_((ItemState.WAITING.value, ItemState.PROCESSING.value))),
            _items.run_id > run.id,
        )
        return int(
            self._tx.scalar(select(func.count()).where(_items.channel == run.channel, _items.seq <= run.bound, later))
            or 0
        )

    def count_corrected(self, run_id: str) -> int:
        """How many items of a run a person has labelled."""
        found = select(func.count()).where(_items.run_id == run_id, _items.corrected_at.is_not(None))
        return int(self._tx.scalar(found) or 0)

    def failures(self, within: RunRange) -> list[FailureCount]:
        """The reasons for which items of a run's table were quarantined, the most frequent first."""
        code = func.coalesce(_items.failure_code, "unknown")
        found = (
            select(code.label("code"), func.min(_items.failure).label("example"), func.count().label("times"))
            .where(_belongs(within), _items.state == ItemState.QUARANTINED.value)
            .group_by(code)
            .order_by(func.count().desc(), code)
        )
        return [
            FailureCount(code=row.code, example=row.example or "", count=int(row.times))
            for row in self._tx.execute(found)
        ]

    def quarantined(self, within: RunRange, code: str, limit: int) -> list[BatchItem]:
        """Items of a run's table that were quarantined for this reason, those that can be shown first."""
        found = (
            select(batch_items)
            .where(_belongs(within), _items.state == ItemState.QUARANTINED.value)
            .where(func.coalesce(_items.failure_code, "unknown") == code)
            .order_by(_items.thumbnail_key.is_(None), _items.seq)
            .limit(limit)
        )
        return [_item(row) for row in self._tx.execute(found)]

    def least_sure(self, run_id: str, limit: int) -> list[BatchItem]:
        """Items that need review of a run, the least sure first."""
        found = (
            select(batch_items)
            .where(_items.run_id == run_id, _items.state == ItemState.NEEDS_REVIEW.value)
            .order_by(_items.score, _items.seq)
            .limit(limit)
        )
        return [_item(row) for row in self._tx.execute(found)]

    def duplicates_of(self, item: BatchItem, limit: int) -> list[BatchItem]:
        """Later arrivals of the photo of `item`, oldest first."""
        found = select(batch_items).where(
            _items.channel == item.channel, _items.sha256 == item.sha256, _items.duplicate_of == item.id
        )
        return [_item(row) for row in self._tx.execute(found.order_by(_items.seq).limit(limit))]

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
        row = self._tx.execute(found).one_or_none()
        return None if row is None else _item(row)

    def labels(self, channel: str) -> list[str]:
        """The different labels of the items of the last runs, in alphabetical order."""
        runs = self._tx.scalars(
            select(_runs.id).where(_runs.channel == channel).order_by(_runs.id.desc()).limit(_LABELS_OF_RUNS)
        )
        return sorted(
            {label for run_id in runs.all() for state in COMPLETED for label in self._distinct_labels(run_id, state)}
        )

    def _distinct_labels(self, run_id: str, state: ItemState) -> Iterator[str]:
        """One search per label instead of a scan."""
        least = select(func.min(_items.label)).where(_items.run_id == run_id, _items.state == state.value)
        label = self._tx.scalar(least)
        while label is not None:
            yield label
            label = self._tx.scalar(least.where(_items.label > label))

    def knows_label(self, channel: str, label: str) -> bool:
        """Whether an item has this label."""
        return (
            self._tx.execute(
                select(_items.seq).where(_items.channel == channel, _items.label == label).limit(1)
            ).first()
            is not None
        )

    def hold_arrivals(self) -> None:
        """Block additions by other transactions until this one ends."""
        if self._tx.dialect.name == "postgresql":  # on SQLite there is only one writer anyway
            hold_arrivals(self._tx)

    def add_many(self, arrived: Sequence[BatchItem]) -> None:
        """All or none. Raises RecordRefused where content or arrival is known already."""
        if arrived:
            self._tx.execute(insert(batch_items), [_arrival(item) for item in arrived])

    def lease(self, channel: str, *, owner: str, run_id: str, bound: int, limit: int) -> list[BatchItem]:
        """Take up to `limit` waiting items for `owner`: the least tried first, then the oldest.

        Items whose photo is being moved are left out.
        """
        taken: list[BatchItem] = []
        tried = -1
        while len(taken) < limit:
            # One search per number of attempts, then a range: rows beyond `bound` are never read.
            fewest = select(func.min(_items.attempts)).where(
                _items.channel == channel, _IS_WAITING, _items.attempts > tried
            )
            found = self._tx.execute(fewest).scalar_one()
            if found is None:
                break
            tried = int(found)
            few = select(_items.seq).where(_items.channel == channel, _IS_WAITING, _items.attempts == tried)
            few = few.where(_items.seq <= bound, _items.target_key.is_(None)).order_by(_items.seq)
            leased = {"state": ItemState.PROCESSING.value, "run_id": run_id, "lease_owner": owner}
            chosen = _items.seq.in_(self._chosen(few.limit(limit - len(taken))))
            rows = self._tx.execute(update(batch_items).where(chosen).values(leased).returning(batch_items))
            taken += sorted(map(_item, rows), key=lambda item: item.seq)
        return taken

    def _chosen(self, found: Select[tuple[int]]) -> Any:
        """On PostgreSQL skip rows that another transaction has locked, and evaluate the choice only once."""
        if self._tx.dialect.name != "postgresql":
            return found.scalar_subquery()
        chosen = found.with_for_update(skip_locked=True).cte("chosen")
        return select(chosen.c.seq)

    def release(self, channel: str, owner: str, *, keep: Collection[str] = ()) -> int:
        """Let every item that `owner` leased wait again, except the ids in `keep`; returns how many there were."""
        freed = update(batch_items).where(_leased(channel), _items.lease_owner == owner)
        if keep:
            freed = freed.where(_items.id.not_in(keep))
        return self._tx.execute(freed.values(state=ItemState.WAITING.value, lease_owner=None)).rowcount

    def release_others(self, channel: str, owner: str) -> int:
        """Let every item that another owner leased wait again; returns how many there were.

        Only for the owner of the active run: no other lease can be valid.
        """
        freed = update(batch_items).where(
            _items.channel == channel, _items.state == ItemState.PROCESSING.value, _items.lease_owner != owner
        )
        return self._tx.execute(freed.values(state=ItemState.WAITING.value, lease_owner=None)).rowcount

    def leased_by(self, channel: str, owner: str) -> set[str]:
        """The ids of the items that `owner` has leased and not completed."""
        found = select(_items.id).where(_leased(channel), _items.lease_owner == owner)
        return set(self._tx.scalars(found))

    def complete(self, results: Iterable[ItemResult], *, owner: str) -> None:
        """Write the results of items that `owner` has leased. Raises RunLost if it has lost one of the leases."""
        rows = [{**_result_values(each), "held_by": owner} for each in results]
        if rows and self._tx.execute(_COMPLETE, rows).rowcount != len(rows):
            raise RunLost("This process has lost the lease of an item; its result was not written.")

    def moved(self, arrived: Iterable[tuple[str, str]]) -> None:
        """Photos are now where they belong: the ids of their items, each with the key at which its photo lies.

        An item that got another target meanwhile is left alone: its photo is moved again.
        """
        rows = [{"of": item_id, "at": key} for item_id, key in sorted(arrived)]  # in one order, against deadlocks
        if rows:
            self._tx.execute(_MOVED, rows)

    def lost(self, gone: Iterable[tuple[str, str]], *, code: str, failure: str) -> None:
        """Note a failure for items whose photo, which was to be moved to this key, is missing."""
        rows = [{"of": item_id, "at": key, "code": code, "why": failure} for item_id, key in sorted(gone)]
        if rows:
            self._tx.execute(_LOST, rows)

    def correct(self, item_id: str, *, label: str, target_key: str | None, now: datetime) -> None:
        """Write a person's label: the item is done, and its photo is to be moved unless `target_key` is None.

        Raises ItemNotReady while its photo is being moved: finish that move first.
        """
        said = update(batch_items).where(_items.id == item_id, _items.target_key.is_(None))
        changed = self._tx.execute(
            said.values(
                label=label, state=ItemState.DONE.value, target_key=target_key, corrected_at=now,
                failure_code=None, failure=None,
            )
        )  # fmt: skip
        if changed.rowcount != 1:
            raise ItemNotReady(f"The photo of the item {item_id} is being moved. Try again in a moment.")

    def lock(self, item_id: str) -> BatchItem:
        """The item, locked until this transaction ends. Raises ItemNotFound."""
        found = select(batch_items).where(_items.id == item_id).with_for_update()
        row = self._tx.execute(found).one_or_none()
        if row is None:
            raise ItemNotFound(f"There is no batch item {item_id!r}.")
        return _item(row)

    def retry(self, item_id: str) -> None:
        """Let an item wait for the next run as a new one; its photo stays where it is."""
        again = update(batch_items).where(_items.id == item_id).values(AS_NEW)
        self._tx.execute(again)

    def retry_quarantined(self, channel: str, within: RunRange | None) -> int:
        """Let every quarantined item (of a run's table, if one is given) wait for the next run; returns how many."""
        again = update(batch_items).where(_items.channel == channel, _items.state == ItemState.QUARANTINED.value)
        if within is not None:
            again = again.where(_belongs(within))
        return self._tx.execute(again.values(AS_NEW)).rowcount


class RunRepository:
    """The table `batch_runs`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def get(self, run_id: str) -> BatchRun:
        """Raises RunNotFound."""
        row = self._tx.execute(select(batch_runs).where(_runs.id == run_id)).one_or_none()
        if row is None:
            raise RunNotFound(f"There is no run {run_id!r}.")
        return _run(row)

    def active(self, channel: str) -> BatchRun | None:
        """The active run of a channel, if there is one."""
        row = self._tx.execute(select(batch_runs).where(_runs.channel == channel, _runs.active == 1)).one_or_none()
        return None if row is None else _run(row)

    def page(
        self, channel: str, *, limit: int, before: str | None = None, state: RunState | None = None
    ) -> list[BatchRun]:
        """At most `limit` runs, newest first, older than the run with the id `before`."""
        found = select(batch_runs).where(_runs.channel == channel).order_by(_runs.id.desc()).limit(limit)
        if before is not None:
            found = found.where(_runs.id < before)
        if state is not None:
            found = found.where(_runs.state == state.value)
        return [_run(row) for row in self._tx.execute(found)]

    def add(self, run: BatchRun) -> None:
        """Request a run. Raises RecordRefused while another one is active."""
        self._tx.execute(
            insert(batch_runs).values(
                id=run.id, channel=run.channel,
                created_at=run.created_at, requested_by=run.requested_by, state=run.state.value,
                active=1 if run.active else None, bound=run.bound, planned=run.planned, heartbeat=0, stalled=False,
            )
        )  # fmt: skip

    def take_over(self, run: BatchRun, me: RunOwner, *, now: datetime) -> None:
        """Become the owner of `run`, which was read as it is given here. Raises RunLost if it changed since."""
        unchanged = (
            _runs.id == run.id,
            _runs.active == 1,
            _runs.owner.is_(None) if run.owner is None else _runs.owner == run.owner,
            _runs.heartbeat == run.heartbeat,
        )
        taken = update(batch_runs).where(*unchanged).values(
            owner=me.id, host=me.host, pid=me.pid, process=me.process, heartbeat=_runs.heartbeat + 1,
            heartbeat_at=now, stalled=False, state=RunState.RUNNING.value, started_at=run.started_at or now,
        )  # fmt: skip
        self._require(self._tx.execute(taken).rowcount, run.id)

    def describe(
        self, run_id: str, *, owner: str, model: ModelRef, policy_version: str, planned: int, bound: int
    ) -> None:
        """Set the model, the policy and the size of the run. Raises RunLost."""
        self._owned(
            run_id, owner, model_name=model.name, model_version=model.version, policy_version=policy_version,
            planned=planned, bound=bound,
        )  # fmt: skip

    def beat(self, run_id: str, *, owner: str, now: datetime, finished_item: bool, stalled: bool = False) -> None:
        """Write a heartbeat; in the transaction of results it also proves the right to write them. Raises RunLost."""
        progress: dict[str, Any] = {"last_item_at": now} if finished_item else {}
        self._owned(run_id, owner, heartbeat=_runs.heartbeat + 1, heartbeat_at=now, stalled=stalled, **progress)

    def finish(self, run_id: str, *, owner: str, now: datetime, report_key: str | None) -> None:
        """Finish the run. Raises RunLost."""
        self._owned(
            run_id, owner, state=RunState.FINISHED.value, active=None, finished_at=now, report_key=report_key,
            stalled=False, failure=None,
        )  # fmt: skip

    def set_report(self, run_id: str, report_key: str) -> None:
        """Note the key of a finished run's report."""
        self._tx.execute(update(batch_runs).where(_runs.id == run_id).values(report_key=report_key))

    def interrupt(self, run_id: str, *, owner: str, reason: str | None) -> None:
        """Give the run up, so that another process can resume it at once; it stays active. Raises RunLost."""
        self._owned(run_id, owner, owner=None, host=None, pid=None, process=None, failure=reason)

    def _owned(self, run_id: str, held_by: str, **values: Any) -> None:
        mine = update(batch_runs).where(_runs.id == run_id, _runs.owner == held_by, _runs.active == 1)
        self._require(self._tx.execute(mine.values(**values)).rowcount, run_id)

    @staticmethod
    def _require(changed: int, run_id: str) -> None:
        if changed != 1:
            raise RunLost(f"This process no longer owns the run {run_id}.")


_PLAIN_ITEM: Final = tuple(field for field in BatchItem.__dataclass_fields__ if field not in ("references", "state"))
_PLAIN_RUN: Final = tuple(field for field in BatchRun.__dataclass_fields__ if field not in ("model", "state"))


def _item(row: Row[Any]) -> BatchItem:
    columns = row._mapping  # noqa: SLF001  public, see Row
    return BatchItem(
        state=ItemState(row.state),
        references=References(item=row.item_ref, order=row.order_ref, reason=row.reason),
        **{name: columns[name] for name in _PLAIN_ITEM},
    )


def _run(row: Row[Any]) -> BatchRun:
    columns = row._mapping  # noqa: SLF001  public, see Row
    return BatchRun(
        state=RunState(row.state),
        model=_model(row),
        **{name: columns[name] for name in _PLAIN_RUN},
    )


def _model(row: Row[Any]) -> ModelRef | None:
    return ModelRef(name=row.model_name, version=row.model_version) if row.model_name else None


def _arrival(item: BatchItem) -> dict[str, Any]:
    references = item.references
    values = {name: getattr(item, name) for name in _PLAIN_ITEM if name != "seq"}
    return values | {
        "state": item.state.value,
        "item_ref": references.item,
        "order_ref": references.order,
        "reason": references.reason,
    }


AS_NEW: Final[dict[str, Any]] = {
    "state": ItemState.WAITING.value,
    "attempts": 0,
    "run_id": None,
    "lease_owner": None,
    "finished_at": None,
    "failure_code": None,
    "failure": None,
}
"""The values of an item that waits as a new one."""
_MOVED: Final = (
    update(batch_items)
    .where(_items.id == bindparam("of"), _items.target_key == bindparam("at"))
    .values(key=_items.target_key, target_key=None)
)
_LOST: Final = (
    update(batch_items)
    .where(_items.id == bindparam("of"), _items.target_key == bindparam("at"))
    .values(target_key=None, failure_code=bindparam("code"), failure=bindparam("why"))
)
_COMPLETE: Final = (
    update(batch_items)
    .where(
        _items.id == bindparam("of"),
        _items.lease_owner == bindparam("held_by"),
        _items.state == ItemState.PROCESSING.value,
    )
    .values(
        state=bindparam("to_state"),
        lease_owner=None,
        attempts=bindparam("tried"),
        target_key=bindparam("goes_to"),
        finished_at=bindparam("ended"),
        prediction_id=bindparam("by"),
        predicted=bindparam("guess"),
        label=bindparam("guess"),
        score=bindparam("sure"),
        work_ms=bindparam("took_ms"),
        thumbnail_key=bindparam("small"),
        failure_code=bindparam("code"),
        failure=bindparam("why"),
    )
)


def _result_values(each: ItemResult) -> dict[str, Any]:
    return {
        "of": each.item_id,
        "to_state": each.state.value,
        "tried": each.attempts,
        "goes_to": each.target_key,
        "ended": each.finished_at,
        "by": each.prediction_id,
        "guess": each.predicted,
        "sure": each.score,
        "took_ms": each.work_ms,
        "small": each.thumbnail_key,
        "code": each.failure_code,
        "why": each.failure,
    }


def _matching(wanted: ItemFilter) -> Select[Any]:
    found = select(batch_items)
    if wanted.channel is not None:
        found = found.where(_items.channel == wanted.channel)
    if wanted.run_id is not None:
        found = found.where(_items.run_id == wanted.run_id)
    if wanted.state is not None:
        found = found.where(_items.state == wanted.state.value)
    if wanted.label is not None:
        found = found.where(_items.label == wanted.label)
    if wanted.text is not None:
        found = found.where(
            or_(*(column.istartswith(wanted.text, autoescape=True) for column in (_items.item_ref, _items.order_ref)))
        )
    return found


def _table(wanted: ItemFilter, within: RunRange | None) -> Select[Any]:
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


def _leased(channel: str) -> ColumnElement[bool]:
    """With the channel, the index on states serves it."""
    return and_(_items.channel == channel, _items.state == ItemState.PROCESSING.value)


def _unindexed(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.coalesce(column, "")


def _belongs(within: RunRange) -> ColumnElement[bool]:
    return or_(_items.run_id == within.run_id, _unassigned(within))


def _unassigned(within: RunRange) -> ColumnElement[bool]:
    return and_(
        _items.channel == within.channel,
        _items.run_id.is_(None),
        _items.seq > within.beyond,
        _items.seq <= within.bound,
    )


def _table_row(row: Row[Any]) -> TableRow:
    return TableRow(item=_item(row), model=_model(row), threshold=row.decision_threshold)
