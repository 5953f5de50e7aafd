"""Returns as metrics of the server: read from the database when somebody scrapes, seldom, and never waited for long.

A night is a process of its own that nobody scrapes. What it did stands in the database, so the server tells.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import Final

import structlog

from shoplens.batch.entities import ItemState
from shoplens.batch.standing import Standing
from shoplens.telemetry.metrics import Metrics

_AT_MOST_EVERY_S: Final = 5.0
_LONGEST_WAIT_S: Final = 0.25
_log: Final = structlog.get_logger(__name__)


class BatchFigures:
    """Call it before each scrape. It never raises, and never takes longer than a quarter of a second."""

    def __init__(
        self,
        read: Callable[[], Mapping[str, Standing]],
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._metrics = metrics
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="returns-figures")
        self._reading: Future[Mapping[str, Standing]] | None = None
        self._read_at: float | None = None

    def __call__(self) -> None:
        """Bring the gauges up to date, or leave them as they were when the database does not answer in time."""
        reading = self._begun()
        if reading is None:
            return
        try:
            channels = reading.result(_LONGEST_WAIT_S)
        except NotYet:
            return
        except Exception as error:  # noqa: BLE001 - whatever is wrong with returns, the other metrics are shown
            _log.warning("returns.figures_unknown", reason=str(error))
            self._metrics.batch_readable.set(0)
            self._end(reading)
            return
        self._metrics.batch_readable.set(1)
        for channel, standing in channels.items():
            show(channel, standing, self._metrics)
        self._end(reading)

    def close(self) -> None:
        """Release the thread."""
        self._thread.shutdown(wait=False)

    def _begun(self) -> Future[Mapping[str, Standing]] | None:
        """The reading to wait for; None while what is shown is new enough."""
        with self._lock:
            now = self._monotonic()
            if self._reading is None and self._read_at is not None and now - self._read_at < _AT_MOST_EVERY_S:
                return None
            if self._reading is None:
                try:
                    self._reading = self._thread.submit(self._read)
                except RuntimeError:  # closed
                    return None
            return self._reading

    def _end(self, reading: Future[Mapping[str, Standing]]) -> None:
        with self._lock:
            if self._reading is reading:
                self._reading = None
                self._read_at = self._monotonic()


def show(channel: str, standing: Standing, metrics: Metrics) -> None:
    """Set every gauge of one channel."""
    run = standing.run
    metrics.batch_waiting.labels(channel).set(standing.waiting)
    metrics.batch_run_active.labels(channel).set(run is not None and run.active)
    metrics.batch_run_stalled.labels(channel).set(run is not None and run.stalled)
    metrics.batch_run_planned.labels(channel).set(run.planned if run else 0)
    for state in ItemState:
        if state is not ItemState.DUPLICATE:
            metrics.batch_run_items.labels(channel, state.value).set(standing.counts[state])
    metrics.batch_item_seconds.labels(channel).set(standing.seconds_per_item or 0)
    moments = {"item": run.last_item_at if run else None, "run": run.finished_at if run else None}
    for what, moment in moments.items():
        metrics.batch_last_timestamp.labels(channel, what).set(moment.timestamp() if moment else 0)
