"""When a database, a store or a queue is away: try again with growing pauses, for a bounded time."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import structlog
import tenacity

from shoplens.errors import DatabaseUnavailable, NoWorker, QueueUnavailable, RecordRefused, StorageUnavailable

T = TypeVar("T")

_log: Final = structlog.get_logger(__name__)


class RetryPolicy:
    """Calls a function until what it needs is back. Thread-safe.

    Each call gives up after about `limit_s` seconds with the last error. Setting `stopped` ends all waiting at once.
    """

    def __init__(self, limit_s: float) -> None:
        self.stopped = threading.Event()
        self._options: dict[str, Any] = {
            "retry": tenacity.retry_if_exception(_may_pass),
            "wait": tenacity.wait_exponential(multiplier=0.2, exp_base=1.6, max=10.0),
            "stop": tenacity.stop_after_delay(limit_s) | tenacity.stop_when_event_set(self.stopped),
            "before_sleep": _log_retry,
            "reraise": True,
        }

    def __call__(self, act: Callable[[], T]) -> T:
        """What `act` returns. Blocks. Raises the error of `act` if it cannot pass, or if it did not pass in time."""
        sleep = tenacity.sleep_using_event(self.stopped)
        return tenacity.Retrying(**self._options, sleep=sleep)(act)

    async def run(self, act: Callable[[], Awaitable[T]]) -> T:
        """As a call, for a function that returns an awaitable."""

        async def attempt() -> T:  # tenacity awaits the result of coroutine functions only, not of lambdas
            return await act()

        return await tenacity.AsyncRetrying(**self._options)(attempt)


def _may_pass(error: BaseException) -> bool:
    """A row that the database refuses will be refused again."""
    away = isinstance(error, (DatabaseUnavailable, NoWorker, QueueUnavailable, StorageUnavailable))
    return away and not isinstance(error, RecordRefused)


def _log_retry(state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    code = getattr(error, "code", None)
    _log.warning("run.waits", code=code, reason=str(error), seconds=round(state.upcoming_sleep, 1))
