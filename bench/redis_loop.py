"""The engine behind the queue, without HTTP: what a web process does to have photos classified by workers.

Its settings name the queue. Answers requests for measurements as `bench.raw_loop` does, and counts its own CPU alone.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import uvloop

from bench.children import Request, Result
from shoplens.platform.parts import build_channels
from shoplens.platform.workers import build_redis_engine
from shoplens.serving.engine import ClassifyRequest, Engine
from shoplens.settings import read_settings
from shoplens.telemetry.metrics import Metrics
from shoplens.testing import cost

_CALLERS_PER_WORKER = 4


def main() -> None:
    """Answer requests for measurements until standard input ends."""
    settings = read_settings()
    channels = {"look": build_channels(settings)["look"]}
    uvloop.run(_answer_requests(build_redis_engine(settings, channels, metrics=Metrics())))


async def _answer_requests(engine: Engine) -> None:
    """The loop keeps running between requests, as that of a web server does."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        result = await measure(engine, Request(**json.loads(line)))
        print(json.dumps(asdict(result)), flush=True)


async def measure(engine: Engine, request: Request) -> Result:
    """`threads` is how many workers there are: so many callers for each that none of them ever waits for a photo."""
    photos, latencies = request.photos(), list[float]()
    model = Path(request.model).parents[1].name

    async def caller(index: int) -> None:
        at = index
        while (started := time.perf_counter()) < stop_at:
            await engine.classify(
                ClassifyRequest(model=model, images=(photos[at % len(photos)],), top_k=10, timeout_s=30)
            )
            at += 1
            latencies.append(time.perf_counter() - started)

    before = cost.read()
    stop_at = time.perf_counter() + request.seconds
    await asyncio.gather(*(caller(index) for index in range(_CALLERS_PER_WORKER * request.threads)))
    return Result.of(images=len(latencies), before=before, after=cost.read(), latencies_s=latencies)


if __name__ == "__main__":
    main()
