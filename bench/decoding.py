"""`python -m bench.decoding`: CPU time to decode one photo of each format as serving does, its own processes included.

Prints one line for each format and size: the median of several rounds. `--source` measures another checkout,
which must have `shoplens.testing.cost`.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {"1 MP": (1156, 868), "4 MP": (2312, 1734), "12 MP": (4000, 3000)}
KINDS: dict[str, dict[str, object]] = {
    "jpeg": {"quality": 85},
    "jpeg progressive": {"quality": 85, "progressive": True},
    "png": {},
    "webp": {},
    "gif": {},
    "bmp": {},
    "tiff": {},
    "tiff lzw": {"compression": "tiff_lzw"},
    "avif": {"speed": 10},
    "heif": {"quality": 80},
}
_SHORT_SIDE = 256
_LIMIT_BYTES = 100_000_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.decoding", description=__doc__)
    parser.add_argument("--source", type=Path, help="the `src` folder of another checkout")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--seconds", type=float, default=0.3, help="least length of one round")
    options = parser.parse_args()
    if options.source is not None:
        sys.path.insert(0, str(options.source.absolute()))
    from shoplens.images.decoder import decode
    from shoplens.images.picture import Limits
    from shoplens.testing import cost

    limits = Limits(max_bytes=_LIMIT_BYTES)
    for kind, size, data in _files(options.sizes):
        decode(data, limits=limits, short_side=_SHORT_SIDE)
        rounds = []
        for _ in range(options.rounds):
            count, before, until = 0, cost.read().cpu_s, time.perf_counter() + options.seconds
            while time.perf_counter() < until:
                decode(data, limits=limits, short_side=_SHORT_SIDE)
                count += 1
            rounds.append(1e3 * (cost.read().cpu_s - before) / count)
        line = f"{kind:17} {size:>5} {len(data) / 1e6:5.2f} MB: {statistics.median(rounds):7.2f} ms of CPU time"
        print(line, f"(best {min(rounds):.2f})", flush=True)


def _files(sizes: Sequence[str]) -> Iterator[tuple[str, str, bytes]]:
    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        del KINDS["heif"]
    for size in sizes:
        width, height = SIZES[size]
        random = np.random.default_rng(0)
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        noisy = smooth + random.normal(0, 3, (height, width, 1))
        picture = Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
        for kind, options in KINDS.items():
            buffer = io.BytesIO()
            picture.save(buffer, kind.split()[0].upper(), **options)
            yield kind, size, buffer.getvalue()


if __name__ == "__main__":
    main()
