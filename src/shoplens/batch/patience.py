"""Wait for a part that is away: with growing pauses, for a bounded time, and not beyond a wish to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from shoplens.errors import (
    DatabaseUnavailable,
    NoWorker,
    QueueUnavailable,
    RecordRefused,
    StorageUnavailable,
    Unavailable,
)

Value = TypeVar("Value")

_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_GROWTH: Final = 1.6
_MAY_RETURN: Final = (DatabaseUnavailable, NoWorker, QueueUnavailable, StorageUnavailable)
_log: Final = structlog.get_logger(__name__)


class Patience:
    """Calls something until the parts that it needs are there for it. Thread-safe.

    Each call has `limit_s` seconds of its own, by a monotonic clock. `stop` ends all waiting at once.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        stop: threading.Event | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._limit_s = limit_s
        self._stop = stop or threading.Event()
        self._monotonic = monotonic
        self._pause = pause or self._stop.wait

    def __call__(self, act: Callable[[], Value]) -> Value:
        """What `act` returns. Raises its error when that is of another kind, or when patience or the night ends."""
        give_up_at: float | None = None
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return act()
            except _MAY_RETURN as error:
                give_up_at = give_up_at or self._monotonic() + self._limit_s
                if not self._may_wait(error, give_up_at):
                    raise
                _log.warning("night.waits", code=error.code, reason=str(error), seconds=round(pause_s, 1))
            self._pause(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, pause_s * _GROWTH)

    def _may_wait(self, error: Unavailable, give_up_at: float) -> bool:
        """A row that does not fit will fit no better later."""
        refused = isinstance(error, RecordRefused)
        return not refused and not self._stop.is_set() and self._monotonic() < give_up_at
