"""One run over so many photos, everything included: reading, rows, moves and the report. One JSON line each way.

The items are made before the clock starts, as an import would have left them; each has unique content, because a
number is appended to the picture. The clock runs from the first query for waiting items until the run is finished.
Loading the model is reported separately; the raw loop does not count it either.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from shoplens.batch.entities import BatchItem, ItemState, RunState, incoming_key
from shoplens.batch.repository import ItemRepository
from shoplens.batch.status import RunProgress
from shoplens.cli.process import keep_freed_memory, run_on_loop
from shoplens.db.tables import make_id
from shoplens.platform.batch import ExecutorName, build_runner
from shoplens.platform.parts import build_database
from shoplens.settings import Settings, read_settings
from shoplens.storage import open_store
from shoplens.telemetry.logs import configure_logs
from shoplens.testing import cost

_PER_COMMIT = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """So many items with the photos of a folder in turn, in a data directory that is removed afterwards.

    `engine` is that of the run.
    """

    folder: str
    items: int
    data_dir: str
    models_dir: str
    model: str
    engine: ExecutorName = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchResult:
    """`wall_s` without loading the model, `start_s` for that; `halves_s` for each half of the items.

    `end_s` is the part of `wall_s` after the last item was committed: last moves, report, end of the run.
    """

    items: int
    wall_s: float
    start_s: float
    cpu_s: float
    halves_s: tuple[float, float]
    end_s: float
    peak_mb: float

    @property
    def per_second(self) -> float:
        """Items per second."""
        return self.items / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per item."""
        return 1e3 * self.cpu_s / self.items


def main() -> None:
    """Answer one request."""
    keep_freed_memory()
    request = BatchRequest(**json.loads(sys.stdin.readline()))
    try:
        print(json.dumps(asdict(measure(request))))
    finally:
        shutil.rmtree(request.data_dir)


def measure(request: BatchRequest) -> BatchResult:
    """Bring the photos in, then work through them."""
    settings = read_settings(
        data_dir=request.data_dir,
        models_dir=request.models_dir,
        channels={"returns": {"model": request.model, "accept_at": 0.8, "keep": "original", "batch": {}}},
        default_channel="returns",
    )
    configure_logs(log_format="json", level="warning")
    _bring(settings, request)
    return run_on_loop(_work(settings, request.items, request.engine))


async def _work(settings: Settings, items: int, engine: ExecutorName) -> BatchResult:
    began = time.perf_counter()
    first: list[cost.Reading] = []
    half: list[float] = []
    last = [0.0]

    def note(progress: RunProgress) -> None:
        if not first:
            first.append(cost.read())
        if not half and progress.settled >= items // 2:
            half.append(time.perf_counter())
        last[0] = time.perf_counter()

    with build_runner(settings, "returns", executor=engine) as runner:
        run = await runner.run(requested_by="bench", on_progress=note)
    after = cost.read()
    if run.state is not RunState.FINISHED or run.planned != items:
        raise RuntimeError(f"the run did not do its work: {run}")
    return BatchResult(
        items=items,
        wall_s=after.at_s - first[0].at_s,
        start_s=first[0].at_s - began,
        cpu_s=after.cpu_s - first[0].cpu_s,
        halves_s=(half[0] - first[0].at_s, last[0] - half[0]),
        end_s=after.at_s - last[0],
        peak_mb=cost.peak_megabytes(),
    )


def _bring(settings: Settings, request: BatchRequest) -> None:
    database = build_database(settings)
    waiting = _arrivals(settings, request)
    while part := list(islice(waiting, _PER_COMMIT)):
        with database.transaction() as tx:
            ItemRepository(tx).add_many(part)
    database.close()


def _arrivals(settings: Settings, request: BatchRequest) -> Iterator[BatchItem]:
    store = open_store(settings.effective_storage_url)
    photos = [path.read_bytes() for path in sorted(Path(request.folder).iterdir())]
    now = datetime.now(UTC)
    for number in range(request.items):
        data = photos[number % len(photos)] + number.to_bytes(8)
        item_id = make_id(int(now.timestamp() * 1000) + number, os.urandom(10))
        key = incoming_key("returns", item_id, "photo.jpg", "jpg")
        store.put(key, data)
        yield BatchItem(
        channel="returns",
            id=item_id, received_at=now, source_name=f"{number}.jpg", sha256=hashlib.sha256(data).hexdigest(),
            byte_count=len(data), state=ItemState.WAITING, key=key,
        )  # fmt: skip


def run_batch(wanted: BatchRequest) -> BatchResult:
    """Run this module in a process of its own."""
    Path(wanted.data_dir).mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "bench.batch_loop"], input=json.dumps(asdict(wanted)), stdout=subprocess.PIPE, text=True,
        check=True,
    )  # fmt: skip
    facts = json.loads(done.stdout.splitlines()[-1])
    return BatchResult(**{**facts, "halves_s": tuple(facts["halves_s"])})


if __name__ == "__main__":
    main()
