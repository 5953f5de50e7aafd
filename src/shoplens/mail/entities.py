"""A mail server, a mail on its way to one person, and what a mail says. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from shoplens.messages import language

Security = Literal["none", "starttls", "tls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Where mails are handed over, and as whom. Without a user nobody signs in. `ca_file` is trusted in addition."""

    host: str
    port: int
    security: Security
    sender: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    attempt_s: float = 20.0


class MailKind(StrEnum):
    """What a mail is about."""

    ALERT = "alert"
    REPORT = "report"
    TEST = "test"


class MailState(StrEnum):
    """Of one mail to one person."""

    PENDING = "pending"
    SENT = "sent"
    DEAD = "dead"
    """All attempts failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """One mail to one recipient. `about` names its cause: there is one mail per cause and recipient.

    `content` is the whole message as it is sent; None once it was. `lease_until` is set while a process sends it.
    """

    id: str
    created_at: datetime
    kind: MailKind
    about: str
    recipient: str
    subject: str
    content: bytes | None
    state: MailState
    attempts: int
    next_at: datetime
    lease_until: datetime | None = None
    last_error: str | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a mail: sentences, figures with their names, and links with their words."""

    heading: str
    lines: tuple[str, ...] = ()
    figures: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """An HTML file that goes with a mail."""

    name: str
    html: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What a mail says; the same for all recipients. `language_tag` is that in which it was written."""

    subject: str
    sections: tuple[Section, ...]
    attachment: Attachment | None = None
    language_tag: str = field(default_factory=language.get)
