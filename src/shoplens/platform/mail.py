"""Build mail from the settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from shoplens.batch.run_mail import RunMailing
from shoplens.db import Database
from shoplens.errors import Misconfigured
from shoplens.mail.entities import MailServer
from shoplens.mail.sender import MailSender
from shoplens.mail.service import MailRecipients, MailService
from shoplens.notice_settings import is_mail_address
from shoplens.platform.parts import build_database, utc_now
from shoplens.predictions.entities import Channel
from shoplens.settings import Settings
from shoplens.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Mails:
    """What is known of mails, and what sends them: it does nothing until it is started."""

    service: MailService
    sender: MailSender


def build_mails(settings: Settings, database: Database, metrics: Metrics) -> Mails:
    """For a server."""
    server = mail_server(settings)
    return Mails(
        service=MailService(database, server, mail_recipients(settings), clock=utc_now),
        sender=MailSender(database, server, clock=utc_now, metrics=metrics),
    )


@contextmanager
def open_mail(settings: Settings) -> Iterator[Mails]:
    """The same over a database of its own, for a command. Raises Misconfigured and DatabaseUnavailable."""
    with closing(build_database(settings)) as database:
        yield build_mails(settings, database, Metrics())


def mail_server(settings: Settings) -> MailServer | None:
    """None where no mail is sent."""
    wanted = settings.mail
    if wanted is None:
        return None
    return MailServer(
        host=wanted.host,
        port=wanted.effective_port,
        security=wanted.security,
        sender=wanted.sender,
        user=wanted.user,
        password=wanted.password,
        ca_file=wanted.ca_file,
        attempt_s=wanted.attempt_s,
    )


def mail_recipients(settings: Settings) -> MailRecipients:
    """Nobody where no mail is sent."""
    wanted = settings.mail
    if wanted is None:
        return MailRecipients(reports={})
    return MailRecipients(alerts=wanted.alerts, reports=dict(wanted.reports))


def run_mailing(settings: Settings, channel: Channel) -> RunMailing | None:
    """None where nobody gets a mail about the runs of this channel."""
    server, recipients = mail_server(settings), mail_recipients(settings).reports.get(channel.name, ())
    if server is None or not recipients:
        return None
    return RunMailing(
        sender=server.sender,
        recipients=recipients,
        title=channel.title,
        public_url=settings.public_url,
        clock=utc_now,
        language_tag=settings.language,
    )


def require_address(text: str) -> str:
    """`text` itself. Raises Misconfigured unless it can be an address of a mail."""
    if not is_mail_address(text):
        raise Misconfigured(f"{text[:100]!r} is not an address such as depot@shop.example.")
    return text
