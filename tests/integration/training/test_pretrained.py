"""The recipes `head` and `transfer`: they learn from photos, and the graph computes what was learned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shoplens.bundles.builtin.efficientnet import Network, lite0_network
from shoplens.bundles.builtin.onnx_graph import INPUT, SCORES
from shoplens.bundles.probe import open_session
from shoplens.images.preprocess import preprocess
from shoplens.training.progress import TrainProgress
from shoplens.training.recipes import RecipeOptions, TrainedModel, fit_recipe
from shoplens.training.recipes.transfer import CUT, Tail, Trunk, cut_at, random_view, trunk_model
from shoplens.training.samples import Dataset, read_dataset
from tests.conftest import colourful
from tests.unit.training.colours import write_photos


@pytest.fixture(scope="module")
def network() -> Network:
    """The built-in network."""
    return lite0_network()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Twelve photos in each of three colours."""
    return read_dataset(write_photos(tmp_path_factory.mktemp("photos"), each=12))


@pytest.fixture(scope="module")
def head(photos: Dataset) -> TrainedModel:
    """The recipe `head` on them."""
    return fit_recipe("head", photos.samples, 3, options=RecipeOptions())


@pytest.fixture(scope="module")
def tuned(photos: Dataset) -> TrainedModel:
    """One epoch of fine-tuning."""
    return fit_recipe("transfer", photos.samples, 3, options=RecipeOptions(epochs=1))


def scores_of(
    fitted: TrainedModel, photos: Dataset, *, temperature: float
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The scores of the exported graph for the photos."""
    session = open_session(fitted.export(temperature=temperature), optimise=True)
    pixels = [preprocess(sample.picture(fitted.image.resize), fitted.image) for sample in photos.samples]
    return np.asarray(session.run([SCORES], {INPUT: np.stack(pixels)})[0])


@pytest.mark.parametrize("recipe", ["head", "tuned"])
def test_the_graph_computes_what_was_learned(recipe: str, photos: Dataset, request: pytest.FixtureRequest) -> None:
    """Scores are the softmax of the framework's logits over the temperature."""
    fitted: TrainedModel = request.getfixturevalue(recipe)
    cooled = fitted.logits(photos.samples) / 1.5
    expected = np.exp(cooled - cooled.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    assert 1e-4 > np.abs(expected - scores_of(fitted, photos, temperature=1.5)).max()


def test_the_head_learns(head: TrainedModel, photos: Dataset) -> None:
    """It classifies its training photos correctly."""
    right = [sample.label for sample in photos.samples]
    assert right == head.logits(photos.samples).argmax(axis=1).tolist()


def test_the_same_seed_gives_the_same_model(tuned: TrainedModel, photos: Dataset) -> None:
    """The seed decides everything random."""
    again = fit_recipe("transfer", photos.samples, 3, options=RecipeOptions(epochs=1))
    assert tuned.export(temperature=1.0) == again.export(temperature=1.0)


def test_progress_is_reported(photos: Dataset) -> None:
    """From the first stage to the last step."""
    steps: list[TrainProgress] = []
    fit_recipe("transfer", photos.samples, 3, options=RecipeOptions(epochs=2), on_progress=steps.append)
    assert 1.0 == steps[-1].done
    assert (2, 2) == (steps[-1].epoch, steps[-1].epochs)


def test_trunk_and_tail_together_are_the_network(network: Network) -> None:
    """ONNX Runtime computes one part, torch the other."""
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


def test_views_have_the_size_and_depend_on_the_seed() -> None:
    """The same seed gives the same view."""
    picture = colourful(1, width=300, height=200)
    views = [random_view(picture, 96, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert [(96, 96, 3)] * 3 == [view.shape for view in views]
    assert views[0].tobytes() == views[1].tobytes()
    assert views[0].tobytes() != views[2].tobytes()


def test_a_picture_smaller_than_a_view_is_enlarged() -> None:
    """Thumbnails can be used for training, too."""
    assert (64, 64, 3) == random_view(colourful(1, width=9, height=5), 64, np.random.default_rng(0)).shape
