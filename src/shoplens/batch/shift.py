"""Keep whoever works busy until nothing waits: lease ahead, hand out, commit verdicts in batches, then move photos.

Two things run beside each other. The hands take leased items from here and bring their verdicts back; they never wait
for the database, and whether they work in this process or on a cluster is their own affair. One clerk commits what came
back, leases more in the same transaction, and brings the photos of what was committed to where they belong. All that is
in memory is bounded: leased rows by two batches and what the hands hold.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from shoplens.batch.entities import BatchItem, ItemState
from shoplens.batch.ledger import Batch, Committed, Ledger
from shoplens.batch.moves import Moved, MovePhotos
from shoplens.batch.patience import Patience
from shoplens.batch.verdicts import Verdict
from shoplens.errors import DeadlineExceeded, EngineStopped, ShoplensError

OnSettled = Callable[[Sequence[ItemState]], None]

_BATCHES_AHEAD: Final = 2
_LATEST_COMMIT_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Items that share a commit, and how many photos (about) and bytes of photos are in memory at most.

    No fewer than `least_lease` are leased at a time, while others are in work: hands that divide them want many.
    """

    batch: int
    photos: int
    photo_bytes: int
    least_lease: int = 1


class Desk(Protocol):
    """Where hands get their work and leave what came of it. All of it is for the thread of the event loop."""

    @property
    def stopping(self) -> bool:
        """Whether nothing new is to be begun."""
        ...

    async def next_items(self, most: int) -> list[BatchItem]:
        """One leased item or more, as soon as there are any; never any while it is stopping."""
        ...

    def take(self, verdict: Verdict) -> None:
        """What came of one of them."""
        ...

    def put_back(self, count: int) -> None:
        """So many were not worked on. They stay leased; whoever ends the night gives them back."""
        ...

    def abandon(self, error: ShoplensError) -> None:
        """Begin nothing new, and end the night with `error` once what is in work has ended."""
        ...


class Hands(Protocol):
    """Who makes verdicts out of items."""

    @property
    def bounds(self) -> Bounds:
        """How much they can hold, and how many verdicts are worth a commit."""
        ...

    async def work(self, desk: Desk) -> None:
        """Until cancelled. What is raised ends the night."""
        ...


class Shift:
    """One stretch of work on a run, and the desk of its hands. Use it once."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        hands: Hands,
        movers: MovePhotos,
        patience: Patience,
        on_settled: OnSettled,
        on_finished: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._hands = hands
        self._movers = movers
        self._patience = patience
        self._bounds = hands.bounds
        self._on_settled = on_settled
        self._on_finished = on_finished
        self._monotonic = monotonic
        self._leased: asyncio.Queue[BatchItem] = asyncio.Queue()
        self._verdicts: deque[tuple[float, Verdict]] = deque()
        self._changed = asyncio.Event()
        self._in_work = 0
        self._late_in_a_row = 0
        self._stopping = False
        self._fatal: ShoplensError | None = None

    @property
    def stopping(self) -> bool:
        """See Desk."""
        return self._stopping

    def stop(self) -> None:
        """Finish what is in work, commit it, and begin nothing new. For the thread of the event loop."""
        self._stopping = True
        self._changed.set()

    def abandon(self, error: ShoplensError) -> None:
        """See Desk."""
        self._fatal = self._fatal or error
        self.stop()

    async def run(self) -> None:
        """Returns when nothing waits any more, or after `stop`. Raises RunLost, Unavailable."""
        work = asyncio.create_task(self._hands.work(self))
        work.add_done_callback(self._hands_ended)
        try:
            await self._clerk()
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        if self._fatal is not None:
            raise self._fatal

    async def next_items(self, most: int) -> list[BatchItem]:
        """See Desk."""
        while True:
            items = [await self._leased.get()]
            while len(items) < most and not self._leased.empty():
                items.append(self._leased.get_nowait())
            if not self._stopping:  # else they stay leased; whoever ends the night gives them back
                self._in_work += len(items)
                return items

    def take(self, verdict: Verdict) -> None:
        """See Desk."""
        now = self._monotonic()
        self._verdicts.append((now, verdict))
        if len(self._verdicts) == 1:
            self._changed.set()  # from now on the clerk counts how long it waits
        self._note_lateness(verdict)
        self.put_back(1)

    def put_back(self, count: int) -> None:
        """See Desk."""
        self._in_work -= count
        if self._is_due():
            self._changed.set()

    def _note_lateness(self, verdict: Verdict) -> None:
        if verdict.settlement.failure_code != DeadlineExceeded.code:
            self._late_in_a_row = 0
            self._on_finished()
            return
        self._late_in_a_row += 1
        if self._late_in_a_row >= self._bounds.photos:
            self.abandon(EngineStopped("No photo was answered for so long that the models must be stuck."))

    def _hands_ended(self, work: asyncio.Task[None]) -> None:
        """They work until they are cancelled; what they hold otherwise comes to no verdict any more."""
        if work.cancelled():
            return
        error = work.exception()
        stopped = EngineStopped(f"Whoever worked on the photos ended early: {error!r}")
        stopped.__cause__ = error
        self._in_work = 0
        self.abandon(error if isinstance(error, ShoplensError) else stopped)

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
        wanted = ahead - self._leased.qsize() - self._in_work
        return wanted if wanted >= self._bounds.least_lease else 0

    async def _commit(self, batch: Batch) -> Committed:
        return await asyncio.to_thread(self._patience, lambda: self._ledger.commit(batch))

    async def _move(self, verdicts: Sequence[Verdict]) -> Moved:
        moves = [move for verdict in verdicts if (move := verdict.move) is not None]
        if not moves:
            return Moved()
        return await asyncio.to_thread(self._patience, lambda: self._movers(moves))
