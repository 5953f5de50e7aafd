"""Write mails where their cause happens, in the transaction of the caller: none is lost, and none sent without it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from shoplens.db.tables import new_id, to_row
from shoplens.mail.entities import Mail, MailKind, MailState, Message
from shoplens.mail.message import compose, one_line
from shoplens.mail.tables import mail_messages


def post(
    tx: Connection,
    message: Message,
    *,
    kind: MailKind,
    about: str,
    sender: str,
    recipients: Sequence[str],
    now: datetime,
) -> None:
    """Write a mail for each recipient; one that has a mail about this already gets no second one."""
    insert = (postgresql if tx.dialect.name == "postgresql" else sqlite).insert(mail_messages)
    for recipient in dict.fromkeys(recipients):
        mail_id = new_id(now)
        mail = Mail(
            id=mail_id,
            created_at=now,
            kind=kind,
            about=about,
            recipient=recipient,
            subject=one_line(message.subject, 200),
            content=compose(message, sender=sender, recipient=recipient, mail_id=mail_id, now=now),
            state=MailState.PENDING,
            attempts=0,
            next_at=now,
        )
        tx.execute(insert.values(to_row(mail)).on_conflict_do_nothing(index_elements=["about", "recipient"]))
