"""A run over the catalogue: a suggestion for every product that has none, with bounded memory, and each exactly once.

Three coroutines and two bounded queues between the database and an engine, as in `batch/runner.py`. A product is its
own item: the transaction that writes its suggestion also marks it with the run, and proves that this process still owns
the run. So whatever ends the process, the next one goes on with what is not marked.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from shoplens.batch.entities import Clock
from shoplens.batch.executors import ENDS_RUN, RetryPolicy
from shoplens.batch.process import WatchTime, has_ended, this_process
from shoplens.batch.run_mail import Posted, prepared
from shoplens.catalogue.entities import CatalogueRun, Product, ProductPhoto
from shoplens.catalogue.errors import RunModelChanged
from shoplens.catalogue.products import ProductService, SuggestedProduct, write_suggestions
from shoplens.catalogue.repository import ProductRepository
from shoplens.catalogue.runs.repository import CatalogueRunRepository
from shoplens.catalogue.suggest.service import Suggestion, SuggestRequest, SuggestService
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import (
    DatabaseUnavailable,
    ImageNotKept,
    NothingWaiting,
    NoWorker,
    QueueFull,
    QueueUnavailable,
    RecordRefused,
    RequestInvalid,
    RunInProgress,
    RunLost,
    SampleError,
    ShoplensError,
)
from shoplens.messages import marked
from shoplens.serving.engine import Engine
from shoplens.telemetry.logs import get_logger
from shoplens.telemetry.tracing import TRACEPARENT, FirstSpans, trace

OnProgress = Callable[[CatalogueRun], None]

_COMMIT: Final = 64
_TRACED: Final = 200
"""Of a run's products, and of its commits, so many are traced."""
_LATEST_COMMIT_S: Final = 2.0
_LOOKS_PER_WATCH: Final = 20
_BEATS_PER_TAKEOVER: Final = 3
_log: Final = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEngine:
    """What a run asks: an engine, and the suggestions made with it.

    `model` is the only version that answers, `encoder` the SHA-256 of what makes its embeddings, `tree` the version of
    the live tree. About `at_once` products are in memory.
    """

    engine: Engine
    suggest: SuggestService
    model: str
    encoder: str
    tree: int
    at_once: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunParts:
    """What a run works with. `open_engine` is called once, with the version that the run began with, or None.

    `mail` prepares the mail about the run; None where nobody wants one.
    """

    database: Database
    products: ProductService
    open_engine: Callable[[str | None], RunEngine]
    retry: RetryPolicy
    clock: Clock
    takeover_s: float
    timeout_s: float
    watch: WatchTime
    mail: Callable[[str], Posted] | None = None


def add_run(tx: Connection, channel: str, *, again: bool, requested_by: str, now: datetime) -> CatalogueRun:
    """A run that nobody works on yet. Raises NothingWaiting, and RecordRefused while the channel has another one."""
    run = CatalogueRun(id=new_id(now), channel=channel, created_at=now, requested_by=requested_by, again=again)
    planned = ProductRepository(tx).count_waiting(channel, run_id=run.id, again=again)
    if not planned:
        raise NothingWaiting(f"No product of the channel {channel} waits for a suggestion.")
    run = replace(run, planned=planned)
    CatalogueRunRepository(tx).add(run)
    return run


