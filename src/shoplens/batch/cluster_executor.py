"""A night's crew on a cluster: the driver leases and settles as ever, nodes read the photos and classify them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from shoplens.batch.cluster.plan import ClusterOutcome, ClusterPhoto
from shoplens.batch.crew import Tools
from shoplens.batch.entities import BatchItem
from shoplens.batch.examine import JudgeItem, is_shown
from shoplens.batch.shift import Bounds, Desk, Hands
from shoplens.batch.verdicts import Verdict
from shoplens.bundles.manifest import ModelRef
from shoplens.errors import ShoplensError
from shoplens.storage import Store

_COLLECTED_WITHIN_S: Final = 0.5
_AGAIN_AFTER_S: Final = 1.0
_MOST_TIMES_AWAY: Final = 5
_SHARE_OF_A_COMMIT: Final = 8
_SHARE_OF_A_LEASE: Final = 4
_LARGEST_BATCH: Final = 1_000
_log: Final = structlog.get_logger(__name__)


class PhotoCluster(Protocol):
    """Classifies photos by their keys. All verbs block. Every photo that was given comes back once, or is withdrawn."""

    def give(self, photos: Sequence[ClusterPhoto]) -> None:
        """Have these worked on."""
        ...

    def collect(self, wait_s: float) -> list[ClusterOutcome]:
        """What came back by now, within about `wait_s`. Raises ClusterUnavailable."""
        ...

    def withdraw(self) -> list[str]:
        """Take back what was not begun; the ids of those photos. Nothing can be given after that."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A cluster that is ready. `photos` is how many may be under way so that nobody there waits for more."""

    cluster: PhotoCluster
    model: ModelRef
    photos: int


class ClusterCrew:
    """Joins the cluster when it is made, which blocks, and leaves it when it is closed."""

    def __init__(self, join: AbstractContextManager[Joined]) -> None:
        self._stack = ExitStack()
        self._joined = self._stack.enter_context(join)

    @property
    def model(self) -> ModelRef:
        """See Crew."""
        return self._joined.model

    def hands(self, tools: Tools) -> Hands:
        """See Crew."""
        return ClusterHands(self._joined.cluster, tools, photos=self._joined.photos)

    async def close(self) -> None:
        """See Crew."""
        await asyncio.to_thread(self._stack.close)


class ClusterHands:
    """Gives items away as they are leased, and makes verdicts of what comes back. Photos never come to this process."""

    def __init__(self, cluster: PhotoCluster, tools: Tools, *, photos: int) -> None:
        self._cluster = cluster
        self._tools = tools
        self._judge = JudgeItem(
            store=tools.store, channel=tools.channel, max_attempts=tools.rules.max_attempts, clock=tools.clock
        )
        batch = max(tools.bounds.batch, min(_LARGEST_BATCH, photos // _SHARE_OF_A_COMMIT))
        self._bounds = Bounds(
            batch=batch,
            photos=photos,
            photo_bytes=tools.bounds.photo_bytes,
            least_lease=max(1, photos // _SHARE_OF_A_LEASE),
        )
        self._out: dict[str, BatchItem] = {}
        self._times_away: Counter[str] = Counter()

    @property
    def bounds(self) -> Bounds:
        """See Hands. Enough of a commit that its price is small for many nodes, too."""
        return self._bounds

    async def work(self, desk: Desk) -> None:
        """See Hands."""
        giving = asyncio.create_task(self._give(desk))
        try:
            await self._collect(desk, giving)
        finally:
            giving.cancel()
            await asyncio.gather(giving, return_exceptions=True)

    async def _give(self, desk: Desk) -> None:
        while True:
            items = await desk.next_items(self._bounds.photos)
            self._out.update((item.id, item) for item in items)
            await asyncio.to_thread(self._cluster.give, [_photo_of(item) for item in items])

    async def _collect(self, desk: Desk, giving: asyncio.Task[None]) -> None:
        withdrawn = False
        while True:
            if giving.done():
                giving.result()
            if desk.stopping and not withdrawn:
                withdrawn = True
                self._put_back(desk, await asyncio.to_thread(self._cluster.withdraw))
            if not self._out:
                await asyncio.sleep(_COLLECTED_WITHIN_S / 10)
                continue
            outcomes = await asyncio.to_thread(self._cluster.collect, _COLLECTED_WITHIN_S)
            await self._settle(desk, outcomes)

    async def _settle(self, desk: Desk, outcomes: Sequence[ClusterOutcome]) -> None:
        seen = [each for each in outcomes if not each.away]
        for verdict in await asyncio.to_thread(lambda: [self._verdict(each) for each in seen]):
            del self._out[verdict.item.id]
            self._times_away.pop(verdict.item.id, None)
            desk.take(verdict)
        if away := [each for each in outcomes if each.away]:
            await self._again(desk, away)

    def _verdict(self, found: ClusterOutcome) -> Verdict:
        item = self._out[found.id]
        if not isinstance(found.outcome, ShoplensError):
            return self._judge.answered(item, found.outcome)
        verdict = self._judge.failed(item, found.outcome)
        return self._judge.keep_thumbnail(verdict, lambda: found.salvaged) if is_shown(verdict) else verdict

    async def _again(self, desk: Desk, away: Sequence[ClusterOutcome]) -> None:
        """A node could not reach the store: wait for it here, and have the photos worked on anew, perhaps elsewhere.

        Raises the node's reason when one photo met that too often, and StorageUnavailable.
        """
        self._times_away.update(each.id for each in away)
        _log.warning("night.node_cut_off", photos=len(away), reason=str(away[0].outcome))
        for each in away:
            if self._times_away[each.id] >= _MOST_TIMES_AWAY and isinstance(each.outcome, ShoplensError):
                raise each.outcome
        await asyncio.to_thread(self._tools.patience, self._tools.store.check)
        if desk.stopping:
            self._put_back(desk, [each.id for each in away])
            return
        await asyncio.sleep(_AGAIN_AFTER_S)
        await asyncio.to_thread(self._cluster.give, [_photo_of(self._out[each.id]) for each in away])

    def _put_back(self, desk: Desk, ids: Sequence[str]) -> None:
        for each in ids:
            self._out.pop(each, None)
        desk.put_back(len(ids))


def share_marker(store: Store, *, folder: str, name: str) -> str:
    """The key of something by which nodes know that they see the same store; earlier ones are removed."""
    for key in list(store.list(folder)):
        store.delete(key)
    key = f"{folder}/{name}"
    store.put(key, name.encode())
    return key


def _photo_of(item: BatchItem) -> ClusterPhoto:
    return ClusterPhoto(id=item.id, key=item.key, sha256=item.sha256)
