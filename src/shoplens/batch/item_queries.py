"""The repository of returned items: add, lease, settle, move, correct, find them in somebody else's transaction."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, or_, select, tuple_, update

from shoplens.batch.entities import BatchItem, ItemFilter, ItemResult, ItemState, References
from shoplens.batch.tables import batch_items as items
from shoplens.db.postgres import hold_arrivals
from shoplens.errors import ItemNotFound, ItemNotReady, RunLost

_STREAM_ROWS: Final = 500
_IS_WAITING: Final = items.c.state == ItemState.WAITING.value


def _nothing() -> None:
    """A unit of work keeps its transaction between the pages of a stream."""


class ItemReader:
    """Read returned items. Raises DatabaseUnavailable through the unit of work that owns it."""

    def __init__(self, connection: Connection, *, after_page: Callable[[], None] = _nothing) -> None:
        self._connection = connection
        self._after_page = after_page

    def get(self, item_id: str) -> BatchItem:
        """Raises ItemNotFound."""
        row = self._connection.execute(select(items).where(items.c.id == item_id)).one_or_none()
        if row is None:
            raise ItemNotFound(f"There is no returned item {item_id!r}.")
        return item_from_row(row)

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
            found = found.where(items.c.run_id.is_(None), items.c.seq > of_no_run[0], items.c.seq <= of_no_run[1])
        if before is not None:
            found = found.where(items.c.seq < before)
        upwards = after is not None and before is None
        if upwards:
            found = found.where(items.c.seq > after)
        order = items.c.seq.asc() if upwards else items.c.seq.desc()
        # What is sorted is numbers out of an index; whole rows are read only for the page.
        chosen = found.with_only_columns(items.c.seq).order_by(order).limit(limit)
        page = select(items).where(items.c.seq.in_(chosen.scalar_subquery())).order_by(order)
        rows = [item_from_row(row) for row in self._connection.execute(page)]
        return rows[::-1] if upwards else rows

    def stream(self, wanted: ItemFilter) -> Iterator[BatchItem]:
        """Every item that matches, newest first, a page in memory at a time; each page has a view of its own."""
        last: int | None = None
        while found := self.page(wanted, limit=_STREAM_ROWS, before=last):
            self._after_page()
            yield from found
            last = found[-1].seq

    def count_states(self, run_id: str) -> dict[ItemState, int]:
        """How many items of a run stand where; states without items are left out."""
        found = select(items.c.state, func.count()).where(items.c.run_id == run_id).group_by(items.c.state)
        return {ItemState(state): count for state, count in self._connection.execute(found)}

    def count_labels(self, run_id: str) -> dict[tuple[ItemState, str], int]:
        """How many items of a run have which label in which state; items without a label are left out."""
        found = (
            select(items.c.state, items.c.label, func.count())
            .where(items.c.run_id == run_id, items.c.label.is_not(None))
            .group_by(items.c.state, items.c.label)
        )
        return {(ItemState(state), label): count for state, label, count in self._connection.execute(found)}

    def count_waiting(self, channel: str, *, bound: int | None = None) -> int:
        """How many items of a channel wait, up to `bound` if it is given."""
        found = select(func.count()).select_from(items).where(items.c.channel == channel, _IS_WAITING)
        if bound is not None:
            found = found.where(items.c.seq <= bound)
        return int(self._connection.execute(found).scalar_one())

    def last_seq(self) -> int:
        """The number of the newest arrival; 0 where there is none."""
        return int(self._connection.execute(select(func.max(items.c.seq))).scalar_one() or 0)

    def work_ms(self, run_id: str) -> tuple[int, float]:
        """How many items of a run were classified, and how many milliseconds that took in all."""
        found = select(func.count(items.c.work_ms), func.sum(items.c.work_ms)).where(items.c.run_id == run_id)
        count, total = self._connection.execute(found).one()
        return int(count), float(total or 0.0)

    def slowest(self, run_id: str, limit: int) -> list[BatchItem]:
        """The items of a run whose classification took longest."""
        found = select(items).where(items.c.run_id == run_id, items.c.work_ms.is_not(None))
        return [
            item_from_row(row) for row in self._connection.execute(found.order_by(items.c.work_ms.desc()).limit(limit))
        ]

    def known_stamps(self, channel: str, stamps: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these pairs of source name and source stamp that an item has: files that were taken before."""
        pair = tuple_(items.c.source_name, items.c.source_stamp)
        found = select(items.c.source_name, items.c.source_stamp).where(items.c.channel == channel, pair.in_(stamps))
        return {(name, stamp) for name, stamp in self._connection.execute(found)}

    def known_arrivals(self, channel: str, arrivals: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of these pairs of content hash and source name that an item has."""
        pair = tuple_(items.c.sha256, items.c.source_name)
        found = select(items.c.sha256, items.c.source_name).where(items.c.channel == channel, pair.in_(arrivals))
        return {(sha256, name) for sha256, name in self._connection.execute(found)}

    def known_names(self, channel: str, names: Collection[str], *, since: datetime) -> set[str]:
        """Those of these source names that an item has which was received at `since` or later."""
        known = (items.c.channel == channel, items.c.source_name.in_(names), items.c.received_at >= since)
        found = select(items.c.source_name).where(*known)
        return set(self._connection.scalars(found))

    def arrival(self, channel: str, sha256: str, source_name: str) -> BatchItem | None:
        """The item of this content under this name."""
        found = select(items).where(
            items.c.channel == channel, items.c.sha256 == sha256, items.c.source_name == source_name
        )
        row = self._connection.execute(found).one_or_none()
        return None if row is None else item_from_row(row)

    def with_contents(self, channel: str, hashes: Collection[str]) -> dict[str, BatchItem]:
        """The items whose photo has one of these contents, by its hash; later arrivals of it are left out."""
        found = select(items).where(
            items.c.channel == channel, items.c.sha256.in_(hashes), items.c.duplicate_of.is_(None)
        )
        return {row.sha256: item_from_row(row) for row in self._connection.execute(found)}

    def moving(self, channel: str, *, limit: int, beyond: int = 0) -> list[BatchItem]:
        """Items whose photo is not yet where it belongs and whose `seq` is beyond `beyond`, oldest first."""
        found = select(items).where(items.c.channel == channel, items.c.target_key.is_not(None), items.c.seq > beyond)
        return [item_from_row(row) for row in self._connection.execute(found.order_by(items.c.seq).limit(limit))]


class ItemRepository(ItemReader):
    """Read and change returned items."""

    def hold_arrivals(self) -> None:
        """Let nobody else add items until this transaction ends, so that what is looked at now stays true."""
        if self._connection.dialect.name == "postgresql":  # on SQLite nobody else writes anyway
            hold_arrivals(self._connection)

    def add_many(self, arrived: Sequence[BatchItem]) -> None:
        """All or none. Raises RecordRefused (through the unit of work) where content or arrival is known already."""
        if arrived:
            self._connection.execute(insert(items), [_arrival_values(item) for item in arrived])

    def lease(self, channel: str, *, owner: str, run_id: str, bound: int, limit: int) -> list[BatchItem]:
        """Take up to `limit` waiting items for `owner`: the least tried first, then the oldest.

        Left out are those whose photo is on its way to another place: nobody could say where it is just now.
        """
        taken: list[BatchItem] = []
        tried = -1
        while len(taken) < limit:
            # One leap per number of attempts, and then a range: what arrived beyond `bound` is never walked over.
            fewest = select(func.min(items.c.attempts)).where(
                items.c.channel == channel, _IS_WAITING, items.c.attempts > tried
            )
            found = self._connection.execute(fewest).scalar_one()
            if found is None:
                break
            tried = int(found)
            few = select(items.c.seq).where(items.c.channel == channel, _IS_WAITING, items.c.attempts == tried)
            few = few.where(items.c.seq <= bound, items.c.target_key.is_(None)).order_by(items.c.seq)
            leased = {"state": ItemState.PROCESSING.value, "run_id": run_id, "lease_owner": owner}
            chosen = items.c.seq.in_(self._chosen(few.limit(limit - len(taken))))
            rows = self._connection.execute(update(items).where(chosen).values(leased).returning(items))
            taken += sorted(map(item_from_row, rows), key=lambda item: item.seq)
        return taken

    def _chosen(self, found: Select[tuple[int]]) -> Any:
        """On PostgreSQL what another lessee holds is passed over, and what is chosen is chosen only once."""
        if self._connection.dialect.name != "postgresql":
            return found.scalar_subquery()
        chosen = found.with_for_update(skip_locked=True).cte("chosen")
        return select(chosen.c.seq)

    def release(self, owner: str, *, keep: Collection[str] = ()) -> int:
        """Let everything that `owner` had leased wait again, but for the ids in `keep`; how many there were."""
        freed = update(items).where(items.c.state == ItemState.PROCESSING.value, items.c.lease_owner == owner)
        if keep:
            freed = freed.where(items.c.id.not_in(keep))
        return self._connection.execute(freed.values(state=ItemState.WAITING.value, lease_owner=None)).rowcount

    def release_others(self, channel: str, owner: str) -> int:
        """Let everything that is leased by anybody but `owner` wait again; how many there were.

        For the owner of the active run alone: whoever else had leased something works on no run any more.
        """
        freed = update(items).where(
            items.c.channel == channel, items.c.state == ItemState.PROCESSING.value, items.c.lease_owner != owner
        )
        return self._connection.execute(freed.values(state=ItemState.WAITING.value, lease_owner=None)).rowcount

    def leased_by(self, owner: str) -> set[str]:
        """The ids of the items that `owner` has leased and not settled."""
        found = select(items.c.id).where(items.c.state == ItemState.PROCESSING.value, items.c.lease_owner == owner)
        return set(self._connection.scalars(found))

    def complete(self, results: Iterable[ItemResult], *, owner: str) -> None:
        """Write what became of items that `owner` has leased. Raises RunLost where one is not leased by it any more."""
        rows = [{**_result_values(each), "held_by": owner} for each in results]
        if rows and self._connection.execute(_COMPLETE, rows).rowcount != len(rows):
            raise RunLost("An item that this process worked on is no longer its own; nothing of it was written.")

    def moved(self, arrived: Iterable[tuple[str, str]]) -> None:
        """Photos are now where they belong: the ids of their items, each with the key at which its photo lies.

        An item that was sent elsewhere meanwhile is left alone: whoever sent it moves its photo again.
        """
        rows = [{"of": item_id, "at": key} for item_id, key in sorted(arrived)]  # in one order: no two wait in a ring
        if rows:
            self._connection.execute(_MOVED, rows)

    def lost(self, gone: Iterable[tuple[str, str]], *, code: str, failure: str) -> None:
        """Photos that were to come to a key (ids of items, with that key) are nowhere: the items say so."""
        rows = [{"of": item_id, "at": key, "code": code, "why": failure} for item_id, key in sorted(gone)]
        if rows:
            self._connection.execute(_LOST, rows)

    def correct(self, item_id: str, *, label: str, target_key: str | None, now: datetime) -> None:
        """A person said what it is: it is done, and its photo belongs elsewhere unless `target_key` is None.

        Raises ItemNotReady while its photo is on its way to another place: finish that move first.
        """
        said = update(items).where(items.c.id == item_id, items.c.target_key.is_(None))
        changed = self._connection.execute(
            said.values(
                label=label, state=ItemState.DONE.value, target_key=target_key, corrected_at=now,
                failure_code=None, failure=None,
            )
        )  # fmt: skip
        if changed.rowcount != 1:
            raise ItemNotReady(f"The photo of the item {item_id} is just being moved. Try again in a moment.")

    def lock(self, item_id: str) -> BatchItem:
        """The item as it stays until this transaction ends, unless this transaction changes it. Raises ItemNotFound."""
        found = select(items).where(items.c.id == item_id).with_for_update()
        row = self._connection.execute(found).one_or_none()
        if row is None:
            raise ItemNotFound(f"There is no returned item {item_id!r}.")
        return item_from_row(row)

    def retry(self, item_id: str) -> None:
        """Let an item wait for the next run as if it had just arrived; its photo stays where it is."""
        again = update(items).where(items.c.id == item_id).values(AS_NEW)
        self._connection.execute(again)


def item_from_row(row: Row[Any]) -> BatchItem:
    """One row as a value."""
    return BatchItem(
        seq=row.seq,
        id=row.id,
        channel=row.channel,
        received_at=row.received_at,
        source_name=row.source_name,
        source_stamp=row.source_stamp,
        references=References(item=row.item_ref, order=row.order_ref, reason=row.reason),
        sha256=row.sha256,
        byte_count=row.byte_count,
        state=ItemState(row.state),
        key=row.key,
        target_key=row.target_key,
        thumbnail_key=row.thumbnail_key,
        duplicate_of=row.duplicate_of,
        attempts=row.attempts,
        run_id=row.run_id,
        prediction_id=row.prediction_id,
        predicted=row.predicted,
        score=row.score,
        label=row.label,
        corrected_at=row.corrected_at,
        finished_at=row.finished_at,
        work_ms=row.work_ms,
        failure_code=row.failure_code,
        failure=row.failure,
    )


AS_NEW: Final[dict[str, Any]] = {
    "state": ItemState.WAITING.value,
    "attempts": 0,
    "run_id": None,
    "lease_owner": None,
    "finished_at": None,
    "failure_code": None,
    "failure": None,
}
"""What makes an item wait as if it had just arrived."""
_MOVED: Final = (
    update(items)
    .where(items.c.id == bindparam("of"), items.c.target_key == bindparam("at"))
    .values(key=items.c.target_key, target_key=None)
)
_LOST: Final = (
    update(items)
    .where(items.c.id == bindparam("of"), items.c.target_key == bindparam("at"))
    .values(target_key=None, failure_code=bindparam("code"), failure=bindparam("why"))
)
_COMPLETE: Final = (
    update(items)
    .where(
        items.c.id == bindparam("of"),
        items.c.lease_owner == bindparam("held_by"),
        items.c.state == ItemState.PROCESSING.value,
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


def _arrival_values(item: BatchItem) -> dict[str, Any]:
    return {
        "id": item.id,
        "channel": item.channel,
        "received_at": item.received_at,
        "source_name": item.source_name,
        "source_stamp": item.source_stamp,
        "item_ref": item.references.item,
        "order_ref": item.references.order,
        "reason": item.references.reason,
        "sha256": item.sha256,
        "byte_count": item.byte_count,
        "state": item.state.value,
        "key": item.key,
        "target_key": item.target_key,
        "thumbnail_key": item.thumbnail_key,
        "duplicate_of": item.duplicate_of,
        "attempts": item.attempts,
        "failure_code": item.failure_code,
        "failure": item.failure,
    }


def _matching(wanted: ItemFilter) -> Select[Any]:
    found = select(items)
    if wanted.channel is not None:
        found = found.where(items.c.channel == wanted.channel)
    if wanted.run_id is not None:
        found = found.where(items.c.run_id == wanted.run_id)
    if wanted.state is not None:
        found = found.where(items.c.state == wanted.state.value)
    if wanted.label is not None:
        found = found.where(items.c.label == wanted.label)
    if wanted.text is not None:
        found = found.where(
            or_(*(column.istartswith(wanted.text, autoescape=True) for column in (items.c.item_ref, items.c.order_ref)))
        )
    return found
