"""The status of runs: for people and programs, as metrics of the server, and as live progress. Reads only."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from shoplens.batch.entities import COMPLETED, BatchRun, ItemState, RunCounts
from shoplens.batch.process import has_ended
from shoplens.batch.repository import ItemRepository
from shoplens.batch.review_repository import ReviewRepository
from shoplens.batch.run_repository import RunRepository
from shoplens.db import Database
from shoplens.errors import ShoplensError
from shoplens.predictions.entities import Answer
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.metrics import Metrics

_READ_EVERY_S: Final = 5.0
_LONGEST_SCRAPE_S: Final = 0.25
_RECENT_S: Final = 30.0
_MOST_MARKS: Final = 256
_log: Final = get_logger(__name__)


class OwnerState(StrEnum):
    """What is known of the process that owns a run. `silent`: no heartbeat for longer than allowed."""

    NOBODY = "nobody"
    ALIVE = "alive"
    SILENT = "silent"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """`waiting` counts all items that wait, whichever run will take them; `processed` are items that the run itself has
    completed. Times are in seconds and never negative.

    `took_s` is the time from the start to the last item, `seconds_per_item` the mean time that the run's photos took to
    decode and classify, on one thread.
    """

    waiting: int
    run: BatchRun | None = None
    counts: RunCounts = field(default_factory=lambda: RunCounts(by_state={}))
    processed: int = 0
    answers: Mapping[Answer, int] = field(default_factory=dict)
    owner: OwnerState = OwnerState.NOBODY
    last_item_ago_s: float | None = None
    last_sign_ago_s: float | None = None
    per_second: float | None = None
    took_s: float | None = None
    seconds_per_item: float | None = None

    @property
    def left(self) -> int:
        """Items that the run has not completed yet."""
        if self.run is None or not self.run.active:
            return 0
        return max(0, self.run.planned - self.processed)

    @property
    def seconds_left(self) -> float | None:
        """At the mean speed of the run so far."""
        return self.left / self.per_second if self.per_second else None


class ReadStatus:
    """Reads the status of a channel, by index ranges whose size does not depend on earlier runs. Blocks."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime], takeover_s: float) -> None:
        self._database = database
        self._clock = clock
        self._takeover_s = takeover_s

    def __call__(self, channel: str) -> RunStatus:
        """Raises DatabaseUnavailable."""
        with self._database.reading() as tx:
            waiting = ItemRepository(tx).count_waiting(channel)
            run = RunRepository(tx).active(channel) or next(iter(RunRepository(tx).page(channel, limit=1)), None)
            if run is None:
                return RunStatus(waiting=waiting)
            counts = ItemRepository(tx).counts(run)
            answers = ReviewRepository(tx).count_answers(run.id)
            processed = RunCounts(by_state=ItemRepository(tx).count_own_states(run.id)).settled
            photos, work_ms = ItemRepository(tx).work_ms(run.id)
        now = self._clock()
        took_s = _between(run.started_at, run.last_item_at)
        return RunStatus(
            waiting=waiting,
            run=run,
            counts=counts,
            processed=processed,
            answers=answers,
            owner=owner_of(run, now=now, takeover_s=self._takeover_s),
            last_item_ago_s=_between(run.last_item_at, now),
            last_sign_ago_s=_between(run.heartbeat_at, now),
            per_second=processed / took_s if took_s else None,
            took_s=took_s,
            seconds_per_item=work_ms / photos / 1e3 if photos else None,
        )


def owner_of(run: BatchRun, *, now: datetime, takeover_s: float) -> OwnerState:
    """For people to read: a takeover is never decided by these times."""
    if run.owner is None or not run.active:
        return OwnerState.NOBODY
    if has_ended(run):
        return OwnerState.GONE
    silent_s = _between(run.heartbeat_at, now) or 0.0
    return OwnerState.SILENT if silent_s > takeover_s else OwnerState.ALIVE


def as_json(status: RunStatus) -> dict[str, object]:
    """For programs: every state is named, also states without items."""
    run = status.run
    facts: dict[str, object] = {"waiting": status.waiting, "run": None}
    if run is None:
        return facts
    facts["run"] = {
        "id": run.id,
        "state": run.state.value,
        "requested_by": run.requested_by,
        "created_at": run.created_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "last_item_at": run.last_item_at,
        "model": None if run.model is None else str(run.model),
        "planned": run.planned,
        "received": status.counts.received,
        "processed": status.processed,
        "counts": {state.value: status.counts[state] for state in ItemState},
        "answers": {answer.value: status.answers.get(answer, 0) for answer in Answer},
        "left": status.left,
        "took_s": status.took_s,
        "per_second": status.per_second,
        "seconds_left": status.seconds_left,
        "seconds_per_item": status.seconds_per_item,
        "last_item_ago_s": status.last_item_ago_s,
        "last_sign_ago_s": status.last_sign_ago_s,
        "stalled": run.stalled,
        "owner": {"state": status.owner.value, "host": run.host, "pid": run.pid},
        "failure": run.failure,
        "report_key": run.report_key,
    }
    return facts


