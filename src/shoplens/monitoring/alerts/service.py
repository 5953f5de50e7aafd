"""Look whether something is wrong, tell of it, and show it. Of several web processes one looks at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import RequestInvalid
from shoplens.mail.entities import MailKind, MailServer
from shoplens.mail.outbox import post
from shoplens.messages import DEFAULT, speaking
from shoplens.monitoring.alerts.entities import Alert, AlertStatus, Silence
from shoplens.monitoring.alerts.episodes import Change, Timing, advance
from shoplens.monitoring.alerts.facts import Facts
from shoplens.monitoring.alerts.notices import EVENTS, event_data, mail_of
from shoplens.monitoring.alerts.repository import AlertRepository, TurnRepository
from shoplens.monitoring.alerts.rules import BY_NAME, look
from shoplens.monitoring.errors import AlertNotFound
from shoplens.telemetry.logs import get_logger
from shoplens.webhooks.outbox import emit

MOST_SILENT: Final = timedelta(days=30)
KEPT: Final = 500
"""Alerts that are over."""
LISTED: Final = 20
_LEASE: Final = timedelta(minutes=2)
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRules:
    """How often is looked, what is left out, and who gets a mail. `public_url` is "" where it is not known.

    `language_tag` is that of the mails.
    """

    every_s: float
    timing: Timing
    off: tuple[str, ...] = ()
    server: MailServer | None = None
    recipients: tuple[str, ...] = ()
    public_url: str = ""
    language_tag: str = DEFAULT


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertsView:
    """What fires and is pending, what ended last, what is silent, and when somebody last looked."""

    firing: Sequence[Alert]
    pending: Sequence[Alert]
    resolved: Sequence[Alert]
    silences: Sequence[Silence]
    looked_at: datetime | None

    def silence(self, alert: Alert) -> Silence | None:
        """The silence of this alert."""
        return next((each for each in self.silences if each.key == alert.key), None)


class AlertService:
    """All methods but `firing` block and raise DatabaseUnavailable. `facts` may raise what its parts do."""

    def __init__(
        self, database: Database, rules: AlertRules, *, facts: Callable[[], Facts], clock: Callable[[], datetime]
    ) -> None:
        self.rules = rules
        self._database = database
        self._facts = facts
        self._clock = clock
        self._owner = new_id(clock())
        self._firing: tuple[Alert, ...] = ()

    @property
    def firing(self) -> Sequence[Alert]:
        """What fired when this process last read it: for pages that must not wait."""
        return self._firing

    def refresh(self) -> Sequence[Alert]:
        """Read what fires now, and remember it for `firing`."""
        with self._database.reading() as tx:
            opened = AlertRepository(tx).open()
        self._firing = tuple(each for each in opened if each.status is AlertStatus.FIRING)
        return self._firing

    def look_if_due(self) -> Change | None:
        """Look, store what it makes of the alerts, and write to the outboxes of webhooks and mails; one transaction.

        None where it is not time, or another process looks.
        """
        began = self._clock()
        every = timedelta(seconds=self.rules.every_s)
        with self._database.transaction() as tx:
            if not TurnRepository(tx).take(self._owner, now=began, every=every, lease=_LEASE):
                return None
        found = look(self._facts(), off=self.rules.off)
        now = self._clock()
        with self._database.transaction() as tx:
            if not TurnRepository(tx).end(self._owner, now=now):
                return None
            alerts = AlertRepository(tx)
            change = advance(
                alerts.open(),
                found,
                now=now,
                timing=self.rules.timing,
                silenced={each.key for each in alerts.silences(now)},
                make_id=lambda: new_id(now),
            )
            alerts.save(change.kept)
            alerts.remove(change.dropped)
            alerts.prune(keep=KEPT)
            self._tell(tx, change.notices, now=now)
        for each in change.notices:
            _log.warning(
                "alert.firing" if each.resolved_at is None else "alert.resolved", alert=each.rule, subject=each.subject,
                severity=each.severity.value, summary=each.summary, notice=each.notices,
            )  # fmt: skip
        return change

    def view(self) -> AlertsView:
        """Everything that pages show."""
        with self._database.reading() as tx:
            alerts = AlertRepository(tx)
            opened = alerts.open()
            return AlertsView(
                firing=[each for each in opened if each.status is AlertStatus.FIRING],
                pending=[each for each in opened if each.status is AlertStatus.PENDING],
                resolved=alerts.resolved(limit=LISTED),
                silences=alerts.silences(self._clock()),
                looked_at=TurnRepository(tx).looked_at(),
            )

    def silence(self, key: str, *, hours: float, by: str) -> Silence:
        """Tell nobody of this alert (`Rule` or `Rule/subject`) for a time. Raises AlertNotFound and RequestInvalid."""
        if not 0 < hours <= MOST_SILENT.total_seconds() / 3600:
            raise RequestInvalid(f"An alert can be silenced for up to {MOST_SILENT.days * 24} hours.")
        _require_rule(key)
        now = self._clock()
        silence = Silence(key=key, until=now + timedelta(hours=hours), by=by, created_at=now)
        with self._database.transaction() as tx:
            AlertRepository(tx).silence(silence)
        return silence

    def end_silence(self, key: str) -> None:
        """Tell of it again. Raises AlertNotFound."""
        with self._database.transaction() as tx:
            if not AlertRepository(tx).end_silence(key):
                raise AlertNotFound(f"The alert {key[:200]!r} is not silenced.")

    def _tell(self, tx: Connection, notices: Sequence[Alert], *, now: datetime) -> None:
        if not notices:
            return
        for each in notices:
            emit(tx, EVENTS[each.status], event_data(each, self.rules.public_url), now=now)
        if self.rules.server is not None and self.rules.recipients:
            with speaking(self.rules.language_tag):
                mail = mail_of(notices, self.rules.public_url, now=now)
            post(
                tx,
                mail,
                kind=MailKind.ALERT,
                about=f"alerts:{new_id(now)}",
                sender=self.rules.server.sender,
                recipients=self.rules.recipients,
                now=now,
            )


def _require_rule(key: str) -> None:
    if key.partition("/")[0] not in BY_NAME:
        raise AlertNotFound(f"There is no alert {key[:200]!r}; known: {', '.join(BY_NAME)}.")
