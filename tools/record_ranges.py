"""Record the ranges that the int8 graph of EfficientNet-Lite0 is built from: a folder of photos in, JSON out.

    python tools/record_ranges.py PHOTOS > src/shoplens/bundles/builtin/data/efficientnet-lite0-ranges.json

For each value that int8 keeps as uint8: the least and the greatest number that the float graph computes on a
photo, over all photos but the most extreme ones. Nothing of the photos themselves is in the result.
"""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Final

import numpy as np

from shoplens.bundles.builtin.graphs import INPUT, float_model, quantised_values
from shoplens.bundles.builtin.network import lite0
from shoplens.bundles.builtin.recipes import RECIPES
from shoplens.bundles.builtin.sources import LITE0, read_source
from shoplens.bundles.builtin.unpickle import read_state
from shoplens.bundles.probe import open_session
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.preprocess import preprocess

TRIMMED: Final = 1.0
"""Percent of the photos whose extremes are left out on each side."""


def record(photos: list[Path]) -> dict[str, tuple[float, float]]:
    """The range of each value over all photos."""
    network = lite0(read_state(io.BytesIO(read_source(LITE0))))
    session = open_session(float_model(network, observed=True), optimise=True)
    names = quantised_values(network)
    spec = RECIPES["efficientnet-lite0"].manifest.image
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for photo in photos:
        picture = decode(photo.read_bytes(), limits=Limits(), short_side=spec.resize)
        for name, value in zip(names, session.run(names, {INPUT: preprocess(picture, spec)[None]}), strict=True):
            seen[name].append((float(np.min(value)), float(np.max(value))))
    return {name: _range(extremes) for name, extremes in seen.items()}


def _range(extremes: list[tuple[float, float]]) -> tuple[float, float]:
    """Without the most extreme photos: clipping those is worth a finer step for all others."""
    low, high = np.asarray(extremes).T
    return round(float(np.percentile(low, TRIMMED)), 5), round(float(np.percentile(high, 100 - TRIMMED)), 5)


def main() -> None:
    """Print the ranges of the photos in the folder that the command line names."""
    photos = sorted(path for path in Path(sys.argv[1]).iterdir() if path.suffix.lower() in (".jpeg", ".jpg"))
    lines = (f" {json.dumps(name)}: {json.dumps(pair)}" for name, pair in record(photos).items())
    print("{\n" + ",\n".join(lines) + "\n}")


if __name__ == "__main__":
    main()
