"""Hand mails over to a mail server. Every fault is a sentence that says what to do."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from shoplens.mail.entities import MailServer
from shoplens.mail.errors import MailRefused

_LONGEST_ANSWER: Final = 200


class MailConnection:
    """An open connection. Blocks."""

    def __init__(self, server: MailServer, smtp: smtplib.SMTP) -> None:
        self._server = server
        self._smtp = smtp

    def send(self, content: bytes, recipient: str) -> None:
        """Hand one mail over. Raises MailRefused."""
        try:
            self._smtp.sendmail(self._server.sender, [recipient], content)
        except smtplib.SMTPSenderRefused as error:
            said = _answer(error.smtp_code, error.smtp_error)
            raise MailRefused(
                f"The mail server does not take mails from {self._server.sender}: {said}. Set mail.sender to one "
                "that it may send as."
            ) from error
        except smtplib.SMTPRecipientsRefused as error:
            code, answer = next(iter(error.recipients.values()))
            raise MailRefused(
                f"The mail server does not take mails to {recipient}: {_answer(code, answer)}."
            ) from error
        except smtplib.SMTPResponseException as error:
            raise MailRefused(
                f"The mail server refused the mail: {_answer(error.smtp_code, error.smtp_error)}."
            ) from error
        except (smtplib.SMTPException, OSError) as error:
            raise MailRefused(f"The connection to {_place(self._server)} ended: {_words(error)}.") from error


@contextmanager
def connected(server: MailServer) -> Iterator[MailConnection]:
    """A connection, encrypted and signed in as the settings say. Raises MailRefused; never falls back to less."""
    smtp = _open(server)
    try:
        yield MailConnection(server, smtp)
    finally:
        with suppress(smtplib.SMTPException, OSError):
            smtp.quit()
        smtp.close()


def _open(server: MailServer) -> smtplib.SMTP:
    place = _place(server)
    smtp: smtplib.SMTP | None = None
    try:
        if server.security == "tls":
            smtp = smtplib.SMTP_SSL(server.host, server.port, timeout=server.attempt_s, context=_context(server))
        else:
            smtp = smtplib.SMTP(server.host, server.port, timeout=server.attempt_s)
        if server.security == "starttls":
            smtp.starttls(context=_context(server))
        if server.user is not None:
            smtp.login(server.user, server.password or "")
    except (smtplib.SMTPException, OSError) as error:
        if smtp is not None:
            smtp.close()
        raise MailRefused(_advice(error, place)) from error
    return smtp


def _context(server: MailServer) -> ssl.SSLContext:
    """Checks the certificate and the name in it."""
    context = ssl.create_default_context()
    if server.ca_file is not None:
        try:
            context.load_verify_locations(server.ca_file)
        except OSError as error:
            raise MailRefused(f"mail.ca_file: {server.ca_file} cannot be read: {_words(error)}.") from error
    return context


_ADVICE: Final[tuple[tuple[type[Exception], Callable[[Any], str]], ...]] = (
    (
        ssl.SSLCertVerificationError,
        lambda error: (
            f"its certificate is not trusted: {error.verify_message}. Use the host name that it was issued for, or set "
            "mail.ca_file to the certificate of your own authority."
        ),
    ),
    (
        ssl.SSLError,
        lambda error: (
            f"it does not speak TLS at this port ({error.reason}). Set mail.security or mail.port as it needs."
        ),
    ),
    (
        smtplib.SMTPNotSupportedError,
        lambda error: (
            f"it lacks what the settings ask for: {_words(error)}. Correct mail.security, mail.user or the port."
        ),
    ),
    (
        smtplib.SMTPAuthenticationError,
        lambda error: f"it refused mail.user with mail.password: {_answer(error.smtp_code, error.smtp_error)}.",
    ),
    (
        smtplib.SMTPResponseException,
        lambda error: f"it refused the connection: {_answer(error.smtp_code, error.smtp_error)}.",
    ),
    (
        TimeoutError,
        lambda _: "it did not answer in time. Check mail.host, mail.port and mail.security; port 465 needs tls.",
    ),
    (
        smtplib.SMTPServerDisconnected,
        lambda error: f"it ended the connection: {_words(error)}. Check mail.security; port 465 needs tls.",
    ),
    (
        Exception,
        lambda error: f"{_words(error)}. Check mail.host and mail.port, and that a firewall lets the connection pass.",
    ),
)
"""What is wrong with a connection, by its error; the first that fits."""


def _advice(error: Exception, place: str) -> str:
    words = next(words for kind, words in _ADVICE if isinstance(error, kind))
    return f"No mail can be sent through {place}: {words(error)}"


def _place(server: MailServer) -> str:
    return f"the mail server {server.host}:{server.port}"


def _answer(code: int, answer: bytes | str) -> str:
    words = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    shown = " ".join("".join(sign if sign.isprintable() else " " for sign in words).split())
    return f"{code} {shown}"[:_LONGEST_ANSWER].rstrip(".")


def _words(error: Exception) -> str:
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(words)[:_LONGEST_ANSWER].rstrip(".")
