"""The runner of a batch run: three coroutines and two bounded queues between the database and an executor.

`lease_items → executor.process → commit_results`, with a heartbeat beside them. Whatever ends the process, no item is
lost and none has two effects: docs/explanation/batch.md explains why.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from shoplens.batch.entities import BatchRun, Clock
from shoplens.batch.executors import (
    LATE,
    Executor,
    ItemQueue,
    ProcessedItem,
    ResultBuilder,
    ResultQueue,
    RetryPolicy,
)
from shoplens.batch.files import Moved, PhotoMover, finish_moves
from shoplens.batch.owned_run import OwnedRun
from shoplens.batch.process import WatchTime, claim, request_run, this_process
from shoplens.batch.run_mail import Posted, prepared
from shoplens.batch.run_repository import RunRepository
from shoplens.batch.status import ProgressMeter, RunProgress
from shoplens.db import Database
from shoplens.errors import (
    ClusterUnavailable,
    DatabaseUnavailable,
    DatabaseUnusable,
    EngineStopped,
    Misconfigured,
    NothingWaiting,
    NoWorker,
    RunInProgress,
    RunLost,
    ShoplensError,
)
from shoplens.storage import Store
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.tracing import TRACEPARENT, FirstSpans, trace

OnProgress = Callable[[RunProgress], None]

_LATEST_COMMIT_S: Final = 2.0
_LARGEST_COMMIT: Final = 1_000
_COMMITS_LEASED: Final = 4
_LOGGED_EVERY_S: Final = 10.0
_BEATS_PER_TAKEOVER: Final = 3
_LONGEST_CHECK_S: Final = 1.0
_TRACED_COMMITS: Final = 200
_REFUSED_STARTS: Final = (Misconfigured, NoWorker, ClusterUnavailable)
"""What the executor that was asked for lacks. Another start may ask for another one, so no run is left to it."""
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRules:
    """The numbers of a run; the settings `batch.*` describe them."""

    commit_items: int
    takeover_s: float
    stall_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerParts:
    """What a run works with. `open_executor` is called once the run is claimed; `report` returns the report's key.

    `policy_version` is what decides now, where that is not the policy of the channel's settings. `mail` prepares the
    mail about the run; None where nobody wants one.
    """

    database: Database
    store: Store
    results: ResultBuilder
    retry: RetryPolicy
    open_executor: Callable[[], Executor]
    report: Callable[[str], str]
    clock: Clock
    watch: WatchTime = field(default_factory=WatchTime)
    policy_version: Callable[[], str] | None = None
    mail: Callable[[str, str | None], Posted] | None = None


class BatchRunner:
    """Works on one run of one channel. Use it once. `stop` may be called from any thread."""

    def __init__(self, parts: RunnerParts, rules: RunRules) -> None:
        self._parts = parts
        self._rules = rules
        self._channel = parts.results.channel
        self._retry = parts.retry
        self._items: ItemQueue = asyncio.Queue()
        self._results: ResultQueue = asyncio.Queue()
        self._committed = asyncio.Event()
        self._open = 0  # items that are leased and not committed
        self._leasing_ended = asyncio.Event()
        self._commit_items = rules.commit_items
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: ShoplensError | None = None
        self._finished_at = time.monotonic()
        self._late_in_a_row = 0
        self._traced_commits = FirstSpans(_TRACED_COMMITS)
        self._is_new = False  # requested by this process, and not begun
        self.stopped = False
        """Whether it was asked to stop."""

    @property
    def database(self) -> Database:
        """The database it works with."""
        return self._parts.database

    def stop(self) -> None:
        """Finish and commit the items in work, and leave the run to the next start."""
        self.stopped = True
        self._retry.stopped.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the run is over
                self._loop.call_soon_threadsafe(self._end_leasing)

    async def run(
        self, *, requested_by: str, run_id: str | None = None, on_progress: OnProgress = lambda _: None
    ) -> BatchRun:
        """Work on the channel's active run or on a new one; with `run_id` on that one, returned unchanged if it ended.

        The run is finished when this returns, unless `stop` was called. Raises RunInProgress and RunLost for a run of
        another process; NothingWaiting without a run; Unavailable, Misconfigured and the errors of opening the
        executor, with the run left to the next start, or removed if this call had requested it and it never began.
        """
        try:
            run = await asyncio.to_thread(self._retry, lambda: self._claim(requested_by, run_id))
        except NothingWaiting:
            await asyncio.to_thread(self._finish_moves)  # that a crash may have left, also of a review
            raise
        if not run.active:
            return run
        about = {"shoplens.run": run.id, "shoplens.channel": run.channel}
        with (
            structlog.contextvars.bound_contextvars(run=run.id, channel=run.channel),
            trace("batch run", about, parent=os.environ.get(TRACEPARENT)),
        ):
            return await self._run_claimed(run, on_progress)

    async def _run_claimed(self, run: BatchRun, on_progress: OnProgress) -> BatchRun:
        owned = OwnedRun(self.database, run, results=self._parts.results, clock=self._parts.clock)
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as tasks:
                heartbeat = tasks.create_task(self._send_heartbeats(owned))
                work = tasks.create_task(self._work(owned, on_progress))
                work.add_done_callback(lambda _: heartbeat.cancel())
            return work.result()
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):  # the first error of a group caused the others
                error = error.exceptions[0]
            if isinstance(error, RunLost):
                _log.error("run.lost", run=run.id)
            elif isinstance(error, ShoplensError):
                refused = self._is_new and isinstance(error, _REFUSED_STARTS)
                await asyncio.to_thread(self._interrupt, owned, error, discard=refused)
            raise error from error.__cause__
        finally:
            self._retry.stopped.set()

    def _claim(self, requested_by: str, run_id: str | None) -> BatchRun:
        """The run to work on, owned by this process unless it has ended."""
        run = None
        if run_id is not None:
            with self.database.reading() as tx:
                run = RunRepository(tx).get(run_id)
        for _ in range(2):  # between two looks another process may finish the active run, or request one
            if run is None:
                with self.database.reading() as tx:
                    run = RunRepository(tx).active(self._channel.name)
            if run is None:
                with suppress(RunInProgress):
                    run = request_run(self.database, self._channel.name, requested_by, clock=self._parts.clock)
                    self._is_new = True
        if run is None:
            raise RunInProgress("Other processes are starting and ending runs just now; try again.")
        if not run.active:
            return run
        me = this_process(int(self._parts.clock().timestamp() * 1000))
        parts = self._parts
        return claim(parts.database, run, me, takeover_s=self._rules.takeover_s, clock=parts.clock, watch=parts.watch)

    def _finish_moves(self) -> int:
        return finish_moves(self.database, self._parts.store, self._channel.name, retry=self._retry)

    async def _work(self, owned: OwnedRun, on_progress: OnProgress) -> BatchRun:
        executor = await asyncio.to_thread(self._retry, self._parts.open_executor)
        mover = PhotoMover(self._parts.store)
        try:
            moves = await asyncio.to_thread(self._finish_moves)
            before = await asyncio.to_thread(self._retry, lambda: owned.begin(executor.model, self._policy_version()))
            self._is_new = False
            meter = ProgressMeter(owned.run.id, planned=owned.run.planned, before=before, now_s=time.monotonic())
            on_progress(meter.progress())
            _log.info(
                "run.started", run=owned.run.id, channel=owned.run.channel, planned=owned.run.planned,
                completed=meter.progress().settled, model=str(owned.run.model), policy=owned.run.policy_version,
                requested_by=owned.run.requested_by, moves_finished=moves,
            )  # fmt: skip
            await self._process(owned, executor, mover, _Reporter(meter, on_progress))
        finally:
            mover.close()
            await executor.close()
        if self._error is not None:
            raise self._error
        if self.stopped:
            return await asyncio.to_thread(self._interrupt, owned) or owned.run
        report_key = None
        try:
            report_key = await asyncio.to_thread(self._parts.report, owned.run.id)
        except Exception:  # noqa: BLE001  the results are there; the report can be written again
            _log.exception("run.report_failed", run=owned.run.id)
        mail = self._parts.mail
        prepare = None if mail is None else partial(mail, owned.run.id, report_key)
        write_mail = await asyncio.to_thread(prepared, prepare, owned.run.id)
        finished = await asyncio.to_thread(self._retry, lambda: owned.finish(report_key, write_mail))
        counts = {state.value: count for state, count in meter.progress().counts.items()}
        _log.info("run.finished", run=owned.run.id, channel=owned.run.channel, planned=owned.run.planned, **counts)
        return finished

    def _policy_version(self) -> str:
        chosen = self._parts.policy_version
        return self._channel.policy.version if chosen is None else chosen()

    async def _process(self, owned: OwnedRun, executor: Executor, mover: PhotoMover, reporter: _Reporter) -> None:
        self._commit_items = max(self._rules.commit_items, min(_LARGEST_COMMIT, executor.capacity // 8))
        lease_items = max(_COMMITS_LEASED * self._commit_items, executor.capacity)
        self._items = asyncio.Queue(lease_items)
        self._results = asyncio.Queue(2 * self._commit_items)
        if self.stopped:
            self._end_leasing()
        self._finished_at = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._lease_items(owned, lease_items))
            tasks.create_task(self._execute(executor))
            tasks.create_task(self._commit_results(owned, executor.capacity, mover, reporter))

    async def _lease_items(self, owned: OwnedRun, limit: int) -> None:
        """Database → items, until none of the run waits and none is in work, which might have to wait again."""
        while not self._leasing_ended.is_set():
            self._committed.clear()
            none_open = self._open == 0  # asked before: a commit during the lease may let an item wait again
            leased = await asyncio.to_thread(self._retry, lambda: owned.lease(limit))
            self._open += len(leased)
            for item in leased:
                if self._leasing_ended.is_set():
                    return
                await self._items.put(item)
            if not leased and none_open:
                break
            if not leased:
                await self._committed.wait()
        if not self._leasing_ended.is_set():
            await self._items.put(None)

    async def _execute(self, executor: Executor) -> None:
        """Items → results. Results that are there are committed before an error ends the run."""
        try:
            await executor.process(self._items, self._results)
        except ShoplensError as error:
            self._error = self._error or error
        self._end_leasing()
        await self._results.put(None)

    async def _commit_results(self, owned: OwnedRun, capacity: int, mover: PhotoMover, reporter: _Reporter) -> None:
        """Results → database, then photos to their places. Moves are noted in the next transaction."""
        moved, ended = Moved(), False
        while not ended or moved:
            batch, ended = ([], True) if ended else await self._next_results(capacity)
            if not batch and not moved:
                return
            with self._traced_commits.span("commit results", {"shoplens.items": len(batch)}):
                written = await asyncio.to_thread(self._retry, partial(owned.commit, batch, moved))
            self._open -= len(batch)
            self._committed.set()
            reporter.completed(written)
            moves = [each.move for each in written if each.move is not None]
            moved = await asyncio.to_thread(self._retry, partial(mover, moves)) if moves else Moved()

    async def _next_results(self, capacity: int) -> tuple[Sequence[ProcessedItem], bool]:
        """The results of one commit, and whether they are the last: a full batch, all there are, or after 2 seconds."""
        batch: list[ProcessedItem] = []
        due_at: float | None = None
        while len(batch) < self._commit_items and not (batch and len(batch) >= self._open):
            try:
                async with asyncio.timeout_at(due_at):
                    processed = await self._results.get()
            except TimeoutError:
                break
            if processed is None:
                return batch, True
            due_at = due_at or asyncio.get_running_loop().time() + _LATEST_COMMIT_S
            batch.append(processed)
            self._note_lateness(processed, capacity)
        return batch, False

    def _note_lateness(self, processed: ProcessedItem, capacity: int) -> None:
        """When every photo in work exceeds its deadline, the models are stuck and not the photos."""
        if processed.result.failure_code not in LATE:
            self._late_in_a_row = 0
            self._finished_at = time.monotonic()
            return
        self._late_in_a_row += 1
        if self._late_in_a_row >= capacity:
            stuck = EngineStopped("Every photo exceeded its time limit, so the models seem to be stuck.")
            self._error = self._error or stuck
            self._end_leasing()

    def _end_leasing(self) -> None:
        """Begin no further item. What is leased and not begun is released with the run."""
        if self._leasing_ended.is_set():
            return
        self._leasing_ended.set()
        while not self._items.empty():
            self._items.get_nowait()
        self._items.put_nowait(None)
        self._committed.set()

    async def _send_heartbeats(self, owned: OwnedRun) -> None:
        """Show that this process is alive, and mark the run as stalled while no item finishes. Raises RunLost."""
        every_s = self._rules.takeover_s / _BEATS_PER_TAKEOVER
        stall_after_s = self._rules.stall_after_s
        stalled = False
        while True:
            await asyncio.sleep(min(_LONGEST_CHECK_S, every_s / 4, stall_after_s / 4))
            quiet_s = time.monotonic() - self._finished_at
            changed = (quiet_s > stall_after_s) is not stalled
            if not changed and time.monotonic() - owned.heartbeat_at < every_s:
                continue
            try:
                await asyncio.to_thread(owned.beat, stalled=stalled is not changed)
            except DatabaseUnusable:
                self._retry.stopped.set()
                raise
            except DatabaseUnavailable:
                continue  # the work waits for the database; the next heartbeat is another attempt
            except RunLost:
                self._retry.stopped.set()
                raise
            if changed:
                stalled = not stalled
                _log.warning("run.stalled" if stalled else "run.continues", quiet_s=round(quiet_s, 1))

    def _interrupt(
        self, owned: OwnedRun, reason: ShoplensError | None = None, *, discard: bool = False
    ) -> BatchRun | None:
        """Without a reason it was asked to stop. With `discard` a run that never began is removed.

        The run keeps what pages may show of the reason, and the log all of it.
        """
        failure = "It was asked to stop." if reason is None else reason.notice
        try:
            run = owned.discard() if discard else owned.interrupt(failure)
        except ShoplensError as error:
            # The run then keeps an owner that has ended, which the next start finds out.
            _log.warning("run.not_released", reason=str(error))
            return None
        _log.warning("run.interrupted", run=run.id, reason=failure if reason is None else f"{reason.code}: {reason}")
        return run


class _Reporter:
    """Reports progress to the caller at each commit, and to the log now and then."""

    def __init__(self, meter: ProgressMeter, on_progress: OnProgress) -> None:
        self._meter = meter
        self._on_progress = on_progress
        self._logged_at = time.monotonic()

    def completed(self, written: Sequence[ProcessedItem]) -> None:
        """These were committed."""
        states = [each.result.state for each in written if each.completed]
        if not states:
            return
        now_s = time.monotonic()
        progress = self._meter.add(states, now_s=now_s)
        self._on_progress(progress)
        if now_s - self._logged_at >= _LOGGED_EVERY_S:
            self._logged_at = now_s
            _log.info(
                "run.progress", run=progress.run_id, completed=progress.settled, planned=progress.planned,
                per_second=round(progress.per_second or 0.0, 1), seconds_left=round(progress.seconds_left or 0.0),
            )  # fmt: skip
