"""What people ask about mail: where it goes, whether it arrives, and a mail to try it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.mail.entities import Mail, MailServer, Message, Section
from shoplens.mail.errors import MailNotSet
from shoplens.mail.message import compose
from shoplens.mail.repository import MailCounts, MailRepository
from shoplens.mail.smtp import connected

LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class MailRecipients:
    """Who gets what: alerts, and the report of each channel's runs."""

    alerts: tuple[str, ...] = ()
    reports: Mapping[str, tuple[str, ...]]

    @property
    def all(self) -> tuple[str, ...]:
        """Everybody, once."""
        return tuple(dict.fromkeys([*self.alerts, *(each for some in self.reports.values() for each in some)]))


@dataclass(frozen=True, slots=True, kw_only=True)
class MailOverview:
    """What waits, and the newest mails."""

    counts: MailCounts
    newest: Sequence[Mail]


class MailService:
    """All methods block. `server` is None where no mail is sent."""

    def __init__(
        self,
        database: Database,
        server: MailServer | None,
        recipients: MailRecipients,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self.server = server
        self.recipients = recipients
        self._database = database
        self._clock = clock

    def overview(self) -> MailOverview:
        """Raises DatabaseUnavailable."""
        with self._database.reading() as tx:
            mails = MailRepository(tx)
            return MailOverview(counts=mails.counts(), newest=mails.newest(limit=LISTED))

    def test(self, recipients: Sequence[str] = ()) -> tuple[str, ...]:
        """Send a mail at once to these, else to all recipients; to whom. Raises MailNotSet and MailRefused."""
        if self.server is None:
            raise MailNotSet("No mail server is set. Set mail.host and mail.sender in shoplens.toml.")
        wanted = tuple(recipients) or self.recipients.all
        if not wanted:
            raise MailNotSet("No recipients are set. Set mail.alerts or mail.reports, or name an address with --to.")
        now = self._clock()
        message = Message(
            subject="Shoplens: a test",
            sections=(
                Section(heading="This is a test", lines=("Alerts and reports of Shoplens reach this address.",)),
            ),
        )
        with connected(self.server) as connection:
            for recipient in wanted:
                mail_id = new_id(now)
                content = compose(message, sender=self.server.sender, recipient=recipient, mail_id=mail_id, now=now)
                connection.send(content, recipient)
        return wanted