def _between(since: datetime | None, until: datetime | None) -> float | None:
    """Never negative, although clocks may jump."""
    return None if since is None or until is None else max(0.0, (until - since).total_seconds())


class StatusMetrics:
    """Sets the gauges before each scrape. It never raises, and never takes longer than a quarter of a second.

    A run is a process of its own that is not scraped, so the server shows what is in the database.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, RunStatus]],
        metrics: Metrics,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._metrics = metrics
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="status")
        self._reading: Future[Mapping[str, RunStatus]] | None = None
        self._read_at: float | None = None

    def __call__(self) -> None:
        """Update the gauges, or leave them unchanged when the database does not answer in time."""
        reading = self._begun()
        if reading is None:
            return
        try:
            channels = reading.result(_LONGEST_SCRAPE_S)
        except NotYet:
            return
        except Exception as error:  # noqa: BLE001 - a failure here must not hide the other metrics
            trace = None if isinstance(error, ShoplensError) else error
            _log.warning("batch.status_unknown", reason=str(error), exc_info=trace)
            self._metrics.batch_readable.set(0)
            self._end(reading)
            return
        self._metrics.batch_readable.set(1)
        for channel, status in channels.items():
            show(channel, status, self._metrics)
        self._end(reading)

    def close(self) -> None:
        """Release the thread."""
        self._thread.shutdown(wait=False)

    def _begun(self) -> Future[Mapping[str, RunStatus]] | None:
        """The reading to wait for; None while the gauges are recent enough."""
        with self._lock:
            now = self._monotonic()
            if self._reading is None and self._read_at is not None and now - self._read_at < _READ_EVERY_S:
                return None
            if self._reading is None:
                try:
                    self._reading = self._thread.submit(self._read)
                except RuntimeError:  # closed
                    return None
            return self._reading

    def _end(self, reading: Future[Mapping[str, RunStatus]]) -> None:
        with self._lock:
            if self._reading is reading:
                self._reading = None
                self._read_at = self._monotonic()


def show(channel: str, status: RunStatus, metrics: Metrics) -> None:
    """Set every gauge of one channel."""
    run = status.run
    metrics.batch_waiting.labels(channel).set(status.waiting)
    metrics.batch_run_active.labels(channel).set(run is not None and run.active)
    metrics.batch_run_stalled.labels(channel).set(run is not None and run.stalled)
    metrics.batch_run_planned.labels(channel).set(run.planned if run else 0)
    for state in ItemState:
        metrics.batch_run_items.labels(channel, state.value).set(status.counts[state])
    metrics.batch_run_seconds.labels(channel).set(status.took_s or 0)
    metrics.batch_run_rate.labels(channel).set(status.per_second or 0)
    metrics.batch_item_seconds.labels(channel).set(status.seconds_per_item or 0)
    moments = {"item": run.last_item_at if run else None, "run": run.finished_at if run else None}
    for what, moment in moments.items():
        metrics.batch_last_timestamp.labels(channel, what).set(moment.timestamp() if moment else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunProgress:
    """How far a run is. `per_second` is the speed of about the last 30 seconds; None before the first item."""

    run_id: str
    planned: int
    counts: Mapping[ItemState, int]
    per_second: float | None = None

    @property
    def settled(self) -> int:
        """Items that the run has completed."""
        return sum(self.counts.get(state, 0) for state in COMPLETED)

    @property
    def seconds_left(self) -> float | None:
        """At the present speed."""
        return None if not self.per_second else max(0, self.planned - self.settled) / self.per_second


class ProgressMeter:
    """Counts completed items and knows the recent speed, in bounded memory."""

    def __init__(self, run_id: str, *, planned: int, before: Mapping[ItemState, int], now_s: float) -> None:
        self._run_id = run_id
        self._planned = planned
        self._counts = Counter({state: before.get(state, 0) for state in COMPLETED})
        self._marks: deque[tuple[float, int]] = deque([(now_s, self._counts.total())], maxlen=_MOST_MARKS)

    def add(self, states: Iterable[ItemState], *, now_s: float) -> RunProgress:
        """Add items that were completed at `now_s`, in monotonic seconds."""
        self._counts.update(states)
        while len(self._marks) > 1 and self._marks[1][0] < now_s - _RECENT_S:
            self._marks.popleft()
        self._marks.append((now_s, self._counts.total()))
        return self.progress()

    def progress(self) -> RunProgress:
        """As it stands."""
        (since, first), (until, last) = self._marks[0], self._marks[-1]
        speed = (last - first) / (until - since) if until > since and last > first else None
        return RunProgress(run_id=self._run_id, planned=self._planned, counts=dict(self._counts), per_second=speed)
