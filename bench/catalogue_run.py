"""`python -m bench.catalogue_run`: a whole catalogue imported, categorised in one run, and accepted in one job.

Titles are composed from word lists; one product in ten has a small photo. The commands run as processes of their
own, whose resident memory is read twice a second. CPU time is that of the process, its start and that of the model too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import simplejpeg

from bench.__main__ import heading, print_table
from shoplens.serving.cores import usable_cores

_COLUMNS: Final = ("step", "products", "photos", "wall s", "CPU s", "CPU ms per product", "MB at 25 %", "MB at 50 %",
                   "MB at 75 %", "MB at the end", "peak MB")  # fmt: skip
_COLOURS: Final = ("red", "green", "blue", "black", "white", "grey", "striped", "yellow")
_STUFFS: Final = ("cotton", "wool", "linen", "organic", "fresh", "ripe", "leather", "light")
_THINGS: Final = ("shirt", "dress", "hat", "trousers", "shoes", "skirt", "apple", "pear", "milk", "juice", "tomato")
_PHOTOS: Final = 50
_PHOTO_EVERY: Final = 10
_SIDE: Final = 320
_EVERY_S: Final = 0.5
_SHOPLENS: Final = (sys.executable, "-m", "shoplens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One process: times in seconds, memory in megabytes over its life."""

    wall_s: float
    cpu_s: float
    memory_mb: tuple[float, ...]

    def row(self, step: str, products: int) -> tuple[str, ...]:
        """A line of the table."""
        at = [self.memory_mb[min(len(self.memory_mb) - 1, len(self.memory_mb) * part // 4)] for part in (1, 2, 3)]
        memory = (*at, self.memory_mb[-1], max(self.memory_mb))
        return (
            step, f"{products:,}", f"{-(-products // _PHOTO_EVERY):,}", f"{self.wall_s:.0f}", f"{self.cpu_s:.0f}",
            f"{self.cpu_s / products * 1e3:.2f}", *(f"{each:.0f}" for each in memory),
        )  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.catalogue_run", description=__doc__)
    parser.add_argument("--products", type=int, default=80_000)
    parser.add_argument("--model", default="starter-catalogue")
    parser.add_argument("--models-dir", type=Path, default=Path("shoplens-data/models"))
    parser.add_argument("--place", type=Path, default=None, help="where the data is; a folder on a disk")
    options = parser.parse_args()
    print(heading(usable_cores()))
    with tempfile.TemporaryDirectory(dir=options.place) as name:
        folder = Path(name)
        table = write_table(folder, options.products)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("SHOPLENS_")} | {
            "SHOPLENS_DATA_DIR": str(folder / "data"),
            "SHOPLENS_MODELS_DIR": str(options.models_dir.absolute()),
            "SHOPLENS_CHANNELS__CATALOGUE__MODEL": options.model,
            "SHOPLENS_CHANNELS__CATALOGUE__CATALOGUE": "{}",
        }
        steps = {
            "import": ["import", str(table)],
            "import again": ["import", str(table)],
            "run": ["run"],
            "accept all": ["accept", "--above", "0"],
        }
        rows = [
            watched([*_SHOPLENS, "catalogue", *command], environment).row(step, options.products)
            for step, command in steps.items()
        ]
        print_table(_COLUMNS, iter(rows))
        status = subprocess.run(
            [*_SHOPLENS, "catalogue", "status", "--json"],
            env=environment, check=True, capture_output=True,
        )  # fmt: skip
        found = json.loads(status.stdout)
        run = found["run"]
        print(f"\nStates at the end: {found['products']}.")
        print(
            f"\nModel {run['model']}: {run['suggested']:,} of {run['planned']:,} suggested, {run['failed']:,} failed."
        )


def write_table(folder: Path, products: int) -> Path:
    """A CSV file with so many products, and its photos beside it."""
    rng, noise = random.Random(0), np.random.default_rng(0)
    for number in range(_PHOTOS):
        blocks = noise.integers(0, 255, (8, 8, 3), np.uint8).repeat(_SIDE // 8, 0).repeat(_SIDE // 8, 1)
        (folder / f"{number}.jpg").write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(blocks), quality=80))
    table = folder / "products.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("reference", "designation", "description", "photos"))
        for number in range(products):
            words = [rng.choice(each) for each in (_COLOURS, _STUFFS, _THINGS)]
            photo = f"{number % _PHOTOS}.jpg" if number % _PHOTO_EVERY == 0 else ""
            text = f"A {words[0]} {words[2]} of {words[1]}. " * rng.randint(0, 6)
            writer.writerow((f"SKU-{number}", f"{' '.join(words).title()} {number}", text, photo))
    return table


def watched(command: list[str], environment: dict[str, str]) -> Measured:
    """Run a command to its end, and read its memory meanwhile. Raises RuntimeError if it fails."""
    started, memory = time.monotonic(), [0.0]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            break
        memory.append(_resident_mb(process.pid) or memory[-1])
        time.sleep(_EVERY_S)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return Measured(wall_s=time.monotonic() - started, cpu_s=usage.ru_utime + usage.ru_stime, memory_mb=tuple(memory))


def _resident_mb(pid: int) -> float | None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
