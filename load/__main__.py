"""`make load`: start a system with so many workers, let people use it for a while, write what came of it.

What it writes, below --place: report.md (tables, also printed), and report.html and CSV files by Locust; those lie in
a folder for each number of workers where there are several.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

from load.photos import Album
from load.report import Outcome, markdown

ROOT: Final = Path(__file__).resolve().parent.parent
JOURNEYS: Final = ("Shopper", "Clerk", "BatchClerk", "Operator")
CLIENTS: Final = "clients (Locust)"
_MADE_PER_SIZE: Final = 6
_RAMP_S: Final = 2
Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Who comes: so many people for so long. `journeys` are the classes of load/locustfile.py; none means all."""

    users: int
    seconds: int
    pace: float
    journeys: tuple[str, ...]
    photos: Path


def main() -> int:
    """Measure, print, write; 1 if anything failed, refusals aside."""
    options = _options()
    place: Path = options.place.absolute()
    place.mkdir(parents=True, exist_ok=True)
    crowd = Crowd(
        users=options.users, seconds=options.seconds, pace=options.pace, journeys=tuple(options.journeys),
        photos=options.photos.absolute() if options.photos else _photos(place),
    )  # fmt: skip
    if options.url:
        outcomes = [_visit(options.url, crowd, place, workers="as it is")]
    else:
        outcomes = _measured(crowd, place, options)
    report = f"# Load test\n\n{_heading(crowd)}\n\n{markdown(outcomes)}"
    (place / "report.md").write_text(report)
    print(report)
    print(f"Written to {place}.")
    return 1 if any(outcome.total.failures or not outcome.total.requests for outcome in outcomes) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m load", description=__doc__)
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[2], help="numbers of workers, a system for each; 0: models in serve"
    )
    parser.add_argument("--url", type=_reachable, help="a system that runs already, instead of one of our own")
    parser.add_argument("--users", type=_positive(int), default=20, help="people at a time")
    parser.add_argument(
        "--seconds", type=_positive(int), default=30, help="how long they stay, for each number of workers"
    )
    parser.add_argument(
        "--pace", type=_positive(float), default=1.0, help="divides the time that people take between two steps"
    )
    parser.add_argument("--journeys", nargs="*", default=[], choices=JOURNEYS, help="only these")
    parser.add_argument("--photos", type=_with_photos, help="a folder of JPEGs; without it photos are made")
    parser.add_argument("--pin", action="store_true", help="worker i stays on core i")
    parser.add_argument("--redis-url", help="a Redis or Valkey that runs already")
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    parser.add_argument("--place", type=Path, default=Path("build/load"), help="where the reports go")
    return parser.parse_args()


def _positive(kind: type[Number]) -> Callable[[str], Number]:
    def parsed(text: str) -> Number:
        if (value := kind(text)) <= 0:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return parsed


def _reachable(url: str) -> str:
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/health/live", timeout=5):
            return url
    except urllib.error.HTTPError as error:
        error.close()
        return url  # it answers; what it says is for the report
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{url} does not answer: {error}") from error


def _with_photos(folder: str) -> Path:
    try:
        Album.read(Path(folder))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return Path(folder)


def _photos(place: Path) -> Path:
    """Made once, since large ones take a while."""
    folder = place / "photos"
    if not folder.exists():
        unfinished = place / "photos.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        Album.made(count=_MADE_PER_SIZE).write(unfinished)
        unfinished.rename(folder)
    return folder


def _measured(crowd: Crowd, place: Path, options: argparse.Namespace) -> list[Outcome]:
    """One system after the other, each with an empty database."""
    from load.first_run import work_through_some_returns
    from load.fleet import Fleet

    models_dir: Path = options.models_dir.absolute()
    _prepare_models(models_dir)
    outcomes: list[Outcome] = []
    for workers in options.workers:
        print(f"Workers: {workers}. {crowd.users} people for {crowd.seconds} s.", file=sys.stderr, flush=True)
        into = place / f"{workers}-workers" if len(options.workers) > 1 else place
        with (
            tempfile.TemporaryDirectory(prefix="shoplens-load-") as folder,
            Fleet(Path(folder), models_dir, workers=workers, pin=options.pin, redis_url=options.redis_url) as fleet,
        ):
            work_through_some_returns(fleet.url, crowd.photos)
            before = fleet.cpu_s()
            visited = _visit(fleet.url, crowd, into, workers=str(workers))
            used = {name: cpu_s - before[name] for name, cpu_s in fleet.cpu_s().items()}
        outcomes.append(_with_cpu(visited, used))
    return outcomes


def _prepare_models(models_dir: Path) -> None:
    environment = {**os.environ, "SHOPLENS_MODELS_DIR": str(models_dir)}
    command = [sys.executable, "-m", "shoplens", "models", "prepare"]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def _visit(url: str, crowd: Crowd, into: Path, *, workers: str) -> Outcome:
    """Locust in a process of its own, since it changes the standard library for all that run beside it."""
    into.mkdir(parents=True, exist_ok=True)
    counted = into / "stats.json"
    counted.unlink(missing_ok=True)
    command = [
        sys.executable, "-m", "locust", "-f", str(ROOT / "load" / "locustfile.py"), "--host", url.rstrip("/"),
        "--headless", "--users", str(crowd.users), "--spawn-rate", str(max(1.0, crowd.users / _RAMP_S)),
        "--run-time", f"{crowd.seconds + _RAMP_S}s", "--stop-timeout", "10s", "--reset-stats", "--only-summary",
        "--loglevel", "WARNING", "--exit-code-on-error", "0", "--html", str(into / "report.html"),
        "--csv", str(into / "stats"), "--json-file", str(counted.with_suffix("")), *crowd.journeys,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SHOPLENS_LOAD_PHOTOS": str(crowd.photos),
        "SHOPLENS_LOAD_PACE": str(crowd.pace),
    }
    cpu_s, began = _children_cpu_s(), time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    wall_s, cpu_s = time.perf_counter() - began, _children_cpu_s() - cpu_s
    return Outcome.of(json.loads(counted.read_text()), workers=workers, cpu_s={CLIENTS: cpu_s}, wall_s=wall_s)


def _with_cpu(outcome: Outcome, used: Mapping[str, float]) -> Outcome:
    return replace(outcome, cpu_s={**used, **outcome.cpu_s})


def _children_cpu_s() -> float:
    """Of the children that have ended, so of Locust alone: the servers still run."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _heading(crowd: Crowd) -> str:
    from bench.__main__ import heading

    who = ", ".join(crowd.journeys) or "all journeys"
    return (
        f"{heading(len(os.sched_getaffinity(0))).strip()}. {crowd.users} people at pace {crowd.pace:g} for "
        f"{crowd.seconds} s ({who}), on the same machine as the system unless it was given by its address."
    )


if __name__ == "__main__":
    sys.exit(main())
