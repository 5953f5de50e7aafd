"""A model worker on the event loop of a test, over a real queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any, Final

from shoplens.platform.parts import build_sandbox
from shoplens.platform.workers import WorkerParts, build_worker
from shoplens.settings import Settings

ONLY_LOOK: Final[dict[str, Any]] = {
    "look": {"model": "efficientnet-lite0-int8"},
    "reviews": {"model": "efficientnet-lite0-int8", "labels": {}},
    "returns": {"model": "efficientnet-lite0-int8"},
}
"""Channels that need one model alone."""


async def until(holds: Callable[[], Any], *, within_s: float = 60.0) -> None:
    """Wait until something holds, or what it returns does when awaited; fails when it does not in time."""
    give_up_at = time.monotonic() + within_s
    while True:
        held = holds()
        if await held if isawaitable(held) else held:
            return
        where = f"{holds.__code__.co_filename}:{holds.__code__.co_firstlineno}" if hasattr(holds, "__code__") else holds
        assert time.monotonic() < give_up_at, f"the condition at {where} did not hold within {within_s:g} s"
        await asyncio.sleep(0.01)


@asynccontextmanager
async def running_worker(settings: Settings) -> AsyncIterator[WorkerParts]:
    """It is announced when the block begins, and has left when the block has ended."""
    parts = build_worker(settings, models=(), sandbox=build_sandbox(settings))
    running = asyncio.create_task(parts.worker.run())
    try:
        await until(lambda: parts.worker.fault is None or running.done())
        await asyncio.sleep(0.05)
        yield parts
    finally:
        parts.worker.stop()
        await running
        await asyncio.to_thread(parts.follower.close)
        await parts.engine.close()
