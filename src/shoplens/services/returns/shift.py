"""Keep every worker busy until nothing waits: lease ahead, examine many at once, commit in batches, then move.

Three things run beside each other. Examiners take leased items one by one and hand their photos to the engine; they
never wait for the database. One clerk commits what came out, leases more in the same transaction, and brings the
photos of what was committed to where they belong. All that is in memory is bounded: leased rows by two batches, photos
by their number and their bytes.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from shoplens.domain.returns import ItemState, ReturnItem
from shoplens.errors import DeadlineExceeded, EngineStopped, ShoplensError
from shoplens.services.returns.examine import ExamineItem, NightMustEnd, Photo
from shoplens.services.returns.ledger import Batch, Committed, Ledger
from shoplens.services.returns.moves import Moved, MovePhotos
from shoplens.services.returns.patience import Patience
from shoplens.services.returns.verdicts import Verdict

OnSettled = Callable[[Sequence[ItemState]], None]

_BATCHES_AHEAD: Final = 2
_READ_TOGETHER: Final = 4
_LATEST_COMMIT_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Items that share a commit, and how many photos (about) and bytes of photos are in memory at most."""

    batch: int
    photos: int
    photo_bytes: int


class Shift:
    """One stretch of work on a run. Use it once."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        examine: ExamineItem,
        movers: MovePhotos,
        patience: Patience,
        bounds: Bounds,
        on_settled: OnSettled,
        on_finished: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._examine = examine
        self._movers = movers
        self._patience = patience
        self._bounds = bounds
        self._on_settled = on_settled
        self._on_finished = on_finished
        self._monotonic = monotonic
        self._leased: asyncio.Queue[ReturnItem] = asyncio.Queue()
        self._room = Room(bounds.photo_bytes)
        self._together = max(1, min(_READ_TOGETHER, bounds.photos // 3))
        self._verdicts: deque[tuple[float, Verdict]] = deque()
        self._changed = asyncio.Event()
        self._in_work = 0
        self._late_in_a_row = 0
        self._stopping = False
        self._fatal: ShoplensError | None = None

    def stop(self) -> None:
        """Finish what is in work, commit it, and begin nothing new. For the thread of the event loop."""
        self._stopping = True
        self._changed.set()

    def abandon(self, error: ShoplensError) -> None:
        """Begin nothing new, and raise `error` once what is in work has ended. For the thread of the event loop."""
        self._fatal = self._fatal or error
        self.stop()

    async def run(self) -> None:
        """Returns when nothing waits any more, or after `stop`. Raises RunLost, Unavailable."""
        tasks = -(-self._bounds.photos // self._together)
        examiners = [asyncio.create_task(self._examiner()) for _ in range(tasks)]
        try:
            await self._clerk()
        finally:
            for each in examiners:
                each.cancel()
            await asyncio.gather(*examiners, return_exceptions=True)
        if self._fatal is not None:
            raise self._fatal

    async def _examiner(self) -> None:
        while True:
            items = await self._next_items()
            if self._stopping:
                continue  # they stay leased; whoever ends the night gives them back
            self._in_work += len(items)
            async with self._room.for_bytes(sum(item.byte_count for item in items)):
                photos = await self._examine.read(items)
                for item, photo in zip(items, photos, strict=True):
                    await self._examine_one(item, photo)

    async def _next_items(self) -> list[ReturnItem]:
        """A few that are read at once: going to another thread and back costs as much as reading does."""
        items = [await self._leased.get()]
        while len(items) < self._together and not self._leased.empty():
            items.append(self._leased.get_nowait())
        return items

    async def _examine_one(self, item: ReturnItem, photo: Photo) -> None:
        try:
            if not self._stopping:
                self._take(await self._examine(item, photo))
        except NightMustEnd as end:
            self.abandon(end.reason)
        finally:
            self._in_work -= 1
            if self._is_due():
                self._changed.set()

    def _take(self, verdict: Verdict) -> None:
        now = self._monotonic()
        self._verdicts.append((now, verdict))
        if len(self._verdicts) == 1:
            self._changed.set()  # from now on the clerk counts how long it waits
        if verdict.settlement.failure_code != DeadlineExceeded.code:
            self._late_in_a_row = 0
            self._on_finished()
            return
        self._late_in_a_row += 1
        if self._late_in_a_row >= self._bounds.photos:
            self.abandon(EngineStopped("No photo was answered for so long that the models must be stuck."))

    async def _clerk(self) -> None:
        moved = Moved()
        while True:
            await self._wait_for_work()
            verdicts = [verdict for _, verdict in self._verdicts]
            self._verdicts.clear()
            done = await self._commit(Batch(verdicts=verdicts, moved=moved, lease=self._wanted()))
            for item in done.leased:
                self._leased.put_nowait(item)
            self._on_settled([each.settlement.state for each in done.verdicts if each.settled])
            moved = await self._move(done.verdicts)
            if not moved and self._is_over():
                return

    async def _wait_for_work(self) -> None:
        """Until a batch is full, the oldest verdict is old enough, or nothing more will come by itself."""
        while not self._is_due():
            self._changed.clear()
            left_s = None
            if self._verdicts:
                left_s = max(0.0, self._verdicts[0][0] + _LATEST_COMMIT_S - self._monotonic())
            try:
                async with asyncio.timeout(left_s):
                    await self._changed.wait()
            except TimeoutError:
                return

    def _is_due(self) -> bool:
        return len(self._verdicts) >= self._bounds.batch or not self._under_way()

    def _is_over(self) -> bool:
        return not self._verdicts and not self._under_way()

    def _under_way(self) -> bool:
        """Whether items are leased whose verdicts will come."""
        return self._in_work > 0 or (not self._stopping and not self._leased.empty())

    def _wanted(self) -> int:
        if self._stopping:
            return 0
        ahead = _BATCHES_AHEAD * self._bounds.batch + self._bounds.photos
        return max(0, ahead - self._leased.qsize() - self._in_work)

    async def _commit(self, batch: Batch) -> Committed:
        return await asyncio.to_thread(self._patience, lambda: self._ledger.commit(batch))

    async def _move(self, verdicts: Sequence[Verdict]) -> Moved:
        moves = [move for verdict in verdicts if (move := verdict.move) is not None]
        if not moves:
            return Moved()
        return await asyncio.to_thread(self._patience, lambda: self._movers(moves))


class Room:
    """Lets tasks of one event loop in while what they hold together is within `limit` bytes; one is always let in."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._waiting: deque[asyncio.Event] = deque()

    @asynccontextmanager
    async def for_bytes(self, count: int) -> AsyncIterator[None]:
        """Hold `count` bytes within the block, waiting for room in turn."""
        while self._held and self._held + count > self._limit:
            freed = asyncio.Event()
            self._waiting.append(freed)
            await freed.wait()
        self._held += count
        try:
            yield
        finally:
            self._held -= count
            while self._waiting:
                self._waiting.popleft().set()
