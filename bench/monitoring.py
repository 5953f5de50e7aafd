"""What monitoring costs: per photo, in bytes for 90 days, and the page with 90 days full.

    python -m bench.monitoring [--photos 80] [--series 8]

The database is full: every one of `--series` channels and models was asked for something in every minute, hour and day
that is kept. Times are processor times of this process, medians of several rounds, so that a busy machine matters
little. The share is what counting a request and writing every minute cost beside a photo of 1 MP on the default model,
through the use case that `POST /predict` calls.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

import httpx

from bench.__main__ import heading
from bench.photos import SIZES
from bench.photos import photos as make_photos
from shoplens.bundles.builtin import prepare_builtin
from shoplens.db import open_database, upgrade
from shoplens.monitoring.series.day_repository import DayRepository
from shoplens.monitoring.series.entities import (
    DAY_S,
    HOUR_S,
    MINUTE_S,
    SERVER,
    Counts,
    DayCounts,
    MinuteReading,
    Range,
    SeriesKey,
    ServerState,
)
from shoplens.monitoring.series.recorder import Kept
from shoplens.monitoring.series.repository import SeriesRepository
from shoplens.platform.server import Platform, build_platform
from shoplens.serving.cores import usable_cores
from shoplens.settings import read_settings
from shoplens.telemetry.metrics import LATENCY_BUCKETS_S, Metrics
from shoplens.web.app import create_app

MODEL: Final = "efficientnet-lite0-int8"
_DAYS: Final = 90
_REQUESTS: Final = 50_000
_MINUTES: Final = 60
_RATES: Final = (1, 10, 50)
_ROUNDS: Final = 9


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=80)
    parser.add_argument("--series", type=int, default=8)
    options = parser.parse_args()
    print(heading(usable_cores()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_builtin(MODEL, folder / "models")
        url = f"sqlite:///{folder}/shoplens.db"
        empty, full = fill(url, options.series)
        print(f"\n90 days of {options.series} series: {(full - empty) / 1e6:.1f} MB (aim: at most 20 MB)")
        channels: dict[str, dict[str, object]] = {
            name: {"model": MODEL, "batch": None, "moderation": None, "catalogue": None, "labels": {}}
            for name in ("look", "returns", "reviews", "catalogue")
        }
        platform = build_platform(read_settings(data_dir=folder, models_dir=folder / "models", channels=channels))
        asyncio.run(measure(platform, options.photos))


async def measure(platform: Platform, photos: int) -> None:
    """Print the cost per photo, and that of the page."""
    each_ms = await photo_ms(platform, photos)
    count_ms = _median_ms(_count_requests) / _REQUESTS
    recorder = platform.monitoring.recorder
    assert recorder is not None
    now_s = int(time.time()) // MINUTE_S * MINUTE_S

    def write_an_hour() -> None:
        for minute in range(_MINUTES):
            for channel in platform.channels:
                with platform.metrics.request_of(channel, MODEL):
                    pass
            recorder.record(now_s - MINUTE_S * minute)
            if minute % 10 == 0:
                recorder.keep_house()

    minute_ms = _median_ms(write_an_hour, rounds=3) / _MINUTES
    print(
        f"A photo takes {each_ms:.2f} ms, counting it {count_ms * 1000:.1f} us, a minute's figures {minute_ms:.2f} ms."
    )
    print("\n| photos per second | monitoring, us per photo | of the photo |\n|---|---|---|")
    for rate in _RATES:
        cost_ms = count_ms + minute_ms / MINUTE_S / rate
        print(f"| {rate} | {cost_ms * 1000:.1f} | {cost_ms / each_ms:.2%} |")
    transport = httpx.ASGITransport(app=create_app(platform))
    print("\n| page | CPU ms | KB |\n|---|---|---|")
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for each in Range:
            times, size = [], 0
            for _ in range(_ROUNDS):
                started = time.process_time()
                answer = await client.get(f"/console/monitoring?range={each.value.name}")
                times.append(1000 * (time.process_time() - started))
                size = len(answer.raise_for_status().content)
            print(f"| {each.value.title} | {statistics.median(times):.0f} | {size / 1000:.0f} |")
    await platform.close()


def fill(url: str, series: int) -> tuple[int, int]:
    """The bytes of the database before and after every step that is kept is full."""
    upgrade(url)
    random = Random(1)
    keys = [SeriesKey(SERVER), *(SeriesKey(f"channel-{index}", MODEL) for index in range(series - 1))]
    end = int(time.time()) // MINUTE_S * MINUTE_S
    state = ServerState(
        queue=3,
        workers=2,
        storage_bytes=1 << 38,
        database_bytes=1 << 31,
        disk_free_bytes=1 << 37,
        disk_total_bytes=1 << 39,
    )
    database = open_database(url)
    with database.reading() as tx:
        empty = SeriesRepository(tx).database_bytes()
    for day in range(end // DAY_S * DAY_S - (_DAYS - 1) * DAY_S, end, DAY_S):
        detailed = day >= end - 3 * DAY_S
        readings = [
            MinuteReading(
                begins_s=at,
                counts={key: _counts(random) for key in keys} if detailed or at % HOUR_S == 0 else {},
                state=state,
            )
            for at in range(day, min(day + DAY_S, end), MINUTE_S)
        ]
        with database.transaction() as tx:
            repository = SeriesRepository(tx)
            if readings:
                repository.add(readings)
            for step_s, keep in Kept().steps.items():
                repository.prune(step_s, keep=keep)
            counts = [
                DayCounts(begins_s=day, channel=key.channel, predictions=9_000, accepted=8_000, to_review=1_000)
                for key in keys[1:]
            ]
            DayRepository(tx).replace(day, counts, now=datetime.now(UTC))
    with database.reading() as tx:
        full = SeriesRepository(tx).database_bytes()
    database.close()
    return empty, full


def _counts(random: Random) -> Counts:
    latency = tuple(random.randint(0, 90) for _ in range(len(LATENCY_BUCKETS_S) + 1))
    answered = sum(latency)
    return Counts(
        answered=answered,
        accepted=answered - 20,
        to_review=15,
        rejected=5,
        refused=random.randint(0, 9),
        busy=random.randint(0, 3),
        failed=random.randint(0, 2),
        latency_sum_s=answered * random.uniform(0.01, 0.02),
        latency=latency,
    )


async def photo_ms(platform: Platform, count: int) -> float:
    """Processor time of one photo of 1 MP, in all threads of this process."""
    photos = make_photos(SIZES[1], count=count)
    channel = platform.channels["look"]
    for photo in photos[:8]:
        await platform.predictions.classify(photo, channel=channel, timeout_s=30)
    started = time.process_time()
    for photo in photos:
        await platform.predictions.classify(photo, channel=channel, timeout_s=30)
    return 1000 * (time.process_time() - started) / len(photos)


def _count_requests() -> None:
    metrics = Metrics()
    for _ in range(_REQUESTS):
        with metrics.request_of("returns", "clothing"):
            pass


def _median_ms(work: Callable[[], None], *, rounds: int = 5) -> float:
    times = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        times.append(1000 * (time.process_time() - started))
    return statistics.median(times)


if __name__ == "__main__":
    main()
