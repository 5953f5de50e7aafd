"""Send the mails that wait, each until the mail server takes it or a day has passed.

Any number of processes may send: a mail is leased, so each is sent by one of them, and one whose process dies is sent
again after the lease with the same Message-ID. A mail server that hangs holds back mails and nothing else.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from shoplens.db import Database
from shoplens.mail.entities import Mail, MailServer, MailState
from shoplens.mail.errors import MailRefused
from shoplens.mail.repository import MailRepository
from shoplens.mail.smtp import MailConnection, connected
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.threads import PeriodicTask

DELAYS_S: Final = (30, 120, 600, 1_800, 7_200, 14_400, 28_800, 32_400)
"""How long each next attempt waits: nine attempts over a day. A tenth more or less, so that they do not meet."""
KEPT: Final = timedelta(days=30)
"""How long it is known that a mail was sent."""
_TOGETHER: Final = 10
_POLL_S: Final = 1.0
_CLEAN_EVERY_S: Final = 3_600.0
_MOST_REMOVED: Final = 1_000
_ERROR_CHARS: Final = 300
_log = get_logger(__name__)


def after(mail: Mail, error: str | None, *, now: datetime) -> Mail:
    """The mail after an attempt: sent, to be tried again later, or dead."""
    attempts = mail.attempts + 1
    changed = replace(mail, attempts=attempts, lease_until=None, last_error=error)
    if error is None:
        return replace(changed, state=MailState.SENT, finished_at=now, content=None)
    if attempts > len(DELAYS_S):
        return replace(changed, state=MailState.DEAD, finished_at=now)
    delay_s = DELAYS_S[attempts - 1] * random.uniform(0.9, 1.1)  # noqa: S311 - spreads attempts, protects nothing
    return replace(changed, next_at=now + timedelta(seconds=delay_s))


class MailSender:
    """`send_due` blocks; from `start` to `close` a thread of its own calls it. Without a server it does nothing."""

    def __init__(
        self, database: Database, server: MailServer | None, *, clock: Callable[[], datetime], metrics: Metrics
    ) -> None:
        self._database = database
        self._server = server
        self._clock = clock
        self._metrics = metrics
        self._clean_at_s = 0.0
        self._task = PeriodicTask("mail", self._turn, every_s=_POLL_S, first_s=0)

    def start(self) -> None:
        """Begin to send."""
        if self._server is not None:
            self._task.start()

    def close(self) -> None:
        """Begin nothing more, and give the mail under way a moment to end."""
        self._task.close(None if self._server is None else self._server.attempt_s)

    def send_due(self) -> Sequence[Mail]:
        """Send the mails whose turn it is; each as it is afterwards. Raises DatabaseUnavailable."""
        if self._server is None:
            return ()
        now = self._clock()
        with self._database.reading() as tx:  # most looks find nothing, and take no lock for it
            if not MailRepository(tx).is_due(now=now):
                return ()
        # As long as all of them could take if each one of them timed out.
        lease = timedelta(seconds=self._server.attempt_s * (_TOGETHER + 2))
        with self._database.transaction() as tx:
            mails = MailRepository(tx).lease(now=now, until=now + lease, limit=_TOGETHER)
        return self._send(mails, self._server)

    def _send(self, mails: Sequence[Mail], server: MailServer) -> Sequence[Mail]:
        """All over one connection. Where there is none, each of them waits."""
        done = []
        with ExitStack() as stack:
            connection: MailConnection | None = None
            fault: str | None = None
            for mail in mails:
                try:
                    if fault is None and connection is None:
                        connection = stack.enter_context(connected(server))
                except MailRefused as error:
                    fault = str(error)
                done.append(self._finish(mail, fault or _handed_over(connection, mail)))
        return done

    def _finish(self, mail: Mail, error: str | None) -> Mail:
        changed = after(mail, error, now=self._clock())
        with self._database.transaction() as tx:
            MailRepository(tx).update(changed)
        outcome = "delivered" if error is None else "dead" if changed.state is MailState.DEAD else "failed"
        self._metrics.mail_attempts.labels(outcome=outcome).inc()
        if error is not None:
            _log.warning(
                "mail.failed", mail=mail.id, kind=mail.kind.value, attempts=changed.attempts, state=changed.state.value,
                reason=error,
            )  # fmt: skip
        return changed

    def _turn(self) -> None:
        """Send until nothing is due; what is leased when it fails is sent again when the lease ends."""
        while not self._task.stopping.is_set() and self.send_due():
            pass
        if time.monotonic() >= self._clean_at_s:
            self._clean_at_s = time.monotonic() + _CLEAN_EVERY_S
            with self._database.transaction() as tx:
                MailRepository(tx).remove_old(before=self._clock() - KEPT, limit=_MOST_REMOVED)


def _handed_over(connection: MailConnection | None, mail: Mail) -> str | None:
    """What was wrong with this mail alone; None if it was taken."""
    assert connection is not None
    try:
        connection.send(mail.content or b"", mail.recipient)
    except MailRefused as error:
        return str(error)[:_ERROR_CHARS]
    return None
