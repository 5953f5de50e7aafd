"""How often somebody may try or ask: counts in a sliding window, in this process or in Redis for all processes."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shoplens.errors import TooManyTries
from shoplens.messages import marked
from shoplens.telemetry.logs import get_logger

if TYPE_CHECKING:
    from limits.strategies import SlidingWindowCounterRateLimiter

_REDIS_ANSWER_S: Final = 1.0
_REDIS_AWAY_S: Final = 30.0
_log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most `most` within `per_s` seconds; counts of other names are separate."""

    name: str
    most: int
    per_s: int


class RateLimits:
    """Counts what is limited. Thread-safe. While Redis does not answer, each process counts for itself."""

    def __init__(self, redis_url: str | None = None, *, prefix: str = "shoplens") -> None:
        self._redis_url = redis_url
        self._prefix = f"{prefix}:limits"
        self._building = threading.Lock()
        self._local: SlidingWindowCounterRateLimiter | None = None
        self._shared: SlidingWindowCounterRateLimiter | None = None
        self._local_until = 0.0

    @property
    def blocks(self) -> bool:
        """Whether `require` may wait for a server or for an import, so that an event loop should not call it."""
        return self._redis_url is not None or self._local is None

    def require(self, limit: RateLimit, *who: str, message: str | None = None) -> None:
        """Count one more of `who`. Raises TooManyTries, with `message` or a sentence of its own, if it is too many."""
        wait_s = self._wait_s(limit, who)
        if wait_s is not None:
            said = message or marked(f"Too many requests: at most {limit.most} within {limit.per_s} s are allowed.")
            raise TooManyTries(f"{said} Try again in {math.ceil(wait_s)} s.", retry_after_s=wait_s)

    def _wait_s(self, limit: RateLimit, who: tuple[str, ...]) -> float | None:
        """None where it is allowed."""
        if self._redis_url is not None and time.monotonic() >= self._local_until:
            from limits.errors import StorageError

            try:
                return _hit(self._shared or self._build_shared(), limit, who)
            except StorageError as error:
                self._local_until = time.monotonic() + _REDIS_AWAY_S
                _log.warning("limits.redis_away", reason=str(error), counted_here_s=_REDIS_AWAY_S)
        return _hit(self._local or self._build_local(), limit, who)

    def _build_local(self) -> SlidingWindowCounterRateLimiter:
        with self._building:
            if self._local is None:
                from limits.storage import MemoryStorage
                from limits.strategies import SlidingWindowCounterRateLimiter

                self._local = SlidingWindowCounterRateLimiter(MemoryStorage())
            return self._local

    def _build_shared(self) -> SlidingWindowCounterRateLimiter:
        with self._building:
            if self._shared is None:
                from limits.storage import RedisStorage
                from limits.strategies import SlidingWindowCounterRateLimiter

                assert self._redis_url is not None
                storage = RedisStorage(
                    self._redis_url,
                    key_prefix=self._prefix,
                    wrap_exceptions=True,
                    socket_timeout=_REDIS_ANSWER_S,
                    socket_connect_timeout=_REDIS_ANSWER_S,
                )
                self._shared = SlidingWindowCounterRateLimiter(storage)
            return self._shared


def _hit(strategy: SlidingWindowCounterRateLimiter, limit: RateLimit, who: tuple[str, ...]) -> float | None:
    from limits import RateLimitItemPerSecond

    item = RateLimitItemPerSecond(limit.most, limit.per_s, namespace=limit.name)
    if strategy.hit(item, *who):
        return None
    return max(1.0, strategy.get_window_stats(item, *who).reset_time - time.time())
