"""`python -m bench.ray_batch`: a run on Ray against a run in one process, on the same photos, in one run.

Both use all cores of this machine: the one as threads of a process, the other as a Ray cluster of its own, with all of
its processes. They take turns, and the ratio is taken within a round. Loading models and starting a cluster are not
part of the speed and reported separately; the report at the end of a run is in both.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bench.__main__ import MODEL, heading, print_table
from bench.batch_loop import BatchRequest, BatchResult, run_batch
from bench.photos import SIZES, photos, write_photos
from shoplens.bundles.builtin import prepare_builtin
from shoplens.serving.cores import usable_cores

_COLUMNS = (
    "photos",
    "items",
    "local run, images/s per core",
    "Ray run, images/s per core",
    "ratio",
    "ratio without the first results' delay",
    "start s, local",
    "start s, Ray",
    "driver's peak MB",
)


def main() -> None:
    """Measure and print."""
    options = _options()
    print(heading(usable_cores()))
    with tempfile.TemporaryDirectory(dir=options.place) as folder:
        print_table(_COLUMNS, _rows(Path(folder), options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.ray_batch", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--items", type=int, default=6_000, help="photos in one run")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=["1 MP", "4 MP"])
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    parser.add_argument("--place", type=Path, default=None, help="where photos and databases are; a folder on a disk")
    return parser.parse_args()


def _rows(folder: Path, options: argparse.Namespace) -> Iterator[tuple[str, ...]]:
    models_dir = options.models_dir.absolute()
    prepare_builtin(MODEL, models_dir)
    for size in (size for size in SIZES if size.name in options.sizes):
        pictures = write_photos(folder / size.name, photos(size))
        wanted = BatchRequest(
            folder=str(pictures), items=options.items, data_dir=str(folder / "run"), models_dir=str(models_dir),
            model=MODEL,
        )  # fmt: skip
        rounds = [(run_batch(wanted), run_batch(replace(wanted, engine="ray"))) for _ in range(options.rounds)]
        yield _row(size.name, options.items, rounds)


def _row(size: str, items: int, rounds: list[tuple[BatchResult, BatchResult]]) -> tuple[str, ...]:
    cores = usable_cores()
    return (
        size,
        f"{items:,}",
        f"{statistics.median(local.per_second for local, _ in rounds) / cores:.1f}",
        f"{statistics.median(ray.per_second for _, ray in rounds) / cores:.1f}",
        f"{statistics.median(ray.per_second / local.per_second for local, ray in rounds):.2f}",
        f"{statistics.median(local.halves_s[1] / ray.halves_s[1] for local, ray in rounds):.2f}",
        f"{statistics.median(local.start_s for local, _ in rounds):.1f}",
        f"{statistics.median(ray.start_s for _, ray in rounds):.1f}",
        f"{max(ray.peak_mb for _, ray in rounds):.0f}",
    )


if __name__ == "__main__":
    main()
