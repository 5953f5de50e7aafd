"""Mails reach a real SMTP server: encrypted, signed in, once, and later where it was away; faults say what to do."""

from __future__ import annotations

import datetime as dt
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from servers.process import free_port
from servers.receivers import Inbox, RunningMailServer
from shoplens.db import Database
from shoplens.mail.entities import Attachment, MailKind, MailServer, MailState, Message, Section
from shoplens.mail.errors import MailNotSet, MailRefused
from shoplens.mail.outbox import post
from shoplens.mail.repository import MailRepository
from shoplens.mail.sender import DELAYS_S, MailSender
from shoplens.mail.service import MailRecipients, MailService
from shoplens.monitoring.alerts.episodes import Timing
from shoplens.monitoring.alerts.facts import Facts
from shoplens.monitoring.alerts.service import AlertRules, AlertService
from shoplens.telemetry.metrics import Metrics

NOW = datetime(2026, 5, 15, 6, 30, tzinfo=UTC)
MESSAGE = Message(
    subject="Shoplens: Größe & Farbe",
    sections=(
        Section(
            heading="Returns",
            lines=("Of <b>1,200</b> photos 30 need a person.",),
            figures=(("Done", "1,170"), ("Needs review", "30")),
            links=(("The run", "https://photos.shop.example/console/batch/returns"),),
        ),
    ),
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost that nobody signed, with its key in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    today = dt.datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "localhost.pem"
    no_password = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + secret)
    return path


@pytest.fixture
def start(certificate: Path) -> Iterator[Callable[..., RunningMailServer]]:
    """Start mail servers, which end with the test: `starttls`, `tls`, or with a user `shop` and its password."""
    running: list[Controller] = []

    def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
        right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"shop", b"secret")
        return AuthResult(success=right, handled=False)

    def begin(kind: str = "none", *, auth: bool = False, port: int | None = None) -> RunningMailServer:
        context = None
        if kind != "none":
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
        inbox = Inbox()
        more: dict[str, Any] = {}
        if kind == "starttls":
            more = {"tls_context": context, "require_starttls": True}
        if auth:
            more |= {"authenticator": authenticate, "auth_required": True, "auth_require_tls": kind == "starttls"}
        number = port or free_port()
        controller = Controller(
            inbox, hostname="localhost", port=number, ssl_context=context if kind == "tls" else None, **more
        )
        controller.start()
        running.append(controller)
        return RunningMailServer(inbox=inbox, port=number)

    yield begin
    for each in running:
        each.stop()


def write(database: Database, *recipients: str, about: str = "run:1", message: Message = MESSAGE) -> None:
    """Put mails into the outbox, in a transaction of their own."""
    with database.transaction() as tx:
        post(
            tx,
            message,
            kind=MailKind.REPORT,
            about=about,
            sender="shoplens@shop.example",
            recipients=recipients,
            now=NOW,
        )


def sender_to(database: Database, server: MailServer, *, ahead: timedelta = timedelta()) -> MailSender:
    """A sender whose clock is so far ahead."""
    return MailSender(database, server, clock=lambda: NOW + ahead, metrics=Metrics())


def test_a_mail_arrives_as_text_and_html_with_its_attachment(
    database: Database, start: Callable[..., RunningMailServer]
) -> None:
    """Once per recipient, whose address no other recipient sees; what was sent is not stored any longer."""
    mail = start()
    attached = replace(MESSAGE, attachment=Attachment(name="returns.html", html=b"<p>report</p>"))
    write(database, "a@shop.example", "b@shop.example", "a@shop.example", message=attached)
    write(database, "a@shop.example", message=attached)
    sender_to(database, mail.server()).send_due()
    assert [["a@shop.example"], ["b@shop.example"]] == [to for _, to, _ in mail.inbox.taken]
    sent = mail.inbox.taken[0][2]
    assert ("Shoplens: Größe & Farbe", "a@shop.example") == (sent["subject"], sent["to"])
    assert "auto-generated" == sent["auto-submitted"]
    text: Any = sent.get_body(("plain",))
    html: Any = sent.get_body(("html",))
    assert "Needs review  30" in text.get_content()
    assert "&lt;b&gt;1,200&lt;/b&gt;" in html.get_content()
    assert ["returns.html"] == [each.get_filename() for each in sent.iter_attachments()]
    with database.reading() as tx:
        assert [MailState.SENT] * 2 == [each.state for each in MailRepository(tx).newest(limit=9)]
        assert not MailRepository(tx).is_due(now=NOW + timedelta(days=9))


