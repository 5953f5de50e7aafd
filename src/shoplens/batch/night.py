"""A night: claim the run, classify everything that waits, bring each photo to its place, report, finish.

Whatever ends the process, nothing is lost and nothing is done twice: docs/explanation/batch.md says why.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from shoplens.batch.crew import Crew, Tools
from shoplens.batch.entities import BatchRun, ItemState
from shoplens.batch.examine import ItemRules
from shoplens.batch.ledger import Ledger
from shoplens.batch.life import SignsOfLife
from shoplens.batch.moves import MovePhotos, finish_moves
from shoplens.batch.ownership import Waiting, claim, this_process
from shoplens.batch.patience import Patience
from shoplens.batch.progress import NightProgress, Pace
from shoplens.batch.runs import Clock, RequestRun
from shoplens.batch.shift import Bounds, Shift
from shoplens.db import Database
from shoplens.errors import RunInProgress, RunLost, ShoplensError
from shoplens.predictions.entities import Channel
from shoplens.storage import Store

OnProgress = Callable[[NightProgress], None]

_LOGGED_EVERY_S: Final = 10.0
_log: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRules:
    """The bounds of a night; the settings `batch.*` describe them."""

    items: ItemRules
    bounds: Bounds
    patience_s: float
    takeover_s: float
    stall_after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NightParts:
    """What a night works with. `open_crew` is called once the run is claimed; `report` gives the report's key."""

    database: Database
    store: Store
    channel: Channel
    open_crew: Callable[[], Crew]
    report: Callable[[str], str]
    clock: Clock
    waiting: Waiting = field(default_factory=Waiting)


def _say_nothing(_: NightProgress) -> None:
    """For whoever does not want to be told."""


