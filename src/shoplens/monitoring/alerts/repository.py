"""Alerts, silences and turns in the database, over a transaction that the caller opened.

Every method raises DatabaseUnavailable through that transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, insert, or_, select, update

from shoplens.db.tables import from_row, to_row
from shoplens.monitoring.alerts.entities import Alert, Silence
from shoplens.monitoring.alerts.tables import alert_alerts, alert_silences, alert_turns

_alerts: Final = alert_alerts.c
_silences: Final = alert_silences.c
_turns: Final = alert_turns.c
_TURN: Final = "alerts"


class AlertRepository:
    """The tables `alert_alerts` and `alert_silences`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def open(self) -> list[Alert]:
        """What is pending or fires, oldest first."""
        rows = self._tx.execute(select(alert_alerts).where(_alerts.resolved_at.is_(None)).order_by(_alerts.id))
        return [from_row(Alert, row) for row in rows]

    def resolved(self, *, limit: int) -> list[Alert]:
        """The last that ended, newest first."""
        ended = select(alert_alerts).where(_alerts.resolved_at.is_not(None)).order_by(_alerts.resolved_at.desc())
        return [from_row(Alert, row) for row in self._tx.execute(ended.limit(limit))]

    def save(self, alerts: Sequence[Alert]) -> None:
        """Store what a look made of them."""
        known = set(self._tx.scalars(select(_alerts.id).where(_alerts.id.in_([each.id for each in alerts]))))
        for each in alerts:
            if each.id in known:
                self._tx.execute(update(alert_alerts).where(_alerts.id == each.id).values(to_row(each)))
            else:
                self._tx.execute(insert(alert_alerts).values(to_row(each)))

    def remove(self, alerts: Sequence[Alert]) -> None:
        """Remove those that ended before they fired."""
        self._tx.execute(delete(alert_alerts).where(_alerts.id.in_([each.id for each in alerts])))

    def prune(self, *, keep: int) -> None:
        """Remove the oldest that ended until `keep` of them are left."""
        newest = select(_alerts.id).where(_alerts.resolved_at.is_not(None)).order_by(_alerts.id.desc())
        last = self._tx.execute(newest.limit(1).offset(keep)).scalar()
        if last is not None:
            old = delete(alert_alerts).where(_alerts.resolved_at.is_not(None), _alerts.id <= last)
            self._tx.execute(old)

    def silences(self, now: datetime) -> list[Silence]:
        """Those that are not over."""
        rows = self._tx.execute(select(alert_silences).where(_silences.until > now).order_by(_silences.key))
        return [from_row(Silence, row) for row in rows]

    def silence(self, silence: Silence) -> None:
        """Let this be the silence of its alert, and forget those that are over."""
        over = or_(_silences.key == silence.key, _silences.until <= silence.created_at)
        self._tx.execute(delete(alert_silences).where(over))
        self._tx.execute(insert(alert_silences).values(to_row(silence)))

    def end_silence(self, key: str) -> bool:
        """False where there is none."""
        return self._tx.execute(delete(alert_silences).where(_silences.key == key)).rowcount == 1


class TurnRepository:
    """The table `alert_turns`: of several processes one looks at a time."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def take(self, owner: str, *, now: datetime, every: timedelta, lease: timedelta) -> bool:
        """Whether `owner` looks now: nobody else does, and the last look was long enough ago.

        A moment in the future counts as past: a clock that was wrong for a while must not end the looks.
        """
        taken = {"owner": owner, "lease_until": now + lease}
        free = or_(_turns.owner == "", _turns.lease_until <= now, _turns.lease_until > now + lease)
        due = or_(_turns.looked_at <= now - every, _turns.looked_at > now + every)
        chosen = update(alert_turns).where(_turns.name == _TURN, free, due).values(taken)
        if self._tx.execute(chosen).rowcount == 1:
            return True
        if self._tx.execute(select(_turns.name)).first() is not None:
            return False
        self._tx.execute(insert(alert_turns).values(name=_TURN, looked_at=now, **taken))
        return True

    def end(self, owner: str, *, now: datetime) -> bool:
        """The look is over. False where another process took over meanwhile: then nothing of it may be stored."""
        mine = update(alert_turns).where(_turns.name == _TURN, _turns.owner == owner)
        return self._tx.execute(mine.values(owner="", looked_at=now)).rowcount == 1

    def looked_at(self) -> datetime | None:
        """When a process last looked; None before the first time."""
        return self._tx.execute(select(_turns.looked_at)).scalar()
