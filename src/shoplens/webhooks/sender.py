"""Send what waits in the outbox, each event until its receiver has it or a day has passed.

Any number of processes may send: a delivery is leased, so each is sent by one of them; one whose process dies is sent
again after the lease. An endpoint gets one event at a time, so one that hangs holds back nothing but its own events.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import shoplens
from shoplens.db import Database
from shoplens.errors import ShoplensError
from shoplens.messages import marked
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics
from shoplens.telemetry.threads import PeriodicTask
from shoplens.telemetry.tracing import Attributes, trace, traceparent
from shoplens.webhooks.entities import Delivery, DeliveryState
from shoplens.webhooks.errors import EndpointInvalid
from shoplens.webhooks.repository import DeliveryRepository, EndpointRepository, Sending
from shoplens.webhooks.signature import body_of, headers_of
from shoplens.webhooks.targets import Targets

if TYPE_CHECKING:
    import httpx

DELAYS_S: Final = (5, 60, 600, 1_800, 7_200, 14_400, 28_800, 32_400)
"""How long each next attempt waits: nine attempts over a day. A tenth more or less, so that they do not meet."""
_LEASE_S: Final = 60.0
_ATTEMPT_S: Final = 15.0
_POLL_S: Final = 1.0
_AT_ONCE: Final = 16
_ERROR_CHARS: Final = 200
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What came of one attempt: the status of the answer, or why there is none. Both None: the event was taken."""

    status: int | None = None
    error: str | None = None
    retry_after_s: float | None = None
    is_gone: bool = False


def after(delivery: Delivery, attempt: Attempt, *, now: datetime) -> Delivery:
    """The delivery after an attempt: delivered, to be tried again later, or dead."""
    attempts = delivery.attempts + 1
    changed = replace(
        delivery, attempts=attempts, lease_until=None, last_status=attempt.status, last_error=attempt.error
    )
    if attempt.error is None:
        return replace(changed, state=DeliveryState.DELIVERED, finished_at=now)
    if attempt.is_gone or attempts > len(DELAYS_S):
        return replace(changed, state=DeliveryState.DEAD, finished_at=now)
    delay_s = DELAYS_S[attempts - 1] * random.uniform(0.9, 1.1)  # noqa: S311 - spreads attempts, protects nothing
    delay_s = max(delay_s, min(attempt.retry_after_s or 0.0, 86_400.0))
    return replace(changed, next_at=now + timedelta(seconds=delay_s))


