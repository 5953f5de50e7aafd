"""What people said is normal from a day on: a change of a channel that was expected."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

from sqlalchemy import Connection, insert, select, update

from shoplens.db.tables import from_row
from shoplens.monitoring.drift.repository import DriftDay, day_of_seconds
from shoplens.monitoring.tables import monitoring_baselines

_rows = monitoring_baselines.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """From the day (UTC) that begins at `begins_s` on the days of a channel are normal. `reason` is a person's words.

    It does not hold any more once it was withdrawn.
    """

    id: str
    channel: str
    begins_s: int
    created_at: datetime
    created_by: str
    reason: str
    withdrawn_at: datetime | None = None
    withdrawn_by: str | None = None

    @property
    def day(self) -> date:
        """The first day that is normal."""
        return day_of_seconds(self.begins_s)


def expected(day: DriftDay, normal: Baseline | None) -> bool:
    """Whether a person has said of a day, after it was compared, that it is normal."""
    return normal is not None and day.day >= normal.day and day.computed_at < normal.created_at


class BaselineRepository:
    """The table `monitoring_baselines`, over a transaction that the caller opened; it raises DatabaseUnavailable."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, baseline: Baseline) -> None:
        """A new one."""
        fields = ("id", "channel", "begins_s", "created_at", "created_by", "reason")
        self._tx.execute(insert(monitoring_baselines), {name: getattr(baseline, name) for name in fields})

    def of_day(self, channel: str, day: date) -> Baseline | None:
        """The last change up to this day that a person said is normal, and that stands."""
        return next((each for each in self.standing(channel) if each.day <= day), None)

    def standing(self, channel: str) -> list[Baseline]:
        """All that stand, the last day first."""
        query = select(monitoring_baselines).where(_rows.channel == channel, _rows.withdrawn_at.is_(None))
        return [
            from_row(Baseline, row) for row in self._tx.execute(query.order_by(_rows.begins_s.desc(), _rows.id.desc()))
        ]

    def withdraw(self, baseline_id: str, *, by: str, now: datetime) -> bool:
        """It does not stand any more; False if it did not before."""
        stands = (_rows.id == baseline_id, _rows.withdrawn_at.is_(None))
        written = update(monitoring_baselines).where(*stands).values(withdrawn_at=now, withdrawn_by=by)
        return self._tx.execute(written).rowcount == 1
