"""`python -m bench.redis_engine`: models in workers behind Valkey, against the raw loop and the engine in one process.

Three tables out of one run. CPU per image of all processes together (client, Valkey, workers) against the raw loop;
images/s of two workers with one thread on a core each against one of them on one core; and what the way through the
queue adds for one photo at a time. Raw loop, one worker, two workers and the raw loop again take turns within a round;
ratios are taken within a round, and the median round is reported.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import uvloop

from bench.__main__ import MODEL, heading
from bench.children import Child, Request, Result
from bench.photos import SIZES, PhotoSize, photos
from servers.process import free_port, stop
from servers.shoplens import start_shoplens, wait_for
from servers.valkey import running_valkey
from shoplens.bundles.builtin import prepare_builtin
from shoplens.cli.process import keep_freed_memory
from shoplens.platform.parts import build_channels, build_engine, build_sandbox
from shoplens.platform.workers import build_redis_engine
from shoplens.serving.cores import usable_cores
from shoplens.serving.engine import ClassifyRequest, Engine
from shoplens.settings import read_settings
from shoplens.telemetry.metrics import Metrics
from shoplens.testing import cost

_CPU_COLUMNS = (
    "photos", "raw loop, CPU ms per image", "all processes, CPU ms per image", "of the raw loop", "workers", "client",
    "Valkey",
)  # fmt: skip
_SPEED_COLUMNS = (
    "photos", "one worker, images/s", "two workers, images/s", "two / one", "busy with two: workers, cores",
    "client and Valkey, cores", "two / one by the workers' CPU alone", "raw loop, images/s",
)  # fmt: skip
_IDLE_COLUMNS = (
    "photos", "in this process, p50 ms", "by a worker, p50 ms", "added", "median of the pairs' differences",
    "queue and way, p50 ms",
)  # fmt: skip
_WARM_S = 1.0
_ANYWHERE = (None,)
_ONE_AND_TWO = (1, 2)
Measured = TypeVar("Measured")


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerGroup:
    """Workers that share a prefix, with the client that keeps them busy and the queue between."""

    client: Child
    workers: tuple[int, ...]
    queue: int

    def measure(self, request: Request) -> Shares:
        """As the client sees it, and who used how much CPU meanwhile."""
        before = self._cpu_s()
        result = self.client.measure(request)
        workers_s, queue_s = (after - earlier for after, earlier in zip(self._cpu_s(), before, strict=True))
        return Shares(result=result, workers_s=workers_s, queue_s=queue_s)

    def _cpu_s(self) -> tuple[float, float]:
        return sum(cost.read(pid).cpu_s for pid in self.workers), cost.read(self.queue).cpu_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """One measurement; the CPU in `result` is the client's."""

    result: Result
    workers_s: float
    queue_s: float

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds per image, all processes together."""
        return self._per_image_ms(self.result.cpu_s + self.workers_s + self.queue_s)

    @property
    def parts_ms(self) -> tuple[float, float, float]:
        """The same of the workers, the client and the queue."""
        return (
            self._per_image_ms(self.workers_s), self._per_image_ms(self.result.cpu_s), self._per_image_ms(self.queue_s),
        )  # fmt: skip

    @property
    def beside_cores(self) -> float:
        """How many cores client and queue kept busy."""
        return (self.result.cpu_s + self.queue_s) / self.result.wall_s

    @property
    def worker_cores(self) -> float:
        """How many cores the workers kept busy."""
        return self.workers_s / self.result.wall_s

    def _per_image_ms(self, cpu_s: float) -> float:
        return 1e3 * cpu_s / self.result.images


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What is compared was measured one after the other."""

    raw_cpu_ms: float
    raw_per_second: float
    one: Shares
    two: Shares


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One photo; `outside_ms` is what was neither pixel work nor inference."""

    whole_ms: float
    outside_ms: float


def main() -> None:
    """Measure and print."""
    options = _options()
    keep_freed_memory()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < len(_ONE_AND_TWO):
        sys.exit("Two cores are needed: one for each of two workers.")
    print(heading(usable_cores()))
    sizes = [size for size in SIZES if size.name in options.sizes]
    with tempfile.TemporaryDirectory() as name:
        folder, models_dir = Path(name), options.models_dir.absolute()
        requests = {size.name: _request(folder, size, models_dir, options.seconds) for size in sizes}
        with running_valkey(folder / "valkey") as valkey:
            environment = {"SHOPLENS_REDIS_URL": valkey.url, "SHOPLENS_MODELS_DIR": str(models_dir)}
            with ExitStack() as stack:
                one, two = (
                    stack.enter_context(_worker_group(folder, environment, valkey.process.pid, pinned_to))
                    for pinned_to in (cores[:count] for count in _ONE_AND_TWO)
                )
                _print_ratios(requests, one, two, options.rounds)
            with _worker_group(folder, environment, valkey.process.pid, _ANYWHERE):
                _print_idle(requests, valkey.url, options)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.redis_engine", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--idle-photos", type=int, default=100, help="photos one at a time, per size and engine")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["1 MP", "4 MP"])
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    return parser.parse_args()


def _request(folder: Path, size: PhotoSize, models_dir: Path, seconds: float) -> Request:
    into = folder / size.name
    into.mkdir()
    for number, photo in enumerate(photos(size)):
        (into / f"{number}.jpg").write_bytes(photo)
    model = str(prepare_builtin(MODEL, models_dir).model_path)
    return Request(folder=str(into), model=model, threads=usable_cores(), seconds=seconds)


@contextmanager
def _worker_group(
    folder: Path, environment: Mapping[str, str], queue: int, pinned_to: Sequence[int | None]
) -> Iterator[WorkerGroup]:
    """A worker with one thread for each entry, on that core or on any, and a client that may use all cores."""
    prefix = _prefix(pinned_to)
    own = {**environment, "SHOPLENS_REDIS_PREFIX": prefix, "SHOPLENS_THREADS": "1"}
    with ExitStack() as stack:
        workers: list[subprocess.Popen[bytes]] = []
        for number, core in enumerate(pinned_to):
            workers.append(_worker(folder / f"{prefix}-{number}", own, core))
            stack.callback(stop, workers[-1])
        client = stack.enter_context(Child("bench.redis_loop", own))
        yield WorkerGroup(client=client, workers=tuple(each.pid for each in workers), queue=queue)


def _worker(folder: Path, environment: Mapping[str, str], core: int | None) -> subprocess.Popen[bytes]:
    port = free_port()
    own = {**environment, "SHOPLENS_WORKER_PORT": str(port), "SHOPLENS_DATA_DIR": str(folder)}
    process = start_shoplens("worker", "--model", MODEL, folder=folder, environment=own, core=core)
    wait_for(f"http://127.0.0.1:{port}/health/ready", process, folder)
    return process


def _print_ratios(requests: Mapping[str, Request], one: WorkerGroup, two: WorkerGroup, rounds: int) -> None:
    with Child("bench.raw_loop") as raw:
        measured = {
            name: [_round(raw, one, two, request) for _ in range(rounds)]
            for name, request in requests.items()
        }  # fmt: skip
    _table(_CPU_COLUMNS, (_cpu_row(name, found) for name, found in measured.items()))
    _table(_SPEED_COLUMNS, (_speed_row(name, found) for name, found in measured.items()))


def _round(raw: Child, one: WorkerGroup, two: WorkerGroup, request: Request) -> Round:
    """A short measurement before each, so that no process is measured while cold."""
    before = _warm(raw.measure, request)
    alone = _warm(one.measure, _with_threads(request, 1))
    both = _warm(two.measure, _with_threads(request, len(two.workers)))
    after = _warm(raw.measure, request)
    return Round(
        raw_cpu_ms=statistics.mean((before.cpu_ms, after.cpu_ms)),
        raw_per_second=statistics.mean((before.per_second, after.per_second)),
        one=alone,
        two=both,
    )


def _warm(measure: Callable[[Request], Measured], request: Request) -> Measured:
    measure(replace(request, seconds=_WARM_S))
    return measure(request)


def _cpu_row(name: str, rounds: list[Round]) -> tuple[str, ...]:
    parts = zip(*(each.two.parts_ms for each in rounds), strict=True)
    return (
        name,
        f"{statistics.median(each.raw_cpu_ms for each in rounds):.2f}",
        f"{statistics.median(each.two.cpu_ms for each in rounds):.2f}",
        f"{statistics.median(each.two.cpu_ms / each.raw_cpu_ms for each in rounds):.2f}",
        *(f"{statistics.median(part):.2f}" for part in parts),
    )


def _speed_row(name: str, rounds: list[Round]) -> tuple[str, ...]:
    return (
        name,
        f"{statistics.median(each.one.result.per_second for each in rounds):.1f}",
        f"{statistics.median(each.two.result.per_second for each in rounds):.1f}",
        f"{statistics.median(each.two.result.per_second / each.one.result.per_second for each in rounds):.2f}",
        f"{statistics.median(each.two.worker_cores for each in rounds):.2f}",
        f"{statistics.median(each.two.beside_cores for each in rounds):.2f}",
        f"{statistics.median(2 * each.one.parts_ms[0] / each.two.parts_ms[0] for each in rounds):.2f}",
        f"{statistics.median(each.raw_per_second for each in rounds):.1f}",
    )


def _print_idle(requests: Mapping[str, Request], redis_url: str, options: argparse.Namespace) -> None:
    settings = read_settings(
        redis_url=redis_url, redis_prefix=_prefix(_ANYWHERE), models_dir=options.models_dir.absolute(), threads=1
    )
    channels = {"look": build_channels(settings)["look"]}
    local = build_engine(settings, channels, metrics=Metrics(), sandbox=build_sandbox(settings))
    remote = build_redis_engine(settings, channels, metrics=Metrics())
    rows = uvloop.run(_idle_rows(local, remote, requests, options.idle_photos))
    _table(_IDLE_COLUMNS, iter(rows))


async def _idle_rows(
    local: Engine, remote: Engine, requests: Mapping[str, Request], count: int
) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, request in requests.items():
        pictures = request.photos()
        for photo in pictures:
            await _latency_ms(local, photo)
            await _latency_ms(remote, photo)
        pairs = [
            (
                await _latency_ms(local, pictures[at % len(pictures)]),
                await _latency_ms(remote, pictures[at % len(pictures)]),
            )
            for at in range(count)
        ]
        rows.append(_idle_row(name, pairs))
    await remote.close()
    await local.close()
    return rows


def _idle_row(name: str, pairs: list[tuple[Latency, Latency]]) -> tuple[str, ...]:
    local, remote = ([pair[side].whole_ms for pair in pairs] for side in (0, 1))
    return (
        name,
        f"{statistics.median(local):.1f}",
        f"{statistics.median(remote):.1f}",
        f"{statistics.median(remote) - statistics.median(local):.1f}",
        f"{statistics.median(pair[1].whole_ms - pair[0].whole_ms for pair in pairs):.1f}",
        f"{statistics.median(pair[1].outside_ms for pair in pairs):.1f}",
    )


async def _latency_ms(engine: Engine, photo: bytes) -> Latency:
    began = time.perf_counter()
    answer = await engine.classify(ClassifyRequest(model=MODEL, images=(photo,), top_k=10, timeout_s=30))
    return Latency(whole_ms=1e3 * (time.perf_counter() - began), outside_ms=1e3 * answer.queue_s)


def _with_threads(request: Request, threads: int) -> Request:
    return replace(request, threads=threads)


def _prefix(pinned_to: Sequence[int | None]) -> str:
    return f"bench-{len(pinned_to)}-{pinned_to[0]}"


def _table(columns: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print()


if __name__ == "__main__":
    main()
