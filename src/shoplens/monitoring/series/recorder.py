"""Write down every minute what this process counted and how the server is. A request never waits for it.

A minute that cannot be written waits in memory and is written later, so a database that was away leaves no gap. A gap
means that no process looked: none is filled with zeros.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from shoplens.db import Database
from shoplens.errors import ShoplensError
from shoplens.monitoring.series.counters import read_counts, since
from shoplens.monitoring.series.day_repository import DayRepository
from shoplens.monitoring.series.entities import DAY_S, HOUR_S, MINUTE_S, Counts, MinuteReading, SeriesKey, ServerState
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

MOST_WAITING: Final = 180
"""Minutes that wait in memory while the database is away."""
_KEEP_HOUSE_EVERY: Final = 10
"""In minutes."""
_MOST_DAYS_AT_ONCE: Final = 90
"""How many days of older records are counted on a database that has none counted."""
_CLOSE_S: Final = 10.0
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """How much of the series is kept: hours of minutes, days of hours, days of days."""

    minutes_hours: int = 48
    hours_days: int = 30
    days: int = 730

    @property
    def steps(self) -> Mapping[int, int]:
        """How many steps of each length."""
        return {MINUTE_S: self.minutes_hours * 60, HOUR_S: self.hours_days * 24, DAY_S: self.days}


class Recorder:
    """Reads at the end of each minute, on a thread of its own.

    `look` says how the server is; `also` is called every ten minutes, first at once. Neither must raise.
    """

    def __init__(
        self,
        metrics: Metrics,
        database: Database,
        *,
        look: Callable[[], ServerState],
        also: Callable[[], None] = lambda: None,
        kept: Kept,
        clock: Callable[[], datetime],
    ) -> None:
        self._metrics = metrics
        self._database = database
        self._look = look
        self._also = also
        self._kept = kept
        self._clock = clock
        self._before: dict[SeriesKey, Counts] = {}
        self._waiting: deque[MinuteReading] = deque(maxlen=MOST_WAITING)
        self._fault: str | None = None
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to record. Call it once."""
        self._thread = threading.Thread(target=self._loop, name="monitoring", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write the minute that is going on, and stop. Blocks."""
        if self._thread is None:
            return
        self._stopping.set()
        self._thread.join(_CLOSE_S)
        self.record(int(self._clock().timestamp()))

    def record(self, at_s: int) -> None:
        """Read what was counted since the last time, and write it to the minute of the Unix second `at_s`.

        Raises nothing: what cannot be written waits.
        """
        now = read_counts(self._metrics)
        counts, self._before = since(self._before, now), now
        begins_s = at_s // MINUTE_S * MINUTE_S
        self._waiting.append(MinuteReading(begins_s=begins_s, counts=counts, state=self._look()))
        self._without_harm(self._write)

    def keep_house(self) -> None:
        """Count the records of the last days again, and remove what is older than is kept. Raises nothing."""
        self._without_harm(self._count_days)
        self._without_harm(self._prune)

    def _loop(self) -> None:
        turn = 0
        self._also()
        while True:
            # The minute that is to be written is the one that was going on when the wait began: a loop that wakes up a
            # second late writes no second too much to the next one.
            began = self._clock().timestamp()
            if self._stopping.wait(MINUTE_S - began % MINUTE_S):
                return
            ended = self._clock().timestamp()
            woke_in_time = 0 <= ended - began < 2 * MINUTE_S
            if not woke_in_time:
                _log.warning("monitoring.clock_jumped", seconds=round(ended - began))
            self.record(int(began if woke_in_time else ended))
            if turn % _KEEP_HOUSE_EVERY == 0:
                self.keep_house()
                self._also()
            turn += 1

    def _write(self) -> None:
        readings = list(self._waiting)
        with self._database.transaction() as tx:
            SeriesRepository(tx).add(readings)
        for _ in readings:
            self._waiting.popleft()

    def _count_days(self) -> None:
        """Today and yesterday, and what is missing between the newest counted day, or the first record, and them."""
        now = self._clock()
        today = int(now.timestamp()) // DAY_S * DAY_S
        with self._database.reading() as tx:
            days = DayRepository(tx)
            first = days.newest_s() or days.first_record_s()
            if first is None:
                return
            oldest = max(min(first // DAY_S * DAY_S, today - DAY_S), today - DAY_S * _MOST_DAYS_AT_ONCE)
            counted = {begins_s: days.count(begins_s) for begins_s in range(oldest, today + 1, DAY_S)}
        with self._database.transaction() as tx:
            for begins_s, counts in counted.items():
                DayRepository(tx).replace(begins_s, counts, now=now)

    def _prune(self) -> None:
        with self._database.transaction() as tx:
            for step_s, keep in self._kept.steps.items():
                SeriesRepository(tx).prune(step_s, keep=keep)
            DayRepository(tx).prune(keep=self._kept.days)

    def _without_harm(self, work: Callable[[], None]) -> None:
        try:
            work()
        except ShoplensError as error:
            self._note(error.code, str(error))
        except Exception as error:  # noqa: BLE001  whatever it was, the next minute must be written
            self._note(type(error).__name__, repr(error))
        else:
            self._note(None)

    def _note(self, code: str | None, reason: str = "") -> None:
        """Log a fault once, and its end."""
        if code == self._fault:
            return
        self._fault = code
        if code is None:
            _log.info("monitoring.recording")
        else:
            _log.warning("monitoring.not_recorded", code=code, reason=reason, waiting=len(self._waiting))
