"""A mail as bytes: plain text and simple HTML of the same sections. No text can add a header to it."""

from __future__ import annotations

from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from typing import Final

from shoplens.mail.entities import Message, Section
from shoplens.messages import gettext, marked, speaking

_LONGEST_SUBJECT: Final = 120
_POLICY: Final = SMTP.clone(cte_type="7bit", max_line_length=250)
"""Servers that take only ASCII get all of it, too. A subject stays on one line: some readers show a fold as a space."""
_FOOT: Final = marked("Sent by Shoplens, because this address is in its settings (mail.alerts or mail.reports).")


def compose(message: Message, *, sender: str, recipient: str, mail_id: str, now: datetime) -> bytes:
    """The whole mail. Its Message-ID comes from `mail_id`: a mail that is sent twice is recognised as the same."""
    mail = EmailMessage(policy=_POLICY)
    mail["From"] = Address(display_name="Shoplens", addr_spec=sender)
    mail["To"] = Address(addr_spec=recipient)
    mail["Subject"] = one_line(message.subject, _LONGEST_SUBJECT)
    mail["Date"] = format_datetime(now)
    mail["Message-ID"] = f"<{mail_id}@{sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # nobody's absence note answers it
    mail.set_content(plain_text(message))
    mail.add_alternative(html_text(message), subtype="html")
    if message.attachment is not None:
        mail.add_attachment(
            message.attachment.html, maintype="text", subtype="html", filename=one_line(message.attachment.name, 100)
        )
    return mail.as_bytes()


def one_line(text: str, longest: int) -> str:
    """Text for a header: no line break and no other control character, at most `longest` characters."""
    shown = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return shown if len(shown) <= longest else f"{shown[: longest - 1]}…"


def plain_text(message: Message) -> str:
    """For a reader without HTML."""
    parts = []
    for each in message.sections:
        rows = [each.heading, "-" * len(each.heading), *each.lines]
        width = max((len(name) for name, _ in each.figures), default=0)
        rows += [f"{name.ljust(width)}  {value}" for name, value in each.figures]
        rows += [f"{words}: {url}" for words, url in each.links]
        parts.append("\n".join(rows))
    return "\n\n\n".join(parts) + f"\n\n-- \n{_foot(message)}\n"


def html_text(message: Message) -> str:
    """The same as a page without styles, which every reader shows."""
    body = "".join(_section(each) for each in message.sections)
    return (
        f'<!doctype html><html lang="{message.language_tag}"><head><meta charset="utf-8">'
        f"<title>{escape(message.subject)}</title></head>"
        f"<body>{body}<hr><p><small>{escape(_foot(message))}</small></p></body></html>"
    )


def _foot(message: Message) -> str:
    with speaking(message.language_tag):
        return gettext(_FOOT)


def _section(section: Section) -> str:
    lines = "".join(f"<p>{escape(line)}</p>" for line in section.lines)
    rows = "".join(
        f'<tr><th align="left">{escape(name)}</th><td align="right">{escape(value)}</td></tr>'
        for name, value in section.figures
    )
    table = f'<table cellpadding="4">{rows}</table>' if rows else ""
    links = "".join(f'<p><a href="{escape(url)}">{escape(words)}</a></p>' for words, url in section.links)
    return f"<h2>{escape(section.heading)}</h2>{lines}{table}{links}"