class CatalogueRunner:
    """Works on one run of one channel. Use it once. `stop` may be called from any thread."""

    def __init__(self, channel: str, parts: RunParts) -> None:
        self._channel = channel
        self._parts = parts
        self._database = parts.database
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = asyncio.Event()
        self._traced_products, self._traced_commits = FirstSpans(_TRACED), FirstSpans(_TRACED)
        self._written_at = time.monotonic()
        self._ending = threading.Lock()
        self._over = False
        self.stopped = False
        """Whether it was asked to stop."""

    def stop(self) -> None:
        """Commit what is in work, and leave the run to the next start."""
        self.stopped = True
        self._parts.retry.stopped.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed: the run is over
                self._loop.call_soon_threadsafe(self._ended.set)

    async def run(
        self,
        *,
        requested_by: str,
        again: bool = False,
        start_over: bool = False,
        run_id: str | None = None,
        on_progress: OnProgress = lambda _: None,
    ) -> CatalogueRun:
        """Go on with the channel's unfinished run, or begin one: `again` also for products that have a suggestion.

        With `start_over` an unfinished run is given up first; with `run_id` only that run is continued. The run is
        finished when this returns, unless `stop` was called, or somebody cancelled it. Raises NothingWaiting;
        RunInProgress and RunLost for a run of another process; RunModelChanged; what opening the engine raises, and
        what ends every run: then the run is left to the next start.
        """
        self._loop = asyncio.get_running_loop()
        run = await asyncio.to_thread(self._claim, requested_by, again, start_over, run_id)
        about = {"shoplens.run": run.id, "shoplens.channel": run.channel}
        with (
            structlog.contextvars.bound_contextvars(run=run.id, channel=run.channel),
            trace("catalogue run", about, parent=os.environ.get(TRACEPARENT)),
        ):
            return await self._run_claimed(run, on_progress)

    async def _run_claimed(self, run: CatalogueRun, on_progress: OnProgress) -> CatalogueRun:
        owner = run.owner or ""
        heartbeat = asyncio.create_task(self._send_heartbeats(run.id, owner))
        work = asyncio.create_task(self._work(run, on_progress))
        try:
            await asyncio.wait({heartbeat, work}, return_when=asyncio.FIRST_COMPLETED)
            if heartbeat.done() and not work.done():
                work.cancel()
                with suppress(asyncio.CancelledError):
                    await work
                heartbeat.result()
            return work.result()
        except RunLost:
            ended = await asyncio.to_thread(self._read, run.id)
            if ended.cancelled_by is None:
                raise
            return ended
        except ShoplensError as error:
            await asyncio.to_thread(self._interrupt, run.id, owner, error.notice)
            raise
        finally:
            heartbeat.cancel()

    def _claim(self, requested_by: str, again: bool, start_over: bool, run_id: str | None) -> CatalogueRun:
        with self._database.reading() as tx:
            run = CatalogueRunRepository(tx).active(self._channel)
        if run_id is not None and (run is None or run.id != run_id):
            raise RunLost(f"The run {run_id} has ended, or was cancelled.")
        if run is not None and run.owner is not None:
            self._watch(run)
        now = self._parts.clock()
        me = this_process(int(now.timestamp() * 1000))
        try:
            with self._database.transaction() as tx:
                runs = CatalogueRunRepository(tx)
                if run is not None and start_over:
                    runs.give_up(run, now=now, reason=marked("It was given up for a new run."))
                    run = None
                run = run or add_run(tx, self._channel, again=again, requested_by=requested_by, now=now)
                runs.take_over(run, me, now=now)
                return runs.get(run.id)
        except (RecordRefused, RunLost) as error:
            raise RunInProgress(f"Another process has just begun with a run of {self._channel}.") from error

    def _watch(self, run: CatalogueRun) -> None:
        """Raises RunInProgress as soon as the owner of `run` shows that it is alive."""
        watch, takeover_s = self._parts.watch, self._parts.takeover_s
        until = watch.monotonic() + takeover_s
        while not has_ended(run) and watch.monotonic() < until:
            watch.sleep(takeover_s / _LOOKS_PER_WATCH)
            with self._database.reading() as tx:
                now = CatalogueRunRepository(tx).get(run.id)
            if now.heartbeat != run.heartbeat:
                raise RunInProgress(f"Process {now.pid} on {now.host} works on the run {run.id}.")

    async def _work(self, run: CatalogueRun, on_progress: OnProgress) -> CatalogueRun:
        opened = await asyncio.to_thread(self._parts.retry, partial(self._parts.open_engine, run.model))
        try:
            run = await asyncio.to_thread(self._parts.retry, partial(self._begin, run, opened))
            _log.info("catalogue.run_started", run=run.id, model=run.model, planned=run.planned, done=run.suggested)
            on_progress(run)
            while await self._pass(run, opened, on_progress):
                pass  # products that changed while they were looked at wait again
        finally:
            await opened.engine.close()
        if self.stopped:
            await asyncio.to_thread(self._interrupt, run.id, run.owner or "", "It was asked to stop.")
        else:
            await asyncio.to_thread(self._parts.retry, partial(self._finish, run))
        run = await asyncio.to_thread(self._read, run.id)
        _log.info("catalogue.run_ended", run=run.id, finished=run.finished_at is not None, suggested=run.suggested)
        return run

    def _begin(self, run: CatalogueRun, opened: RunEngine) -> CatalogueRun:
        if run.model is not None and run.model != opened.model:
            raise RunModelChanged(
                f"The run {run.id} began with {run.model}, and {opened.model} answers now. Serve {run.model} again, or "
                "begin with --new."
            )
        with self._database.transaction() as tx:
            waiting = ProductRepository(tx).count_waiting(self._channel, run_id=run.id, again=run.again)
            CatalogueRunRepository(tx).describe(
                run.id, owner=run.owner or "", model=opened.model, tree=opened.tree,
                planned=run.suggested + run.failed + waiting,
            )  # fmt: skip
            return CatalogueRunRepository(tx).get(run.id)

    async def _pass(self, run: CatalogueRun, opened: RunEngine, on_progress: OnProgress) -> int:
        """Look at every product that waits, once; how many there were."""
        waiting: asyncio.Queue[tuple[Product, tuple[ProductPhoto, ...]] | None] = asyncio.Queue(2 * _COMMIT)
        results: asyncio.Queue[SuggestedProduct | None] = asyncio.Queue(2 * _COMMIT)

        async def ask() -> None:
            while (item := await waiting.get()) is not None:
                with self._traced_products.span("product", {"shoplens.product": item[0].id}):
                    suggested = await self._ask(opened, *item)
                await results.put(suggested)
            await waiting.put(None)

        async def ask_all() -> None:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(opened.at_once):
                    tasks.create_task(ask())
            await results.put(None)

        try:
            async with asyncio.TaskGroup() as tasks:
                listed = tasks.create_task(self._list(run, waiting))
                tasks.create_task(ask_all())
                tasks.create_task(self._write(run, opened, results, on_progress))
        except BaseExceptionGroup as group:
            error: BaseException = group
            while isinstance(error, BaseExceptionGroup):  # the first error of a group caused the others
                error = error.exceptions[0]
            raise error from error.__cause__
        return 0 if self.stopped else listed.result()

    async def _list(
        self, run: CatalogueRun, waiting: asyncio.Queue[tuple[Product, tuple[ProductPhoto, ...]] | None]
    ) -> int:
        """Database → waiting products, a page in memory at a time."""
        after, count = "", 0
        while not self._ended.is_set():
            page = await asyncio.to_thread(self._parts.retry, partial(self._page, run, after))
            for product, photos in page:
                if self._ended.is_set():
                    break
                await waiting.put((product, photos))
                count += 1
            if not page:
                break
            after = page[-1][0].id
        await waiting.put(None)
        return count

    def _page(self, run: CatalogueRun, after: str) -> list[tuple[Product, tuple[ProductPhoto, ...]]]:
        with self._database.reading() as tx:
            products = ProductRepository(tx).waiting(
                run.channel, run_id=run.id, again=run.again, limit=_COMMIT, after=after
            )
            photos = ProductRepository(tx).photos_of(product.id for product in products)
        return [(product, photos.get(product.id, ())) for product in products]

    async def _ask(self, opened: RunEngine, product: Product, photos: tuple[ProductPhoto, ...]) -> SuggestedProduct:
        """A suggestion, for the text alone where the photos cannot be used; or why there is none."""
        fault: ShoplensError | None = None
        try:
            data = await asyncio.to_thread(self._parts.retry, partial(self._parts.products.read_photos, photos))
            suggestion = await self._suggest(opened, product, data)
            return SuggestedProduct(product=product, photos=photos, suggestion=suggestion)
        except ENDS_RUN:
            raise
        except (SampleError, ImageNotKept, RequestInvalid) as error:
            fault = error
        except ShoplensError as error:  # a deadline: the engine is busy or the photo costly
            return SuggestedProduct(product=product, photos=photos, failure=error)
        if photos and (product.designation or product.description):
            with suppress(SampleError, RequestInvalid):
                suggestion = await self._suggest(opened, product, ())
                return SuggestedProduct(product=product, photos=photos, suggestion=suggestion, failure=fault)
        return SuggestedProduct(product=product, photos=photos, failure=fault)

    async def _suggest(self, opened: RunEngine, product: Product, photos: tuple[bytes, ...]) -> Suggestion:
        """Waits without limit for a place in a full queue, and within the retry policy for workers that are down."""
        request = SuggestRequest(
            designation=product.designation,
            description=product.description,
            photos=photos,
            timeout_s=self._parts.timeout_s,
            priority="batch",
        )
        while True:
            try:
                return await opened.suggest.suggest(request)
            except QueueFull as full:
                await asyncio.sleep(full.retry_after_s)
            except (QueueUnavailable, NoWorker):
                with suppress(QueueFull):
                    return await self._parts.retry.run(lambda: opened.suggest.suggest(request))

    async def _write(
        self,
        run: CatalogueRun,
        opened: RunEngine,
        results: asyncio.Queue[SuggestedProduct | None],
        on_progress: OnProgress,
    ) -> None:
        ended = False
        while not ended:
            batch: list[SuggestedProduct] = []
            due_at: float | None = None
            while len(batch) < _COMMIT:
                try:
                    async with asyncio.timeout_at(due_at):
                        result = await results.get()
                except TimeoutError:
                    break
                if result is None:
                    ended = True
                    break
                due_at = due_at or asyncio.get_running_loop().time() + _LATEST_COMMIT_S
                batch.append(result)
            if batch:
                with self._traced_commits.span("commit results", {"shoplens.items": len(batch)}):
                    written = await asyncio.to_thread(self._parts.retry, partial(self._commit, run, opened, batch))
                on_progress(written)

    def _commit(self, run: CatalogueRun, opened: RunEngine, batch: Sequence[SuggestedProduct]) -> CatalogueRun:
        now = self._parts.clock()
        with self._database.transaction() as tx:
            written = write_suggestions(tx, batch, now=now, run_id=run.id, encoder=opened.encoder)
            CatalogueRunRepository(tx).beat(
                run.id,
                owner=run.owner or "",
                now=now,
                suggested=sum(each.suggestion is not None for each in written),
                failed=sum(each.suggestion is None for each in written),
            )
            after = CatalogueRunRepository(tx).get(run.id)
        self._written_at = time.monotonic()
        return after

    def _read(self, run_id: str) -> CatalogueRun:
        with self._database.reading() as tx:
            return CatalogueRunRepository(tx).get(run_id)

    def _finish(self, run: CatalogueRun) -> None:
        mail = self._parts.mail
        write_mail = prepared(None if mail is None else partial(mail, run.id), run.id)
        with self._ending:
            with self._database.transaction() as tx:
                CatalogueRunRepository(tx).finish(run.id, owner=run.owner or "", now=self._parts.clock())
                write_mail(tx)
            self._over = True

    def _interrupt(self, run_id: str, owner: str, reason: str) -> None:
        try:
            with self._ending:
                with self._database.transaction() as tx:
                    CatalogueRunRepository(tx).interrupt(run_id, owner=owner, reason=reason)
                self._over = True
        except ShoplensError as error:  # the run keeps an owner that has ended, which the next start finds out
            _log.warning("catalogue.run_not_released", run=run_id, reason=str(error))

    async def _send_heartbeats(self, run_id: str, owner: str) -> None:
        """Show that this process is alive while no commit does. Raises RunLost."""
        every_s = self._parts.takeover_s / _BEATS_PER_TAKEOVER
        while True:
            await asyncio.sleep(every_s)
            if time.monotonic() - self._written_at >= every_s:
                with suppress(DatabaseUnavailable):  # the work waits for it too
                    await asyncio.to_thread(self._beat, run_id, owner)

    def _beat(self, run_id: str, owner: str) -> None:
        """Does nothing once this process has ended the run or given it up: the heartbeat may be on its way by then."""
        with self._ending:
            if self._over:
                return
            with self._database.transaction() as tx:
                CatalogueRunRepository(tx).beat(run_id, owner=owner, now=self._parts.clock())
