"""The engine without HTTP: the same photos through queue, threads, hashes, preprocessing and classifier."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench.children import Result, answer_requests
from shoplens.cli.process import keep_freed_memory
from shoplens.platform.parts import build_channels, build_engine, build_sandbox
from shoplens.serving.engine import ClassifyRequest
from shoplens.serving.local import LocalEngine
from shoplens.settings import Settings, read_settings
from shoplens.telemetry.metrics import Metrics
from shoplens.testing import cost


def main() -> None:
    """Answer requests for measurements until standard input ends."""
    keep_freed_memory()
    settings = read_settings()
    channels = {"look": build_channels(settings)["look"]}
    engine = build_engine(settings, channels, metrics=Metrics(), sandbox=build_sandbox(settings))
    with asyncio.Runner() as runner:
        answer_requests(
            lambda request: runner.run(measure(engine, settings, request.photos(), request.threads, request.seconds))
        )


async def measure(engine: LocalEngine, settings: Settings, photos: list[bytes], threads: int, seconds: float) -> Result:
    """Twice as many callers as threads, so that no thread ever waits for one."""
    model = Path(settings.channels["look"].model).name
    latencies: list[float] = []

    async def caller(index: int) -> None:
        at = index
        while (started := time.perf_counter()) < stop_at:
            await engine.classify(
                ClassifyRequest(model=model, images=(photos[at % len(photos)],), top_k=10, timeout_s=30)
            )
            at += 1
            latencies.append(time.perf_counter() - started)

    before = cost.read()
    stop_at = time.perf_counter() + seconds
    await asyncio.gather(*(caller(index) for index in range(2 * threads)))
    return Result.of(images=len(latencies), before=before, after=cost.read(), latencies_s=latencies)


if __name__ == "__main__":
    main()
