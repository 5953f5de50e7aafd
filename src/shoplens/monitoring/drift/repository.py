"""Days of channels with what drifted, in the database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, delete, func, insert, select

from shoplens.monitoring.drift.comparison import Finding
from shoplens.monitoring.drift.profile import Measure, Profile, from_json, to_json
from shoplens.monitoring.tables import monitoring_baselines, monitoring_drift

_days: Final = monitoring_drift.c


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftDay:
    """One day (UTC) of one channel. `strangest` are the photos farthest from the reference, each with its distance.

    `findings` are missing where there were too few samples, or no reference yet. `space` is that of `looking.py`.
    """

    day: date
    channel: str
    model: str
    space: str
    profile: Profile
    findings: tuple[Finding, ...]
    strangest: tuple[tuple[str, float], ...]
    cpu_s: float
    computed_at: datetime

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The findings that are too unlikely without drift."""
        return tuple(finding for finding in self.findings if finding.alarm)

    def finding(self, measure: Measure) -> Finding | None:
        """That of one measure."""
        return next((finding for finding in self.findings if finding.measure is measure), None)


class DriftRepository:
    """The table `monitoring_drift`, over a transaction that the caller opened; it raises DatabaseUnavailable."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def save(self, day: DriftDay) -> None:
        """Store a day in place of an earlier computation of it."""
        same = (_days.begins_s == seconds_of(day.day), _days.channel == day.channel)
        self._tx.execute(delete(monitoring_drift).where(*same))
        self._tx.execute(
            insert(monitoring_drift),
            {
                "begins_s": seconds_of(day.day),
                "channel": day.channel,
                "model": day.model,
                "space": day.space,
                "profile": to_json(day.profile),
                "findings": [_finding_row(finding) for finding in day.findings],
                "strangest": [list(each) for each in day.strangest],
                "alarm": bool(day.alarms),
                "cpu_s": day.cpu_s,
                "computed_at": day.computed_at,
            },
        )

    def days(self, channel: str, since: date, until: date) -> list[DriftDay]:
        """Those from `since` until before `until`, oldest first."""
        within = (_days.channel == channel, _days.begins_s >= seconds_of(since), _days.begins_s < seconds_of(until))
        rows = self._tx.execute(select(monitoring_drift).where(*within).order_by(_days.begins_s))
        return [_day_of(row) for row in rows]

    def known(self, channel: str, since: date, until: date) -> set[date]:
        """Which days of that time are stored."""
        within = (_days.channel == channel, _days.begins_s >= seconds_of(since), _days.begins_s < seconds_of(until))
        return {day_of_seconds(begins_s) for begins_s in self._tx.scalars(select(_days.begins_s).where(*within))}

    def last_alarms(self, channels: Sequence[str], since: date) -> dict[str, tuple[date, tuple[Measure, ...]]]:
        """By channel its last day since then, and the measures that alarmed, unless a person said that it is normal."""
        newest = (
            select(_days.channel, func.max(_days.begins_s).label("begins_s"))
            .where(_days.channel.in_(channels), _days.begins_s >= seconds_of(since))
            .group_by(_days.channel)
            .subquery()
        )
        same = (_days.channel == newest.c.channel) & (_days.begins_s == newest.c.begins_s)
        said = monitoring_baselines.c
        normal = (
            select(said.id)
            .where(
                said.channel == _days.channel,
                said.begins_s <= _days.begins_s,
                said.created_at > _days.computed_at,
                said.withdrawn_at.is_(None),
            )
            .exists()
        )
        columns = (_days.channel, _days.begins_s, _days.findings, normal.label("normal"))
        return {
            row.channel: (
                day_of_seconds(row.begins_s),
                ()
                if row.normal
                else tuple(finding.measure for each in row.findings if (finding := _finding_of(each)).alarm),
            )
            for row in self._tx.execute(select(*columns).join(newest, same))
        }

    def forget(self, before: date) -> int:
        """Delete days before this one; how many."""
        return self._tx.execute(delete(monitoring_drift).where(_days.begins_s < seconds_of(before))).rowcount


def start_of(day: date) -> datetime:
    """Midnight UTC at which a day begins."""
    return datetime.combine(day, time(), UTC)


def seconds_of(day: date) -> int:
    """The Unix second at which a day begins."""
    return int(start_of(day).timestamp())


def day_of_seconds(begins_s: int) -> date:
    """The day that begins at this Unix second."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=begins_s)).date()


def _finding_row(finding: Finding) -> dict[str, Any]:
    return {
        "measure": finding.measure.value,
        "distance": finding.distance,
        "usual": finding.usual,
        "limit": finding.limit,
        "p_value": finding.p_value,
        "samples": finding.samples,
        "reference_samples": finding.reference_samples,
        "before": finding.before,
    }


def _finding_of(stored: dict[str, Any]) -> Finding:
    stored = {"before": 0.0} | stored  # 0.3 stored none, and one unusual day was an alarm
    return Finding(**stored | {"measure": Measure(stored["measure"])})


def _day_of(row: Row[Any]) -> DriftDay:
    return DriftDay(
        day=day_of_seconds(row.begins_s),
        channel=row.channel,
        model=row.model,
        space=row.space,
        profile=from_json(row.profile),
        findings=tuple(_finding_of(each) for each in row.findings),
        strangest=tuple((sample_id, distance) for sample_id, distance in row.strangest),
        cpu_s=row.cpu_s,
        computed_at=row.computed_at,
    )