class WebhookSender:
    """Sends on a thread of its own from `start` to `close`."""

    def __init__(
        self,
        database: Database,
        *,
        targets: Targets,
        clock: Callable[[], datetime],
        metrics: Metrics,
        attempt_s: float = _ATTEMPT_S,
    ) -> None:
        self._database = database
        self._targets = targets
        self._clock = clock
        self._metrics = metrics
        self._attempt_s = attempt_s
        self._busy: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look = asyncio.Event()
        self._task = PeriodicTask("webhooks", lambda: asyncio.run(self._run()), every_s=_POLL_S, first_s=0)

    def start(self) -> None:
        """Begin to send."""
        self._task.start()

    def close(self) -> None:
        """Begin nothing more, give attempts under way a moment to end, and return. Does nothing without `start`."""
        self._task.stopping.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._look.set)
        self._task.close(self._attempt_s + 5)

    async def _run(self) -> None:
        """Send until `close`. What is raised here is logged by the task, which begins again."""
        import httpx

        self._loop = asyncio.get_running_loop()
        self._look = asyncio.Event()
        self._busy.clear()
        limits = httpx.Limits(max_keepalive_connections=0)  # a connection is made to the address that was checked
        async with (
            httpx.AsyncClient(
                timeout=self._attempt_s, limits=limits, follow_redirects=False, trust_env=False
            ) as client,
            asyncio.TaskGroup() as tasks,
        ):
            while not self._task.stopping.is_set():
                self._look.clear()
                leased = await asyncio.to_thread(self._lease)
                for sending in leased:
                    self._busy.add(sending.endpoint.id)
                    tasks.create_task(self._send(client, sending))
                if not leased:
                    with suppress(TimeoutError):  # an endpoint that has answered gets its next event at once
                        await asyncio.wait_for(self._look.wait(), _POLL_S)

    def _lease(self) -> list[Sending]:
        if len(self._busy) >= _AT_ONCE:
            return []
        now = self._clock()
        try:
            with self._database.reading() as tx:  # most looks find nothing, and take no lock for it
                if not DeliveryRepository(tx).is_due(now=now, busy=tuple(self._busy)):
                    return []
            with self._database.transaction() as tx:
                return DeliveryRepository(tx).lease(
                    now=now,
                    until=now + timedelta(seconds=_LEASE_S),
                    busy=tuple(self._busy),
                    limit=_AT_ONCE - len(self._busy),
                )
        except ShoplensError as error:  # it may come back
            _log.warning("webhook.not_leased", code=error.code, reason=str(error))
            return []

    async def _send(self, client: httpx.AsyncClient, sending: Sending) -> None:
        try:
            attempt = await self._attempt(client, sending)
            await asyncio.to_thread(self._finish, sending, attempt)
        except ShoplensError as error:  # it is sent again when the lease ends
            _log.warning("webhook.not_noted", code=error.code, reason=str(error))
        except Exception:  # noqa: BLE001  a fault of ours with one event must not end those of all others
            _log.exception("webhook.not_noted", delivery=sending.delivery.id)
        finally:
            self._busy.discard(sending.endpoint.id)
            self._look.set()

    async def _attempt(self, client: httpx.AsyncClient, sending: Sending) -> Attempt:
        import httpx

        event, endpoint = sending.event, sending.endpoint
        body = body_of(event)
        headers = headers_of(event, body, secret=endpoint.secret, now=self._clock())
        try:
            async with asyncio.timeout(self._attempt_s):
                target = await asyncio.to_thread(self._targets.resolve, endpoint.url)
                headers |= {"host": target.host_header, "user-agent": f"Shoplens/{shoplens.__version__}"}
                with trace("POST webhook", _about(sending), kind="client", link=event.traceparent) as block:
                    if (mine := traceparent()) is not None:
                        headers["traceparent"] = mine
                    async with client.stream(
                        "POST", target.url, content=body, headers=headers, extensions={"sni_hostname": target.host}
                    ) as answer:
                        failed = None if answer.is_success else str(answer.status_code)
                        block.note({"http.response.status_code": answer.status_code}, error=failed)
                        return _attempt_of(answer)
        except TimeoutError:
            return Attempt(error=marked(f"There was no answer within {self._attempt_s:g} s."))
        except (httpx.HTTPError, EndpointInvalid) as error:
            return Attempt(error=(str(error) or type(error).__name__)[:_ERROR_CHARS])

    def _finish(self, sending: Sending, attempt: Attempt) -> None:
        now = self._clock()
        done = after(sending.delivery, attempt, now=now)
        with self._database.transaction() as tx:
            DeliveryRepository(tx).update(done)
            if attempt.is_gone:
                EndpointRepository(tx).change(sending.endpoint.id, disabled_at=now)
        outcome = "delivered" if attempt.error is None else "dead" if done.state is DeliveryState.DEAD else "failed"
        self._metrics.webhook_attempts.labels(outcome=outcome).inc()
        if attempt.error is not None:
            _log.warning(
                "webhook.failed", delivery=done.id, endpoint=done.endpoint_id, attempts=done.attempts,
                state=done.state.value, reason=attempt.error,
            )  # fmt: skip


def _about(sending: Sending) -> Attributes:
    """What a trace says of an attempt: not the address, which may hold a secret."""
    return {
        "http.request.method": "POST",
        "http.request.resend_count": sending.delivery.attempts,
        "shoplens.webhook.event": sending.event.type,
        "shoplens.webhook.endpoint": sending.endpoint.id,
    }


def _attempt_of(answer: httpx.Response) -> Attempt:
    """2xx takes the event; 410 wants no more; all else is tried again. Redirects are not followed."""
    status = answer.status_code
    if answer.is_success:
        return Attempt(status=status)
    wait = answer.headers.get("retry-after", "")
    return Attempt(
        status=status,
        error=marked(f"It answered {status} {answer.reason_phrase}.")[:_ERROR_CHARS],
        retry_after_s=float(wait) if wait.isdecimal() and len(wait) < 9 else None,
        is_gone=status == HTTPStatus.GONE,
    )
