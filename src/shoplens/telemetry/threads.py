"""Work on threads: with the caller's context, so that its logs and traces belong together, or again and again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from typing import Final, TypeVar

from shoplens.errors import ShoplensError
from shoplens.telemetry.logs import get_logger

T = TypeVar("T")
_log: Final = get_logger(__name__)


async def run_in(threads: Executor, work: Callable[[], T]) -> T:
    """What `work` returns, called on one of `threads` as `asyncio.to_thread` would call it."""
    return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, work)


class PeriodicTask:
    """A thread that calls `work` every `every_s` seconds, first after `first_s`, from `start` to `close`.

    What `work` raises is logged, and the next turn tries again: a thread has nobody to raise to, and one that ended
    would leave its work undone without a sign. `work` may look at `stopping` to end early.
    """

    def __init__(self, name: str, work: Callable[[], object], *, every_s: float, first_s: float | None = None) -> None:
        self.stopping = threading.Event()
        self._name = name
        self._work = work
        self._every_s = every_s
        self._first_s = every_s if first_s is None else first_s
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. Call it once."""
        self._thread = threading.Thread(target=self._loop, name=self._name, daemon=True)
        self._thread.start()

    def close(self, timeout_s: float | None = None) -> None:
        """Begin no other turn, and wait for the one that is going on, at most `timeout_s`. Blocks."""
        self.stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _loop(self) -> None:
        wait_s = self._first_s
        while not self.stopping.wait(wait_s):
            wait_s = self._every_s
            try:
                self._work()
            except ShoplensError as error:
                _log.warning("task.failed", task=self._name, code=error.code, reason=str(error))
            except Exception:  # noqa: BLE001  a fault of ours in one turn must not end all later ones
                _log.exception("task.failed", task=self._name)
