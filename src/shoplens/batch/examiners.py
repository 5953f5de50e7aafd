"""The hands of a night in this process: a few tasks that read photos and bring them to the engine, bounded in bytes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from shoplens.batch.entities import BatchItem
from shoplens.batch.examine import ExamineItem, NightMustEnd, Photo
from shoplens.batch.shift import Bounds, Desk

_READ_TOGETHER: Final = 4


class Examiners:
    """Takes items one by one to their verdicts, many at once, and never more than `bounds` allow in memory."""

    def __init__(self, examine: ExamineItem, bounds: Bounds) -> None:
        self._examine = examine
        self._bounds = bounds
        self._room = Room(bounds.photo_bytes)
        self._together = max(1, min(_READ_TOGETHER, bounds.photos // 3))

    @property
    def bounds(self) -> Bounds:
        """See Hands."""
        return self._bounds

    async def work(self, desk: Desk) -> None:
        """See Hands."""
        tasks = -(-self._bounds.photos // self._together)
        examiners = [asyncio.create_task(self._examiner(desk)) for _ in range(tasks)]
        try:
            await asyncio.gather(*examiners)
        finally:
            for each in examiners:
                each.cancel()
            await asyncio.gather(*examiners, return_exceptions=True)

    async def _examiner(self, desk: Desk) -> None:
        """A few items are read at once: going to another thread and back costs as much as reading does."""
        while True:
            items = await desk.next_items(self._together)
            async with self._room.for_bytes(sum(item.byte_count for item in items)):
                photos = await self._examine.read(items)
                for item, photo in zip(items, photos, strict=True):
                    await self._examine_one(desk, item, photo)

    async def _examine_one(self, desk: Desk, item: BatchItem, photo: Photo) -> None:
        if desk.stopping:
            desk.put_back(1)
            return
        try:
            desk.take(await self._examine(item, photo))
        except NightMustEnd as end:
            desk.abandon(end.reason)
            desk.put_back(1)


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
