"""The time series in the database, over a transaction that the caller opened.

Several processes add to the same steps: the database adds their counts up, so none needs to know of another. Every
method raises DatabaseUnavailable through the transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, case, delete, func, or_, select, text
from sqlalchemy.dialects import postgresql, sqlite

from shoplens.db.database import hold_monitoring
from shoplens.db.tables import distinct, from_row, make_id, time_of, to_row
from shoplens.monitoring.entities import (
    DAY_S,
    LEAST_OF_STEP,
    MINUTE_S,
    MOST_OF_STEP,
    NOTHING,
    SERVER,
    STEPS_S,
    Counts,
    DayCounts,
    MinuteReading,
    SeriesKey,
    ServerState,
    StepState,
)
from shoplens.monitoring.tables import LATENCY_COLUMNS, monitoring_days, monitoring_points, monitoring_states
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.policy import Outcome
from shoplens.predictions.tables import feedback, predictions

ALL: Final = SeriesKey("")
"""All channels together."""
_points: Final = monitoring_points.c
_states: Final = monitoring_states.c
_days: Final = monitoring_days.c
_PLAIN: Final = ("answered", "accepted", "to_review", "rejected", "refused", "busy", "failed", "latency_sum_s")
_COUNTED: Final = (*_PLAIN, *LATENCY_COLUMNS)
_OUTCOMES: Final = {Outcome.ACCEPT: "accepted", Outcome.REVIEW: "to_review", Outcome.REJECT: "rejected"}
_SIDES: Final = {
    FeedbackValue.RIGHT.value: "confirmed",
    FeedbackValue.WRONG.value: "corrected",
    FeedbackValue.NONE.value: "corrected",
}
"""What each verdict says of the prediction; a photo that is not usable says nothing."""


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
        for step_s in STEPS_S:
            states: dict[int, ServerState] = {}
            points: dict[tuple[int, SeriesKey], Counts] = {}
            for each in readings:
                at = each.begins_s // step_s * step_s
                states[at] = states[at].worst(each.state) if at in states else each.state
                for key, counts in each.counts.items():
                    points[at, key] = points.get((at, key), NOTHING) + counts
            watched = Counter(minute // step_s * step_s for minute in fresh)
            self._add_states(
                [
                    {"step_s": step_s, "begins_s": at, "watched": watched[at]} | to_row(states[at])
                    for at in sorted(states)
                ]
            )
            self._add_points(
                [
                    {"step_s": step_s, "begins_s": at} | key._asdict() | _columns_of(points[at, key])
                    for at, key in sorted(points)
                ]
            )

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

    def _add_states(self, rows: list[dict[str, Any]]) -> None:
        new = _upsert(self._tx, monitoring_states)
        merged = {name: _extreme(_states[name], new.excluded[name], most=True) for name in MOST_OF_STEP}
        merged |= {name: _extreme(_states[name], new.excluded[name], most=False) for name in LEAST_OF_STEP}
        merged["watched"] = _states.watched + new.excluded.watched
        self._tx.execute(new.on_conflict_do_update(index_elements=["step_s", "begins_s"], set_=merged), rows)

    def _add_points(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        new = _upsert(self._tx, monitoring_points)
        merged = {name: _points[name] + new.excluded[name] for name in _COUNTED}
        keys = ["step_s", "begins_s", "channel", "model"]
        self._tx.execute(new.on_conflict_do_update(index_elements=keys, set_=merged), rows)

    @staticmethod
    def _within(step_s: int, since_s: int, until_s: int) -> tuple[ColumnElement[bool], ...]:
        return _points.step_s == step_s, _points.begins_s >= since_s, _points.begins_s < until_s


class DayRepository:
    """The table `monitoring_days`, and the counts that fill it."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def count(self, begins_s: int) -> list[DayCounts]:
        """Count the records of a day, and what people said on it, by channel. Uses ranges of indexes only."""
        first, end = make_id(begins_s * 1000, bytes(10)), make_id((begins_s + DAY_S) * 1000, bytes(10))
        channels: dict[str, dict[str, int]] = {}
        for row in self._tx.execute(distinct(predictions.c.channel)).all():
            channel = str(row[0])
            for outcome, name in _OUTCOMES.items():
                wanted = (predictions.c.channel == channel, predictions.c.decision_outcome == outcome.value)
                of_day = (predictions.c.id >= first, predictions.c.id < end)
                number = self._tx.execute(select(func.count()).select_from(predictions).where(*wanted, *of_day))
                if count := number.scalar_one():
                    channels.setdefault(channel, {})[name] = count
        said = (
            select(predictions.c.channel, feedback.c.verdict, func.count())
            .join(predictions, predictions.c.id == feedback.c.prediction_id)
            .where(feedback.c.id >= first, feedback.c.id < end, feedback.c.withdrawn_at.is_(None))
            .group_by(predictions.c.channel, feedback.c.verdict)
        )
        for channel, verdict, count in self._tx.execute(said):
            if side := _SIDES.get(verdict):
                of = channels.setdefault(channel, {})
                of[side] = of.get(side, 0) + count
        return [
            DayCounts(
                begins_s=begins_s,
                channel=channel,
                predictions=sum(of.get(each, 0) for each in _OUTCOMES.values()),
                **of,
            )
            for channel, of in sorted(channels.items())
        ]

    def replace(self, begins_s: int, counts: Sequence[DayCounts], *, now: datetime) -> None:
        """Let these be the counts of a day. Several processes may do it at once."""
        hold_monitoring(self._tx)
        self._tx.execute(delete(monitoring_days).where(_days.begins_s == begins_s))
        rows = [to_row(each) | {"counted_at": now} for each in counts]
        if rows:
            self._tx.execute(monitoring_days.insert(), rows)

    def between(self, since_s: int, until_s: int, *, channel: str = "") -> list[DayCounts]:
        """The counted days of all channels, or of one, oldest first."""
        found = select(monitoring_days).where(_days.begins_s >= since_s, _days.begins_s < until_s)
        if channel:
            found = found.where(_days.channel == channel)
        return [from_row(DayCounts, row) for row in self._tx.execute(found.order_by(_days.begins_s, _days.channel))]

    def newest_s(self) -> int | None:
        """When the newest counted day begins; None before the first."""
        newest = self._tx.execute(select(func.max(_days.begins_s))).scalar()
        return None if newest is None else int(newest)

    def first_record_s(self) -> int | None:
        """The Unix second of the oldest record; None where there is none."""
        oldest = self._tx.execute(select(func.min(predictions.c.id))).scalar()
        return None if oldest is None else int(time_of(oldest).timestamp())

    def prune(self, *, keep: int) -> None:
        """Remove the oldest days until `keep` are left."""
        newest = select(_days.begins_s).distinct().order_by(_days.begins_s.desc())
        last = self._tx.execute(newest.limit(1).offset(keep)).scalar()
        if last is not None:
            self._tx.execute(delete(monitoring_days).where(_days.begins_s <= last))


def _upsert(tx: Connection, table: Any) -> Any:
    return (postgresql if tx.dialect.name == "postgresql" else sqlite).insert(table)


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
