"""Mails in the database, over a transaction that the caller opened, through which it raises DatabaseUnavailable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, delete, func, null, or_, select, update

from shoplens.db.tables import from_row, to_row
from shoplens.mail.entities import Mail, MailState
from shoplens.mail.tables import mail_messages

_mails: Final = mail_messages.c


@dataclass(frozen=True, slots=True, kw_only=True)
class MailCounts:
    """How many mails wait and how many were given up, and since when the oldest one of those that wait does."""

    pending: int
    dead: int
    oldest_at: datetime | None


class MailRepository:
    """The table `mail_messages`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def is_due(self, *, now: datetime) -> bool:
        """Whether `lease` would find something."""
        return self._tx.scalar(select(_mails.id).where(*_due(now)).limit(1)) is not None

    def lease(self, *, now: datetime, until: datetime, limit: int) -> list[Mail]:
        """Take up to `limit` mails whose turn it is, oldest first. Nobody else gets them before `until`."""
        chosen = list(self._tx.scalars(select(_mails.id).where(*_due(now)).order_by(_mails.id).limit(limit)))
        # The condition again: on PostgreSQL another process may have taken one since.
        taken = update(mail_messages).where(_mails.id.in_(chosen), *_due(now)).values(lease_until=until)
        ids = list(self._tx.scalars(taken.returning(_mails.id)))
        rows = self._tx.execute(select(mail_messages).where(_mails.id.in_(ids)).order_by(_mails.id))
        return [from_row(Mail, row) for row in rows]

    def update(self, mail: Mail) -> None:
        """Write what an attempt changed."""
        self._tx.execute(update(mail_messages).where(_mails.id == mail.id).values(to_row(mail)))

    def newest(self, *, limit: int) -> list[Mail]:
        """The newest mails, without their content."""
        columns = [column for column in _mails if column.name != "content"]
        wanted: list[ColumnElement[Any]] = [*columns, null().label("content")]
        found = select(*wanted).order_by(_mails.id.desc()).limit(limit)
        return [from_row(Mail, row) for row in self._tx.execute(found)]

    def counts(self) -> MailCounts:
        """Of all that is kept."""
        by_state = self._tx.execute(select(_mails.state, func.count()).group_by(_mails.state))
        states = {str(row[0]): int(row[1]) for row in by_state}
        oldest = select(_mails.created_at).where(_mails.state == MailState.PENDING.value).order_by(_mails.id).limit(1)
        return MailCounts(
            pending=states.get(MailState.PENDING.value, 0),
            dead=states.get(MailState.DEAD.value, 0),
            oldest_at=self._tx.execute(oldest).scalar(),
        )

    def oldest_at(self, *, dead_since: datetime) -> datetime | None:
        """When the oldest mail was written that waits, or was given up since then; None where all were sent."""
        waits = or_(
            _mails.state == MailState.PENDING.value,
            and_(_mails.state == MailState.DEAD.value, _mails.finished_at >= dead_since),
        )
        return self._tx.execute(select(_mails.created_at).where(waits).order_by(_mails.id).limit(1)).scalar()

    def remove_old(self, *, before: datetime, limit: int) -> int:
        """Remove at most `limit` mails that ended before then; how many there were."""
        old = select(_mails.id).where(_mails.state != MailState.PENDING.value, _mails.finished_at < before)
        return self._tx.execute(delete(mail_messages).where(_mails.id.in_(old.limit(limit)))).rowcount


def _due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        _mails.state == MailState.PENDING.value,
        _mails.next_at <= now,
        or_(_mails.lease_until.is_(None), _mails.lease_until <= now),
    )
