"""Make copies of photos when they are first asked for: a few at once, with a bounded number of callers that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final

from shoplens.errors import QueueFull

_RETRY_AFTER_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyLimits:
    """How many copies of photos are made at once, how many callers may wait for that, and for how long."""

    at_once: int = 2
    waiting: int = 20
    wait_s: float = 10.0


class CopyQueue:
    """Makes copies on threads of its own, so that the memory that decoding leaves behind in each is bounded too."""

    def __init__(self, limits: CopyLimits | None = None) -> None:
        self._limits = limits or CopyLimits()
        self._makers = ThreadPoolExecutor(self._limits.at_once, thread_name_prefix="copy-image")
        self._lock = threading.Lock()
        self._waiting = 0

    def run(self, make: Callable[[], bytes]) -> bytes:
        """What `make` returns, in its turn; raises what it raises.

        Raises QueueFull if too many wait already, or after `wait_s`. Blocks.
        """
        with self._lock:
            if self._waiting >= self._limits.at_once + self._limits.waiting:
                raise _too_many()
            self._waiting += 1
        try:
            copy = self._makers.submit(copy_context().run, make)
            wait([copy], timeout=self._limits.wait_s)
            if copy.cancel():
                raise _too_many()
            return copy.result()
        finally:
            with self._lock:
                self._waiting -= 1


def _too_many() -> QueueFull:
    return QueueFull(
        "Too many photos are being prepared for viewing. Try again in a moment.", retry_after_s=_RETRY_AFTER_S
    )
