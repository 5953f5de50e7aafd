"""How well the memory of moderation finds changed copies of photos, how often it finds other photos, and how fast.

Every second photo is remembered as refused. Copies of these should be found; the other photos should not.

Run: python -m bench.hashes [--photos 4000] [--rows 40000]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import insert

from bench.__main__ import heading, print_table
from shoplens.db import Database, open_database, upgrade
from shoplens.images import fingerprint
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.moderation.entities import HashVerdict
from shoplens.moderation.intake.memory import HashMemory
from shoplens.moderation.tables import moderation_hashes
from shoplens.serving.cores import usable_cores

Pixels: TypeAlias = NDArray[np.uint8]

_DISTANCES: Final = (2, 3, 4, 5, 6, 8)
_LOOKUPS: Final = 200


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=int, default=4_000, help="how many of the sample photos at most")
    parser.add_argument("--rows", type=int, default=43_500, help="photos in the memory whose lookup is timed")
    options = parser.parse_args()
    files = _sample_photos(options.photos)
    print(heading(usable_cores()))
    with tempfile.TemporaryDirectory() as folder:
        prints = _measure_recall(_database(Path(folder) / "recall.db"), files)
        _measure_speed(_database(Path(folder) / "speed.db"), options.rows, prints)


def _sample_photos(most: int) -> list[Path]:
    root = Path(os.environ.get("SHOPLENS_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    files = [*sorted(root.glob("imagenet-samples/*.JPEG")), *sorted(root.glob("clothing/*/*/*.jpg"))]
    step = max(1, -(-len(files) // most))
    return files[::step]


def _database(path: Path) -> Database:
    upgrade(f"sqlite:///{path}")
    return open_database(f"sqlite:///{path}")


def _measure_recall(database: Database, files: list[Path]) -> list[bytes]:
    """Print what is found; the fingerprints of the photos that were remembered."""
    known, others = files[::2], files[1::2]
    with ThreadPoolExecutor(usable_cores()) as pool:
        prints = list(pool.map(lambda file: _print(_read(file)), known))
        _remember(database, [(str(number), each) for number, each in enumerate(prints)])
        memory = HashMemory(database)

        def distances(number: int) -> list[float]:
            """Of each changed copy of one known photo to that photo."""
            copies = _copies(_read(known[number]), np.random.default_rng(number))
            return [_distance(memory, _print(copy), str(number)) for copy in copies.values()]

        found = np.array(list(pool.map(distances, range(len(known)))))
        false = np.array(list(pool.map(lambda file: _distance(memory, _print(_read(file))), others)))
    names = list(_copies(_read(known[0]), np.random.default_rng(0)))
    columns = ("changed copy", *(f"distance up to {most}" for most in _DISTANCES))
    rows = [
        (name, *(f"{np.mean(found[:, index] <= most):.1%}" for most in _DISTANCES)) for index, name in enumerate(names)
    ]
    rows.append((f"other photos found, of {len(others)}", *(str(int((false <= most).sum())) for most in _DISTANCES)))
    print(f"{len(known)} photos remembered as refused, {len(memory)} hashes.\n")
    print_table(columns, rows)
    return prints


def _distance(memory: HashMemory, print_: bytes, photo_id: str | None = None) -> float:
    """The distance to the nearest known photo; infinite where another one than `photo_id` or none is near."""
    near = memory.nearest("reviews", print_, within=fingerprint.BITS).get(HashVerdict.REFUSED)
    if near is None or photo_id not in (None, near.photo_id):
        return float("inf")
    return near.distance


def _copies(photo: Pixels, random: np.random.Generator) -> dict[str, Pixels]:
    def cropped(share: float) -> Pixels:
        """So much less of its height and width, at a random place."""
        height, width = photo.shape[:2]
        less_high, less_wide = round(share * height), round(share * width)
        top, left = random.integers(0, less_high + 1), random.integers(0, less_wide + 1)
        return np.asarray(photo[top : height - less_high + top, left : width - less_wide + left], np.uint8)

    def scaled(factor: float) -> Pixels:
        return np.asarray(cv2.resize(photo, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)

    def bordered(share: float) -> Pixels:
        wide = round(share * min(photo.shape[:2]))
        white = (255, 255, 255)
        return np.asarray(cv2.copyMakeBorder(photo, wide, wide, wide, wide, cv2.BORDER_CONSTANT, value=white), np.uint8)

    def brighter(factor: float, more: float) -> Pixels:
        return np.asarray(np.clip(photo * factor + more, 0, 255), np.uint8)

    quality_30 = cv2.imdecode(cv2.imencode(".jpg", photo, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)
    return {
        "the same file": photo,
        "JPEG of quality 30": np.asarray(quality_30, np.uint8),
        "a quarter of the width": scaled(0.25),
        "mirrored": photo[:, ::-1],
        "cropped by 2 %": cropped(0.02),
        "cropped by 5 %": cropped(0.05),
        "cropped by 10 %": cropped(0.10),
        "cropped by 10 % and mirrored": cropped(0.10)[:, ::-1],
        "brighter (x 1.2 + 10)": brighter(1.2, 10),
        "darker (x 0.75)": brighter(0.75, 0),
        "white border of 2 %": bordered(0.02),
        "white border of 5 %": bordered(0.05),
    }


def _read(file: Path) -> Pixels:
    return decode(file.read_bytes(), limits=Limits()).pixels


def _print(photo: Pixels) -> bytes:
    """As the product does: of the pixels that the engine has."""
    return fingerprint.fingerprint(np.ascontiguousarray(photo))


def _remember(database: Database, prints: Sequence[tuple[str, bytes]]) -> None:
    now = datetime.now(UTC) - timedelta(hours=1)
    rows = [
        {
            "channel": "reviews",
            "hashes": fingerprint.crop_hashes(each).tobytes(),
            "fingerprint": each,
            "verdict": HashVerdict.REFUSED.value,
            "photo_id": photo_id,
            "created_at": now,
        }
        for photo_id, each in prints
    ]
    with database.transaction() as tx:
        tx.execute(insert(moderation_hashes), rows)


def _measure_speed(database: Database, rows: int, prints: list[bytes]) -> None:
    """With made fingerprints, each number of which is that of some real photo at the same place."""
    random = np.random.default_rng(0)
    real = np.stack([np.frombuffer(each, np.int8) for each in prints])
    places = np.arange(fingerprint.LENGTH)

    def made() -> bytes:
        return bytes(real[random.integers(0, len(real), fingerprint.LENGTH), places].tobytes())

    for first in range(0, rows, 1_000):
        _remember(database, [(str(first + number), made()) for number in range(min(1_000, rows - first))])
    memory = HashMemory(database)
    began = time.perf_counter()
    memory.nearest("reviews", made(), within=6)
    loaded_s = time.perf_counter() - began
    lookups = []
    for _ in range(_LOOKUPS):
        wanted = made()
        began = time.thread_time()
        memory.nearest("reviews", wanted, within=6)
        lookups.append(1e3 * (time.thread_time() - began))
    print(
        f"{len(memory):,} hashes of {rows:,} refused photos: read in {loaded_s:.1f} s; a lookup takes "
        f"{np.median(lookups):.1f} ms of CPU time at the median, {np.quantile(lookups, 0.99):.1f} ms at the 99th "
        f"percentile of {_LOOKUPS}. The fingerprint of a thumbnail takes {_fingerprint_ms():.2f} ms."
    )


def _fingerprint_ms() -> float:
    photo = np.random.default_rng(0).integers(0, 256, (192, 256, 3), np.uint8)
    began = time.thread_time()
    for _ in range(_LOOKUPS):
        _print(photo)
    return 1e3 * (time.thread_time() - began) / _LOOKUPS


if __name__ == "__main__":
    main()
