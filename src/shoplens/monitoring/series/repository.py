"""The time series in the database, over a transaction that the caller opened.

Several processes add to the same steps: the database adds their counts up, so none needs to know of another. Every
method raises DatabaseUnavailable through the transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, case, delete, func, or_, select, text
from sqlalchemy.dialects import postgresql, sqlite

from shoplens.db.database import hold_monitoring
from shoplens.db.tables import from_row, to_row
from shoplens.monitoring.series.entities import (
    LEAST_OF_STEP,
    MINUTE_S,
    MOST_OF_STEP,
    NOTHING,
    SERVER,
    STEPS_S,
    Counts,
    MinuteReading,
    SeriesKey,
    ServerState,
    StepState,
)
from shoplens.monitoring.tables import LATENCY_COLUMNS, monitoring_points, monitoring_states

ALL: Final = SeriesKey("")
"""All channels together."""
_points: Final = monitoring_points.c
_states: Final = monitoring_states.c
_PLAIN: Final = ("answered", "accepted", "to_review", "rejected", "refused", "busy", "failed", "latency_sum_s")
_COUNTED: Final = (*_PLAIN, *LATENCY_COLUMNS)


class SeriesRepository:
    """The tables `monitoring_points` and `monitoring_states`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, readings: Sequence[MinuteReading]) -> None:
        """Add what one process saw to the minutes, the hours and the days."""
        hold_monitoring(self._tx)
        minutes = {each.begins_s // MINUTE_S * MINUTE_S for each in readings}
        of_minutes = (_states.step_s == MINUTE_S, _states.begins_s >= min(minutes), _states.begins_s <= max(minutes))
        fresh = minutes - set(self._tx.execute(select(_states.begins_s).where(*of_minutes)).scalars())
        all_states: list[dict[str, Any]] = []
        all_points: list[dict[str, Any]] = []
        for step_s in STEPS_S:
            states: dict[int, ServerState] = {}
            points: dict[tuple[int, SeriesKey], Counts] = {}
            for each in readings:
                at = each.begins_s // step_s * step_s
                states[at] = states[at].worst(each.state) if at in states else each.state
                for key, counts in each.counts.items():
                    points[at, key] = points.get((at, key), NOTHING) + counts
            watched = Counter(minute // step_s * step_s for minute in fresh)
            all_states += [
                {"step_s": step_s, "begins_s": at, "watched": watched[at]} | to_row(states[at]) for at in sorted(states)
            ]
            all_points += [
                {"step_s": step_s, "begins_s": at} | key._asdict() | _columns_of(points[at, key])
                for at, key in sorted(points)
            ]
        self._tx.execute(_add_states(self._tx.dialect.name), all_states)
        if all_points:
            self._tx.execute(_add_points(self._tx.dialect.name), all_points)

    def totals(
        self, *, step_s: int, bucket_s: int, since_s: int, until_s: int, key: SeriesKey = ALL
    ) -> dict[int, Counts]:
        """The counts of all channels, or of one and its model, in parts of `bucket_s` by their beginning.

        Parts in which nothing was asked for are left out.
        """
        begins = _bucket(_points.begins_s, bucket_s)
        found = select(begins, *_sums()).where(*self._within(step_s, since_s, until_s), *_of(key)).group_by(begins)
        return {row[0]: _counts_of(row) for row in self._tx.execute(found)}

    def by_series(self, *, step_s: int, since_s: int, until_s: int) -> dict[SeriesKey, Counts]:
        """The counts of each channel and model, and of the whole server, over the range."""
        keys = (_points.channel, _points.model)
        found = select(*keys, *_sums()).where(*self._within(step_s, since_s, until_s)).group_by(*keys).order_by(*keys)
        return {SeriesKey(row[0], row[1]): _counts_of(row) for row in self._tx.execute(found)}

    def states(self, *, step_s: int, bucket_s: int, since_s: int, until_s: int) -> dict[int, StepState]:
        """The states in parts of `bucket_s` by their beginning. A part that nobody watched is left out."""
        begins = _bucket(_states.begins_s, bucket_s)
        facts = (
            func.sum(_states.watched).label("watched"),
            *(func.max(_states[name]).label(name) for name in MOST_OF_STEP),
            *(func.min(_states[name]).label(name) for name in LEAST_OF_STEP),
        )
        wanted = (_states.step_s == step_s, _states.begins_s >= since_s, _states.begins_s < until_s)
        found = self._tx.execute(select(begins, *facts).where(*wanted).group_by(begins))
        return {row[0]: StepState(watched=int(row.watched), state=from_row(ServerState, row)) for row in found}

    def first_s(self) -> int | None:
        """When the oldest hour begins; None before the first one."""
        oldest = self._tx.execute(select(func.min(_states.begins_s)).where(_states.step_s == STEPS_S[1])).scalar()
        return None if oldest is None else int(oldest)

    def prune(self, step_s: int, *, keep: int) -> int:
        """Remove the oldest steps until `keep` watched ones are left; how many states went.

        By count, not by age: a clock that is years ahead for a minute must not cost the whole series.
        """
        newest = select(_states.begins_s).where(_states.step_s == step_s).order_by(_states.begins_s.desc())
        last = self._tx.execute(newest.limit(1).offset(keep)).scalar()
        if last is None:
            return 0
        self._tx.execute(delete(monitoring_points).where(_points.step_s == step_s, _points.begins_s <= last))
        gone = delete(monitoring_states).where(_states.step_s == step_s, _states.begins_s <= last)
        return self._tx.execute(gone).rowcount

    def database_bytes(self) -> int:
        """How much room the database takes."""
        if self._tx.dialect.name == "postgresql":
            return int(self._tx.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
        pages, size = (self._tx.execute(text(f"PRAGMA {name}")).scalar_one() for name in ("page_count", "page_size"))
        return int(pages) * int(size)

    @staticmethod
    def _within(step_s: int, since_s: int, until_s: int) -> tuple[ColumnElement[bool], ...]:
        return _points.step_s == step_s, _points.begins_s >= since_s, _points.begins_s < until_s


# Written every minute. To put these together takes longer than to run them, so that is done once.


@cache
def _add_states(dialect: str) -> Any:
    new = _upsert(dialect, monitoring_states)
    merged = {name: _extreme(_states[name], new.excluded[name], most=True) for name in MOST_OF_STEP}
    merged |= {name: _extreme(_states[name], new.excluded[name], most=False) for name in LEAST_OF_STEP}
    merged["watched"] = _states.watched + new.excluded.watched
    return new.on_conflict_do_update(index_elements=["step_s", "begins_s"], set_=merged)


@cache
def _add_points(dialect: str) -> Any:
    new = _upsert(dialect, monitoring_points)
    merged = {name: _points[name] + new.excluded[name] for name in _COUNTED}
    return new.on_conflict_do_update(index_elements=["step_s", "begins_s", "channel", "model"], set_=merged)


def _upsert(dialect: str, table: Any) -> Any:
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def _extreme(old: ColumnElement[Any], new: ColumnElement[Any], *, most: bool) -> ColumnElement[Any]:
    """The greater or the lesser of both, or the one that is known."""
    wins = new > old if most else new < old
    return case((or_(old.is_(None), wins), new), else_=old)


def _bucket(begins: ColumnElement[int], bucket_s: int) -> ColumnElement[int]:
    return (begins - begins % bucket_s).label("bucket")


def _sums() -> tuple[ColumnElement[Any], ...]:
    return tuple(func.sum(_points[name]).label(name) for name in _COUNTED)


def _of(key: SeriesKey) -> tuple[ColumnElement[bool], ...]:
    if not key.channel:
        return (_points.channel != SERVER,)
    return (_points.channel == key.channel, *((_points.model == key.model,) if key.model else ()))


def _columns_of(counts: Counts) -> dict[str, Any]:
    plain = {name: getattr(counts, name) for name in _PLAIN}
    return plain | dict(zip(LATENCY_COLUMNS, counts.latency, strict=True))


def _counts_of(row: Row[Any]) -> Counts:
    values: Any = row._mapping  # noqa: SLF001  public, see Row
    latency = tuple(int(values[name]) for name in LATENCY_COLUMNS)
    plain = {name: int(values[name]) for name in _PLAIN if name != "latency_sum_s"}
    return Counts(**plain, latency_sum_s=float(values["latency_sum_s"]), latency=latency)
