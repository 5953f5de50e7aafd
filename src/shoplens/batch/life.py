"""A thread that shows that a night lives, also while a batch takes long, and tells when nothing comes to an end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

import structlog

from shoplens.batch.ledger import Ledger
from shoplens.errors import DatabaseUnavailable, RunLost

_BEATS_PER_TAKEOVER: Final = 3
_LONGEST_LOOK_S: Final = 1.0
_log: Final = structlog.get_logger(__name__)


class SignsOfLife:
    """Runs between entering and leaving. `on_lost` is called once, from its thread, when the run is somebody else's."""

    def __init__(
        self,
        ledger: Ledger,
        *,
        takeover_s: float,
        stall_after_s: float,
        on_lost: Callable[[RunLost], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._every_s = takeover_s / _BEATS_PER_TAKEOVER
        self._stall_after_s = stall_after_s
        self._on_lost = on_lost
        self._monotonic = monotonic
        self._finished_at = monotonic()
        self._stalled = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="night-life", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def item_finished(self) -> None:
        """Something came to an end just now."""
        self._finished_at = self._monotonic()

    def look(self) -> None:
        """Give a sign of life where one is due. Raises RunLost and DatabaseUnavailable."""
        quiet_s = self._monotonic() - self._finished_at
        changed = (quiet_s > self._stall_after_s) is not self._stalled
        if changed:
            self._stalled = not self._stalled
            _log.warning("night.stalled" if self._stalled else "night.goes_on", quiet_s=round(quiet_s, 1))
        if changed or self._monotonic() - self._ledger.last_beat_at >= self._every_s:
            self._ledger.beat(stalled=self._stalled)

    def _run(self) -> None:
        pause_s = min(_LONGEST_LOOK_S, self._every_s / 4, self._stall_after_s / 4)
        while not self._ended.wait(pause_s):
            try:
                # A database that is away is the main thread's concern; here the next look is another attempt.
                with contextlib.suppress(DatabaseUnavailable):
                    self.look()
            except RunLost as lost:
                self._on_lost(lost)
                return
