"""What the recipes that start from the built-in ImageNet model share: its network, its pictures, its export."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from shoplens.bundles.builtin.efficientnet import SIDE, Network, lite0_network
from shoplens.bundles.builtin.onnx_graph import INPUT, float_model
from shoplens.bundles.probe import open_session
from shoplens.images.picture import ImageSpec
from shoplens.images.preprocess import preprocess
from shoplens.serving.cores import usable_cores

if TYPE_CHECKING:
    from shoplens.training.samples import Sample

Floats = NDArray[np.float32]
Thing = TypeVar("Thing")
Value = TypeVar("Value")

IMAGE: Final = ImageSpec(resize=SIDE, crop=SIDE, dtype="uint8", resampling="fast")
"""The greatest square: what people photograph for a shop fills the photo, so a narrower crop cuts sleeves and hems off,
and squashing makes skirts of dresses (measured: 87.4 against 86.2 and 86.2 percent with a frozen network)."""


def base_network() -> Network:
    """The network of the built-in model, with the weights of its package."""
    return lite0_network()


def outputs(model: bytes, name: str, samples: Sequence[Sample], *, mirrored: bool = False) -> Floats:
    """The values of the output `name` for the pictures as serving sees them (or their mirror images), a row each."""
    session = open_session(model, optimise=True)

    def row(sample: Sample) -> Floats:
        pixels = preprocess(sample.picture(IMAGE.resize), IMAGE)
        seen = np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels
        return np.asarray(session.run([name], {INPUT: seen[None]})[0][0], np.float32)

    return np.stack(list(in_parallel(row, samples)))


def in_parallel(work: Callable[[Thing], Value], things: Sequence[Thing]) -> Iterable[Value]:
    """`work` for each thing, in order, on all cores; only a few results are held at a time."""
    threads = usable_cores()
    with ThreadPoolExecutor(threads) as pool:
        waiting = iter(things)
        running = [pool.submit(work, thing) for thing in islice(waiting, 4 * threads)]
        while running:
            yield running.pop(0).result()
            running.extend(pool.submit(work, thing) for thing in islice(waiting, 1))


def exported(network: Network, *, temperature: float) -> bytes:
    """The graph of `network` with its logits divided by `temperature`."""
    return float_model(replace(network, weight=network.weight / temperature, bias=network.bias / temperature))


def number_count(network: Network) -> int:
    """How many numbers the network consists of."""
    layers = sum(layer.weight.size + layer.bias.size for layer in network.layers)
    return layers + network.weight.size + network.bias.size