@pytest.mark.parametrize("kind", ["starttls", "tls"])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_encrypted_connection_checks_the_certificate(
    kind: str, start: Callable[..., RunningMailServer], database: Database, certificate: Path
) -> None:
    """One that nobody vouches for is refused with what to do; with the authority in the settings it is taken."""
    mail = start(kind, auth=kind == "starttls")
    user = {"user": "shop", "password": "secret"} if kind == "starttls" else {}
    recipients = MailRecipients(alerts=("a@shop.example",), reports={})

    def service(**more: Any) -> MailService:
        return MailService(database, mail.server(security=kind, **user, **more), recipients, clock=lambda: NOW)

    with pytest.raises(MailRefused, match=r"is not trusted.*mail\.ca_file"):
        service().test()
    assert ("a@shop.example",) == service(ca_file=certificate).test()
    assert [True] == mail.inbox.tls


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_faults_of_the_mail_server_say_what_to_do(
    start: Callable[..., RunningMailServer], database: Database, certificate: Path
) -> None:
    """A wrong password, no encryption, no server, a recipient that it does not know: no secret stands in them."""
    locked, plain = start("starttls", auth=True), start()
    plain.inbox.refused.add("a@shop.example")
    wrong = {"user": "shop", "password": "never-shown", "ca_file": certificate}
    cases = {
        r"refused mail\.user": locked.server(security="starttls", **wrong),
        r"lacks what the settings ask for": plain.server(security="starttls"),
        r"does not speak TLS": plain.server(security="tls"),
        r"Check mail\.host": replace(plain.server(), port=free_port()),
        r"does not take mails to a@shop\.example: 550 no such user": plain.server(),
    }
    for words, server in cases.items():
        service = MailService(database, server, MailRecipients(reports={}), clock=lambda: NOW)
        with pytest.raises(MailRefused, match=words) as refused:
            service.test(["a@shop.example"])
        assert "never-shown" not in str(refused.value)
    with pytest.raises(MailNotSet, match=r"mail\.host"):
        MailService(database, None, MailRecipients(reports={}), clock=lambda: NOW).test()


def test_a_mail_server_that_was_away_gets_everything_later(
    database: Database, start: Callable[..., RunningMailServer]
) -> None:
    """Nothing is lost, what it refuses holds back nobody else, and after a day a mail is given up, and known to be."""
    port = free_port()
    away = replace(RunningMailServer(inbox=Inbox(), port=port).server(), attempt_s=1.0)
    write(database, "a@shop.example", "gone@shop.example")
    first = sender_to(database, away).send_due()
    assert [1, 1] == [each.attempts for each in first]
    assert "Check mail.host" in str(first[0].last_error)
    assert [] == [*sender_to(database, away).send_due()]
    mail = start(port=port)
    mail.inbox.refused.add("gone@shop.example")
    later = sender_to(database, away, ahead=timedelta(minutes=1)).send_due()
    assert {"a@shop.example": MailState.SENT, "gone@shop.example": MailState.PENDING} == {
        each.recipient: each.state for each in later
    }
    for days in range(2, len(DELAYS_S) + 2):
        sender_to(database, away, ahead=timedelta(days=days)).send_due()
    with database.reading() as tx:
        counts = MailRepository(tx).counts()
        assert (0, 1) == (counts.pending, counts.dead)
        end = NOW + timedelta(days=len(DELAYS_S))
        assert MailRepository(tx).oldest_at(dead_since=end) == NOW
        assert MailRepository(tx).oldest_at(dead_since=end + timedelta(days=2)) is None
    assert 1 == len(mail.inbox.taken)


def test_several_senders_send_a_mail_once(database: Database, start: Callable[..., RunningMailServer]) -> None:
    """Each leases what it sends."""
    mail = start()
    write(database, *(f"p{number}@shop.example" for number in range(12)))
    together = threading.Barrier(3)

    def work() -> None:
        sender = sender_to(database, mail.server())
        together.wait()
        while sender.send_due():
            pass

    threads = [threading.Thread(target=work) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(f"p{number}@shop.example" for number in range(12)) == sorted(to[0] for _, to, _ in mail.inbox.taken)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_thread_sends_and_ends(database: Database, start: Callable[..., RunningMailServer]) -> None:
    """From start to close, without a server not at all."""
    mail = start()
    write(database, "a@shop.example")
    sender = MailSender(database, mail.server(), clock=lambda: datetime.now(UTC), metrics=Metrics())
    sender.start()
    waited = threading.Event()
    for _ in range(600):
        if mail.inbox.taken:
            break
        waited.wait(0.05)
    sender.close()
    assert 1 == len(mail.inbox.taken)
    nothing = MailSender(database, None, clock=lambda: NOW, metrics=Metrics())
    nothing.start()
    nothing.close()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_alert_and_its_end_arrive_as_mails(database: Database, start: Callable[..., RunningMailServer]) -> None:
    """What, since when, what to do, and where the runbook is; with links, since the public address is known."""
    mail = start()
    now, facts = [NOW], [Facts(drift={"returns": (NOW.date(), ["brightness"])})]
    rules = AlertRules(
        every_s=30,
        timing=Timing(resolve_after_s=30, repeat_after_s=86_400, longest_step_s=90),
        server=mail.server(),
        recipients=("ops@shop.example",),
        public_url="https://photos.shop.example",
    )
    alerts = AlertService(database, rules, facts=lambda: facts[0], clock=lambda: now[0])
    sender = MailSender(database, mail.server(), clock=lambda: now[0], metrics=Metrics())
    alerts.look_if_due()
    sender.send_due()
    facts[0] = Facts()
    for _ in range(2):
        now[0] += timedelta(seconds=40)
        alerts.look_if_due()
    sender.send_due()
    began, ended = (sent for _, _, sent in mail.inbox.taken)
    assert "Shoplens: warning: Photos or answers differ from the month before (returns)" == began["subject"]
    assert "Shoplens: Resolved: Photos or answers differ from the month before (returns)" == ended["subject"]
    body: Any = began.get_body(("plain",))
    text = " ".join(body.get_content().split())
    for words in (
        "15 May 2026 differs from the month before in: brightness.", "Since 2026-05-15 06:30 UTC",
        "What to do: Look at",
        "https://photos.shop.example/console/monitoring/drift?channel=returns",
        "https://photos.shop.example/console/monitoring/alerts/ShoplensDrift",
    ):  # fmt: skip
        assert words in text
