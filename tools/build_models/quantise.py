"""Record how EfficientNet-Lite0 is rounded to int8: `python -m tools.build_models.quantise PHOTOS`.

Ranges: for each value that the int8 graph stores as uint8, the least and the greatest number that the float graph
computes over the JPEG photos in a folder, without the most extreme photos. Stretches: for each output channel, the
step with the least squared error. Nothing of the photos is in the result.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from shoplens.bundles.builtin import BUILTIN_MODELS
from shoplens.bundles.builtin.efficientnet import Network, lite0_network
from shoplens.bundles.builtin.onnx_graph import EMBEDDING, INPUT, float_model, quantised_values
from shoplens.bundles.probe import open_session
from shoplens.images.decoder import decode
from shoplens.images.picture import Limits
from shoplens.images.preprocess import preprocess
from shoplens.training.recipes.compact import best_stretch
from tools.build_models import DATA

TRIMMED: Final = 1.0
"""Percent of the photos whose extremes are left out on each side: clipping them gives a finer step for all others."""


def observed_model(network: Network) -> bytes:
    """The float graph with every value that int8 stores as an output."""
    model = onnx.load_from_string(float_model(network))
    for name in quantised_values(network):
        if name != EMBEDDING:
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [None] * 4))
    return bytes(model.SerializeToString())


def record_ranges(network: Network, photos: list[Path]) -> dict[str, tuple[float, float]]:
    """The range of each value over all photos."""
    session = open_session(observed_model(network), optimise=True)
    names = quantised_values(network)
    spec = BUILTIN_MODELS["efficientnet-lite0"].manifest.image_spec
    extremes: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for photo in photos:
        picture = decode(photo.read_bytes(), limits=Limits(), short_side=spec.resize)
        for name, value in zip(names, session.run(names, {INPUT: preprocess(picture, spec)[None]}), strict=True):
            extremes[name].append((float(np.min(value)), float(np.max(value))))
    ranges = {}
    for name, pairs in extremes.items():
        low, high = np.asarray(pairs).T
        ranges[name] = (
            round(float(np.percentile(low, TRIMMED)), 5),
            round(float(np.percentile(high, 100 - TRIMMED)), 5),
        )
    return ranges


def record_stretches(network: Network) -> dict[str, NDArray[np.uint8]]:
    """The stretch of each output channel by layer. Depthwise convolutions need no limit on pairs of weights."""
    stretches = {layer.name: best_stretch(layer.weight, pairs=layer.groups == 1) for layer in network.layers}
    return stretches | {"classifier": best_stretch(network.weight, pairs=True)}


def main() -> None:
    """Write ranges and stretches."""
    network = lite0_network()
    photos = sorted(path for path in Path(sys.argv[1]).iterdir() if path.suffix.lower() in (".jpeg", ".jpg"))
    lines = (f" {json.dumps(name)}: {json.dumps(pair)}" for name, pair in record_ranges(network, photos).items())
    (DATA / "efficientnet-lite0-ranges.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
    stretches: dict[str, Any] = record_stretches(network)
    np.savez_compressed(DATA / "efficientnet-lite0-stretches.npz", **stretches)


if __name__ == "__main__":
    main()
