"""The tools that make the files of the built-in models."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from shoplens.bundles.builtin import BUILTIN_MODELS
from shoplens.bundles.builtin.efficientnet import Layer, Network, apply_delta, lite0_network
from shoplens.bundles.builtin.onnx_graph import channel_scales, quantised
from shoplens.training.recipes.compact import best_stretch
from tools.build_models.delta import delta_of, packed
from tools.build_models.probes import record


@pytest.fixture(scope="module")
def network() -> Network:
    """The built-in network."""
    return lite0_network()


def tuned(network: Network) -> Network:
    """The network with small random changes in its last block and its head."""
    random = np.random.default_rng(0)

    def changed(layer: Layer) -> Layer:
        change = random.normal(scale=0.01, size=layer.weight.shape)
        return replace(layer, weight=(layer.weight + change).astype(np.float32))

    return replace(
        network,
        layers=tuple(
            changed(layer) if layer.name.startswith(("block15", "head")) else layer for layer in network.layers
        ),
    )


def test_a_delta_is_nearly_exact(network: Network) -> None:
    """Five steps to a standard deviation lose less than a hundredth of the change."""
    wanted = tuned(network)

    with np.load(io.BytesIO(packed(delta_of(network, wanted)))) as delta:
        restored = apply_delta(network, dict(delta))

    for before, expected, actual in zip(network.layers, wanted.layers, restored.layers, strict=True):
        error = np.square(actual.weight - expected.weight).mean()
        assert error <= 0.01 * np.square(expected.weight - before.weight).mean()


def test_a_delta_holds_only_the_layers_that_changed(network: Network) -> None:
    """The original weights come from their own package."""
    names = {name.partition(".")[0] for name in delta_of(network, tuned(network))}

    assert {"classifier", "block15", "head"} == names


def test_the_same_delta_gives_the_same_bytes(network: Network) -> None:
    """So that a file in the repository changes only when the model does."""
    delta = delta_of(network, tuned(network))

    assert packed(delta) == packed(delta)


def test_the_best_step_has_the_least_error() -> None:
    """Clipping one great weight gives a finer step for all others."""
    weight = np.append(np.linspace(-1, 1, 19_999), 1.9).astype(np.float32)[None]

    def error(stretch: int) -> float:
        scales = channel_scales(weight, stretch)
        return float(np.square(quantised(weight, scales, pairs=False) * scales - weight).sum())

    best = int(best_stretch(weight, pairs=False)[0])

    assert min(error(stretch) for stretch in range(24, 81)) == pytest.approx(error(best))
    assert best < 40


def test_the_recorded_answers_can_be_recorded_again() -> None:
    """The labels in the same order, the scores within the tolerance."""
    source = BUILTIN_MODELS["fashion-mnist"]

    for expected, actual in zip(source.recorded, record(source), strict=True):
        assert [label for label, _ in expected] == [label for label, _ in actual]
        assert [score for _, score in expected] == pytest.approx([score for _, score in actual], abs=source.tolerance)
