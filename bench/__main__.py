"""`make bench`: raw loop, engine and server on the same photos in one run; prints a table for `results.md`.

The three take turns, several rounds for each size of photo, so that a change of the machine's speed meets all of
them; ratios are taken within a round, and the median round is reported.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.children import Child, Request, Result
from bench.photos import SIZES, PhotoSize, photos
from bench.server import Server
from shoplens.bundles.builtin import prepare_builtin
from shoplens.serving.cores import usable_cores

MODEL = "efficientnet-lite0-int8"
_CONNECTIONS_PER_CORE = 8
_COLUMNS = (
    "photos",
    "contender",
    "images/s",
    "of the raw loop",
    "CPU ms per image",
    "of the raw loop",
    "p50 ms",
    "p99 ms",
    "peak MB",
)
_TABLE_HEAD = f"| {' | '.join(_COLUMNS)} |\n|{'---|' * len(_COLUMNS)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contender on one size of photo: the median of its rounds, and of its ratios to the raw loop."""

    contender: str
    size: str
    per_second: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float
    peak_mb: float
    cpu_ratio: float
    speed_ratio: float


def main() -> None:
    """Measure and print."""
    options = _options()
    threads = usable_cores()
    sizes = [size for size in SIZES if not options.sizes or size.name in options.sizes]
    print(heading(threads))
    print(_TABLE_HEAD)
    with tempfile.TemporaryDirectory() as folder:
        for row in _measure(Path(folder), sizes, threads, options):
            print(_line(row), flush=True)
        print(f"\n{_idle(Path(folder), sizes, options)}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--keep", default="original,thumbnail,nothing", help="what the servers keep of a photo")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=[])
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    return parser.parse_args()


def _measure(folder: Path, sizes: list[PhotoSize], threads: int, options: argparse.Namespace) -> list[Row]:
    models_dir = options.models_dir.absolute()
    model = str(prepare_builtin(MODEL, models_dir).model_path)
    rows: list[Row] = []
    for size in sizes:
        request = Request(folder=_written(folder, size), model=model, threads=threads, seconds=options.seconds)
        rows += _measure_size(folder, size, request, options)
    return rows


def _measure_size(folder: Path, size: PhotoSize, request: Request, options: argparse.Namespace) -> list[Row]:
    rounds: dict[str, list[tuple[Result, Result]]] = {}
    for number in range(options.rounds):
        with Child("bench.raw_loop") as raw, Child("bench.engine_loop") as engine:
            raw.measure(request)
            engine.measure(request)
            _add(rounds, "raw loop", raw.measure(request), raw.measure(request))
            _add(rounds, "engine", engine.measure(request), raw.measure(request))
            for keep in options.keep.split(","):
                data_dir = folder / f"{size.name}-{keep}-{number}"
                data_dir.mkdir()
                with Server(data_dir, options.models_dir.absolute(), {"SHOPLENS_CHANNELS__LOOK__KEEP": keep}) as server:
                    load = _load(server, request)
                    load(1.0)
                    _add(rounds, f"server, keeps {keep}", load(request.seconds), raw.measure(request))
    return [_row(contender, size.name, pairs) for contender, pairs in rounds.items()]


def _load(server: Server, request: Request) -> Callable[[float], Result]:
    connections = _CONNECTIONS_PER_CORE * request.threads
    return lambda seconds: server.load(request.folder, connections=connections, seconds=seconds)


def _add(rounds: dict[str, list[tuple[Result, Result]]], contender: str, result: Result, raw: Result) -> None:
    rounds.setdefault(contender, []).append((result, raw))


def _row(contender: str, size: str, pairs: list[tuple[Result, Result]]) -> Row:
    results = [result for result, _ in pairs]
    return Row(
        contender=contender,
        size=size,
        per_second=statistics.median(result.per_second for result in results),
        cpu_ms=statistics.median(result.cpu_ms for result in results),
        p50_ms=statistics.median(result.p50_ms for result in results),
        p99_ms=statistics.median(result.p99_ms for result in results),
        peak_mb=max(result.peak_mb for result in results),
        cpu_ratio=statistics.median(result.cpu_ms / raw.cpu_ms for result, raw in pairs),
        speed_ratio=statistics.median(result.per_second / raw.per_second for result, raw in pairs),
    )


def _idle(folder: Path, sizes: list[PhotoSize], options: argparse.Namespace) -> str:
    """One photo at a time: what the server adds to the raw loop's median, in milliseconds."""
    models_dir = options.models_dir.absolute()
    model = str(prepare_builtin(MODEL, models_dir).model_path)
    added: list[str] = []
    with Child("bench.raw_loop") as raw, Server(_fresh(folder / "idle"), models_dir) as server:
        for size in sizes:
            request = Request(folder=_written(folder, size), model=model, threads=1, seconds=options.seconds)
            server.load(request.folder, connections=1, seconds=1.0)
            differences = [
                server.load(request.folder, connections=1, seconds=options.seconds / 2).p50_ms
                - raw.measure(request).p50_ms
                for _ in range(options.rounds)
            ]
            added.append(f"{size.name} {statistics.median(differences):.1f} ms")
        start_s = server.start_s
    return f"At idle the server adds to the raw loop's median: {', '.join(added)}. Ready {start_s:.1f} s after start."


def _written(folder: Path, size: PhotoSize) -> str:
    into = folder / size.name
    if not into.exists():
        into.mkdir()
        for number, photo in enumerate(photos(size)):
            (into / f"{number}.jpg").write_bytes(photo)
    return str(into)


def _fresh(path: Path) -> Path:
    path.mkdir()
    return path


def heading(threads: int) -> str:
    """When, which commit, which machine."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    when = datetime.now(UTC).date().isoformat()
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    flags = Path("/proc/cpuinfo").read_text()
    extras = [f"{'with' if flag in flags else 'without'} {flag}" for flag in ("avx512_vnni", "sha_ni")]
    return (
        f"{when}, commit {commit.stdout.strip()}, {threads} cores of {cpu} ({', '.join(extras)}), "
        f"Python {sys.version.split()[0]}, {platform.system()}\n"
    )


def _line(row: Row) -> str:
    return (
        f"| {row.size} | {row.contender} | {row.per_second:.0f} | {row.speed_ratio:.2f} | {row.cpu_ms:.2f} | "
        f"{row.cpu_ratio:.2f} | {row.p50_ms:.1f} | {row.p99_ms:.1f} | {row.peak_mb:.0f} |"
    )


def print_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a Markdown table, each row as soon as it is measured."""
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)
    print()


if __name__ == "__main__":
    main()