class Night:
    """Call it once. `stop` may be called from a signal handler or another thread at any time."""

    def __init__(self, parts: NightParts, rules: NightRules) -> None:
        self._parts = parts
        self._rules = rules
        self._stopped = False
        self._hurry = threading.Event()  # nothing is waited for any more
        self._patience = Patience(rules.patience_s, stop=self._hurry, monotonic=parts.waiting.monotonic)
        self._shift: Shift | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def database(self) -> Database:
        """What it works with, for whoever wants to look at the results."""
        return self._parts.database

    @property
    def stopped(self) -> bool:
        """Whether it was asked to stop."""
        return self._stopped

    def stop(self) -> None:
        """Finish what is in work, commit it, and leave the run to the next start."""
        self._stopped = True
        self._hurry.set()
        self._tell(lambda shift: shift.stop())

    async def __call__(
        self, *, requested_by: str, run_id: str | None = None, on_progress: OnProgress = _say_nothing
    ) -> BatchRun:
        """Work on the active run, or on a new one; with `run_id` on that one, which is returned as it is once ended.

        The run is finished when this returns, unless `stop` was called. Raises RunInProgress and RunLost for a run
        that is somebody else's; Unavailable, Misconfigured and what the engine's opening raises, with the run left to
        the next start.
        """
        run = await asyncio.to_thread(self._patience, partial(self._own, requested_by, run_id))
        if not run.active:
            return run
        ledger = Ledger(self._parts.database, run, clock=self._parts.clock, monotonic=self._parts.waiting.monotonic)
        self._loop = asyncio.get_running_loop()
        try:
            with SignsOfLife(
                ledger,
                takeover_s=self._rules.takeover_s,
                stall_after_s=self._rules.stall_after_s,
                on_lost=self._lost,
                monotonic=self._parts.waiting.monotonic,
            ) as life:
                return await self._work(ledger, life, on_progress)
        except RunLost:
            _log.error("night.lost", run=run.id)
            raise
        except ShoplensError as error:
            await asyncio.to_thread(self._interrupt, ledger, f"{error.code}: {error}")
            raise
        finally:
            self._hurry.set()

    async def _work(self, ledger: Ledger, life: SignsOfLife, on_progress: OnProgress) -> BatchRun:
        crew = await asyncio.to_thread(self._patience, self._parts.open_crew)
        try:
            await asyncio.to_thread(self._finish_moves)
            run, pace = await asyncio.to_thread(self._patience, partial(self._begin, ledger, crew))
            on_progress(pace.progress())
            teller = _Teller(pace, on_progress, self._parts.waiting.monotonic)
            await self._run_shift(ledger, life, crew, teller)
        finally:
            await crew.close()
        if self.stopped:
            return await asyncio.to_thread(self._interrupt, ledger, "It was told to stop.") or run
        return await self._finish(ledger, run, teller)

    def _own(self, requested_by: str, run_id: str | None) -> BatchRun:
        """The run to work on, claimed for this process."""
        parts = self._parts
        run = self._chosen(requested_by, run_id)
        if not run.active:
            return run
        me = this_process(int(parts.clock().timestamp() * 1000))
        return claim(
            parts.database, run, me, takeover_s=self._rules.takeover_s, clock=parts.clock, waiting=parts.waiting
        )

    def _chosen(self, requested_by: str, run_id: str | None) -> BatchRun:
        if run_id is not None:
            with self._parts.database.read_uow() as work:
                return work.batch_runs.get(run_id)
        request = RequestRun(self._parts.database, self._parts.clock)
        for _ in range(2):  # somebody may finish the active run, or request one, between two looks
            with self._parts.database.read_uow() as work:
                active = work.batch_runs.active(self._parts.channel.name)
            if active is not None:
                return active
            with suppress(RunInProgress):
                return request(self._parts.channel.name, requested_by)
        raise RunInProgress("Runs are being started and ended by others just now; try again.")

    def _begin(self, ledger: Ledger, crew: Crew) -> tuple[BatchRun, Pace]:
        channel = self._parts.channel
        run, before = ledger.begin(crew.model, channel.policy.version)
        pace = Pace(run.id, planned=run.planned, before=before, now_s=self._parts.waiting.monotonic())
        _log.info(
            "night.started", run=run.id, planned=run.planned, settled=pace.progress().settled, model=str(run.model),
            policy=run.policy_version, requested_by=run.requested_by,
        )  # fmt: skip
        return run, pace

    def _finish_moves(self) -> None:
        done = self._patience(
            lambda: finish_moves(
                self._parts.database, self._parts.store, self._parts.channel.name, attempt=self._patience
            )
        )
        if done:
            _log.info("night.moves_finished", photos=done)

    async def _run_shift(self, ledger: Ledger, life: SignsOfLife, crew: Crew, teller: _Teller) -> None:
        movers = MovePhotos(self._parts.store)
        shift = Shift(
            ledger=ledger,
            hands=crew.hands(self._tools()),
            movers=movers,
            patience=self._patience,
            on_settled=teller.settled,
            on_finished=life.item_finished,
        )
        self._shift = shift
        if self.stopped:
            shift.stop()
        try:
            await shift.run()
        finally:
            self._shift = None
            movers.close()

    def _tools(self) -> Tools:
        return Tools(
            store=self._parts.store,
            channel=self._parts.channel,
            rules=self._rules.items,
            bounds=self._rules.bounds,
            patience=self._patience,
            clock=self._parts.clock,
        )

    async def _finish(self, ledger: Ledger, run: BatchRun, teller: _Teller) -> BatchRun:
        report_key = await asyncio.to_thread(self._report, run.id)
        finished = await asyncio.to_thread(self._patience, partial(ledger.finish, report_key))
        progress = teller.progress()
        counts = {state.value: count for state, count in progress.counts.items()}
        _log.info("night.finished", run=run.id, planned=run.planned, **counts)
        return finished

    def _report(self, run_id: str) -> str | None:
        try:
            return self._parts.report(run_id)
        except Exception:  # noqa: BLE001 - a night's results are not held up by what only shows them
            _log.exception("night.report_failed", run=run_id)
            return None

    def _interrupt(self, ledger: Ledger, reason: str) -> BatchRun | None:
        try:
            run = ledger.interrupt(reason)
        except ShoplensError as error:
            # Then the run keeps an owner that is gone, which the next start sees.
            _log.warning("night.not_handed_over", reason=str(error))
            return None
        _log.warning("night.interrupted", run=run.id, reason=reason)
        return run

    def _lost(self, lost: RunLost) -> None:
        self._tell(lambda shift: shift.abandon(lost))

    def _tell(self, what: Callable[[Shift], None]) -> None:
        loop = self._loop
        if loop is None:
            return
        with suppress(RuntimeError):  # the loop is closed: it is over
            loop.call_soon_threadsafe(lambda: what(self._shift) if self._shift else None)


class _Teller:
    """Says how far it is: to whoever asked for it at each commit, to the log now and then."""

    def __init__(self, pace: Pace, on_progress: OnProgress, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._pace = pace
        self._on_progress = on_progress
        self._monotonic = monotonic
        self._logged_at = monotonic()

    def settled(self, states: Sequence[ItemState]) -> None:
        """Items were committed."""
        if not states:
            return
        now_s = self._monotonic()
        progress = self._pace.add(states, now_s=now_s)
        self._on_progress(progress)
        if now_s - self._logged_at >= _LOGGED_EVERY_S:
            self._logged_at = now_s
            _log.info(
                "night.progress", run=progress.run_id, settled=progress.settled, planned=progress.planned,
                per_second=round(progress.per_second or 0.0, 1), seconds_left=round(progress.seconds_left or 0.0),
            )  # fmt: skip

    def progress(self) -> NightProgress:
        """As it stands."""
        return self._pace.progress()
