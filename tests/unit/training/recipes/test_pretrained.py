"""The recipes that start from the built-in network: real photos in, and the graph computes what was learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shoplens.bundles.builtin.efficientnet import Network, lite0_network
from shoplens.bundles.builtin.onnx_graph import INPUT, SCORES
from shoplens.bundles.probe import open_session
from shoplens.images.preprocess import preprocess
from shoplens.training.recipes import Fitted, RecipeOptions, fit_recipe
from shoplens.training.recipes.backbone import CUT, Tail, cut_at
from shoplens.training.recipes.transfer import Trunk, trunk_model
from shoplens.training.recipes.views import random_view
from shoplens.training.samples import Dataset, read_dataset
from shoplens.training.ticks import Tick
from tests.conftest import colourful
from tests.unit.training.conftest import write_photos


@pytest.fixture(scope="module")
def network() -> Network:
    """The built-in network."""
    return lite0_network()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twelve photos in each of three colours."""
    return read_dataset(write_photos(tmp_path_factory.mktemp("photos"), each=12))


@pytest.fixture(scope="module")
def head(photos: Dataset) -> Fitted:
    """The fast mode on them."""
    return fit_recipe("head", photos.samples, 3, options=RecipeOptions())


@pytest.fixture(scope="module")
def tuned(photos: Dataset) -> Fitted:
    """One epoch of fine-tuning."""
    return fit_recipe("transfer", photos.samples, 3, options=RecipeOptions(epochs=1))


def scores_of(
    fitted: Fitted, photos: Dataset, *, temperature: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What the exported graph answers to the photos."""
    session = open_session(fitted.export(temperature=temperature), optimise=True)
    pixels = [preprocess(sample.picture(fitted.image.resize), fitted.image) for sample in photos.samples]
    return np.asarray(session.run([SCORES], {INPUT: np.stack(pixels)})[0])


@pytest.mark.parametrize("recipe", ["head", "tuned"])
def test_the_graph_computes_what_was_learned(recipe: str, photos: Dataset, request: pytest.FixtureRequest) -> None:
    """Scores are the softmax of the framework's logits over the temperature."""
    fitted: Fitted = request.getfixturevalue(recipe)
    cooled = fitted.logits(photos.samples) / 1.5
    expected = np.exp(cooled - cooled.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    assert 1e-4 > np.abs(expected - scores_of(fitted, photos, temperature=1.5)).max()


def test_the_fast_mode_learns(head: Fitted, photos: Dataset) -> None:
    """It tells the colours apart that it was shown."""
    right = [sample.label for sample in photos.samples]
    assert right == head.logits(photos.samples).argmax(axis=1).tolist()


def test_the_same_seed_gives_the_same_model(tuned: Fitted, photos: Dataset) -> None:
    """All that is random comes from the seed."""
    again = fit_recipe("transfer", photos.samples, 3, options=RecipeOptions(epochs=1))
    assert tuned.export(temperature=1.0) == again.export(temperature=1.0)


def test_progress_is_told(photos: Dataset) -> None:
    """From the first stage to the last step."""
    ticks: list[Tick] = []
    fit_recipe("transfer", photos.samples, 3, options=RecipeOptions(epochs=2), on_tick=ticks.append)
    assert 1.0 == ticks[-1].done
    assert (2, 2) == (ticks[-1].epoch, ticks[-1].epochs)


def test_trunk_and_tail_together_are_the_network(network: Network) -> None:
    """Cutting it in two and computing one part elsewhere changes nothing."""
    layers, rest = cut_at(network, CUT)
    tail = Tail(rest, weight=network.weight, bias=network.bias).eval()
    pixels = np.ascontiguousarray(colourful(3, width=224, height=224))
    with torch.inference_mode():
        logits = tail(torch.from_numpy(Trunk(layers)(pixels)[None]))
    scores = torch.softmax(logits, 1)[0].numpy()
    whole = open_session(trunk_model(network.layers), optimise=True).run(None, {INPUT: pixels[None]})[0]
    expected = whole.mean(axis=(2, 3)) @ network.weight.T + network.bias
    exact = np.exp(expected - expected.max())
    assert 1e-4 > np.abs(scores - exact[0] / exact.sum()).max()


def test_views_have_the_size_and_hang_on_the_seed() -> None:
    """The same state of chance, the same view; another one, another view."""
    picture = colourful(1, width=300, height=200)
    views = [random_view(picture, 96, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert [(96, 96, 3)] * 3 == [view.shape for view in views]
    assert views[0].tobytes() == views[1].tobytes()
    assert views[0].tobytes() != views[2].tobytes()


def test_a_picture_smaller_than_a_view_is_enlarged() -> None:
    """Thumbnails can be learned from, too."""
    assert (64, 64, 3) == random_view(colourful(1, width=9, height=5), 64, np.random.default_rng(0)).shape
