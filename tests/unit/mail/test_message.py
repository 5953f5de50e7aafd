"""A mail as bytes: nothing in a text becomes a header; and settings that could not work are refused."""

from __future__ import annotations

import email
from datetime import UTC, datetime
from email.policy import default
from pathlib import Path
from typing import Any

import pytest

from shoplens.errors import Misconfigured
from shoplens.mail.entities import Attachment, Message, Section
from shoplens.mail.message import compose
from shoplens.notice_settings import is_mail_address
from shoplens.platform.alerts import open_alerts
from shoplens.settings import read_settings

NOW = datetime(2026, 5, 15, 6, 30, tzinfo=UTC)
BAD_TEXTS = (
    "x\r\nBcc: thief@example.org",
    "x\nBcc: thief@example.org",
    "x\r\n\r\nbody",
    "x\u2028Bcc: thief@example.org",
    "x\x00y\x1b[31m",
    "é" * 5_000,
)


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_no_text_adds_a_header(text: str) -> None:
    """Not in the subject, not in the name of a file, and not in a body, which ends no header."""
    section = Section(heading=text, lines=(text,), figures=((text, text),), links=((text, f"https://x/{text}"),))
    message = Message(subject=text, sections=(section,), attachment=Attachment(name=text, html=text.encode()))
    data = compose(message, sender="s@shop.example", recipient="a@shop.example", mail_id="0" * 26, now=NOW)
    parsed: Any = email.message_from_bytes(data, policy=default)
    assert {
        "from",
        "to",
        "subject",
        "date",
        "message-id",
        "auto-submitted",
        "mime-version",
        "content-type",
    } == {name.lower() for name in parsed.keys()}  # noqa: SIM118  a mail has keys more than once
    assert len(parsed["subject"]) <= 120
    assert data.isascii()
    assert max(map(len, data.splitlines())) <= 998


@pytest.mark.parametrize(
    "address",
    ["a@shop.example\r\nBcc: b@x.org", "a@shop.example, b@x.org", "Ann <a@shop.example>", "a b@shop.example", "a", "@x",
     "a@", "é@shop.example", "a@shop.example\n", f"{'a' * 250}@shop.example"],
)  # fmt: skip
def test_an_address_is_one_plain_address(address: str) -> None:
    """What could name a second recipient, or end a header, is none."""
    assert not is_mail_address(address)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sender": "nobody"}, "is not an address"),
        ({"alerts": "a@shop.example,b"}, "is not an address"),
        ({"reports": {"returns": ["x\ny@shop.example"]}}, "is not an address"),
        ({"password": "x"}, "without mail.user"),
        ({"user": "x", "password": "x", "security": "none"}, "in the clear"),
        ({"hots": "x"}, "there is no such setting"),
    ],
)
def test_settings_that_could_not_work_are_refused(settings: dict[str, Any], words: str) -> None:
    """At the start, with what is wrong."""
    given = {"host": "smtp.shop.example", "sender": "s@shop.example", **settings}
    with pytest.raises(Misconfigured, match=words):
        read_settings(mail=given)


def test_the_port_follows_the_encryption() -> None:
    """Unless it is set."""
    ports = [
        getattr(read_settings(mail={"host": "h", "sender": "s@x.org", **each}).mail, "effective_port", None)
        for each in ({}, {"security": "tls"}, {"security": "none"}, {"port": 2525})
    ]
    assert [587, 465, 25, 2525] == ports


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alerts": {"off": "ShoplensDrfit"}}, r"alerts\.off: there is no alert 'ShoplensDrfit'"),
        ({"mail": {"host": "h", "sender": "s@x.org", "reports": {"attic": ["a@x.org"]}}}, r"mail\.reports: .*'attic'"),
    ],
)
def test_names_that_lead_nowhere_are_refused_at_the_start(
    settings: dict[str, Any], words: str, tmp_path: Path, database_file: Path
) -> None:
    """Otherwise nobody would be told, or somebody although they switched it off."""
    given = read_settings(data_dir=tmp_path, database_url=f"sqlite:///{database_file}", **settings)
    with pytest.raises(Misconfigured, match=words), open_alerts(given):
        pass
