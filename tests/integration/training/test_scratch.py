"""The recipe `scratch`: it learns, resumes, is deterministic, and its graph computes the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shoplens.bundles.builtin.onnx_graph import EMBEDDING, INPUT, SCORES
from shoplens.bundles.probe import open_session
from shoplens.images.preprocess import preprocess
from shoplens.training.errors import TrainingDiverged
from shoplens.training.fit import Schedule, fit
from shoplens.training.progress import TrainProgress
from shoplens.training.recipes import RecipeOptions
from shoplens.training.recipes.scratch import (
    Augmentation,
    CompactNetwork,
    ScratchModel,
    SmallPictureLoader,
    fit_scratch,
    fold,
)
from shoplens.training.samples import ArrayPicture, Sample

SIDE = 28


class Interrupted(Exception):
    """Ctrl-C."""


def striped(count: int, *, seed: int) -> list[Sample]:
    """Noisy pictures of horizontal (0) or vertical (1) stripes."""
    random = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        label = number % 2
        stripes = np.where((np.arange(SIDE) + random.integers(0, 6)) % 6 < 3, 40, 200)
        plane = np.broadcast_to(stripes[:, None] if label == 0 else stripes[None, :], (SIDE, SIDE))
        noisy = np.clip(plane + random.normal(scale=25, size=plane.shape), 0, 255).astype(np.uint8)
        origin = ArrayPicture(pixels=noisy)
        samples.append(
            Sample(name=str(number), label=label, sha256=str(number), phash="", width=SIDE, height=SIDE, origin=origin)
        )
    return samples


def fitted(*, work_dir: Path | None = None, on_progress: Callable[[TrainProgress], None] | None = None) -> ScratchModel:
    """The recipe on 192 such pictures."""
    options = RecipeOptions(epochs=3, work_dir=work_dir, seed=5)
    return fit_scratch(striped(192, seed=1), 2, options=options, on_progress=on_progress or (lambda _progress: None))


@pytest.fixture(scope="module")
def model() -> ScratchModel:
    """Trained without interruption."""
    return fitted()


def test_it_learns(model: ScratchModel) -> None:
    """New pictures are classified correctly."""
    unseen = striped(64, seed=2)
    right = sum(model.logits(unseen).argmax(axis=1) == [sample.label for sample in unseen])
    assert right >= 62


def test_the_graph_computes_what_was_learned(model: ScratchModel) -> None:
    """Rounded weights, normalisation, brightness and both views included."""
    samples = striped(16, seed=3)
    session = open_session(model.export(temperature=2.0), optimise=True)
    pixels = np.stack([preprocess(sample.picture(SIDE), model.image) for sample in samples])
    scores, embedding = session.run([SCORES, EMBEDDING], {INPUT: pixels})
    cooled = model.logits(samples) / 2.0
    expected = np.exp(cooled) / np.exp(cooled).sum(axis=1, keepdims=True)
    assert 1e-4 > np.abs(expected - scores).max()
    assert (16, 192) == embedding.shape


def test_a_mirrored_picture_gets_the_same_prediction(model: ScratchModel) -> None:
    """The prediction is the mean of both views."""
    session = open_session(model.export(temperature=1.0), optimise=True)
    pixels = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    plain, mirrored = (
        session.run([SCORES], {INPUT: np.ascontiguousarray(each)})[0] for each in (pixels, pixels[:, :, ::-1])
    )
    assert 1e-5 > np.abs(plain - mirrored).max()


def test_rounding_costs_little() -> None:
    """Folding and rounding change logits by less than a hundredth of their spread."""
    torch.manual_seed(0)
    network = CompactNetwork(channels=1, classes=10).eval()
    weights = fold(network, mean=0.0, spread=1.0)
    pictures = torch.rand(8, 1, SIDE, SIDE) * 255
    rounded = ScratchModel(weights=weights, parameters=0)
    with torch.inference_mode():
        exact = ((network(pictures) + network(pictures.flip(3))) / 2).numpy()
    samples = [
        Sample(
            name=str(n), label=0, sha256=str(n), phash="", width=SIDE, height=SIDE,
            origin=ArrayPicture(pixels=np.rint(picture[0].numpy()).astype(np.uint8)),
        )
        for n, picture in enumerate(pictures)
    ]  # fmt: skip
    assert 0.05 * exact.std() > np.abs(exact - rounded.logits(samples)).max()


def test_an_interrupted_training_resumes_with_the_same_result(model: ScratchModel, tmp_path: Path) -> None:
    """Interrupted in the second epoch: the same bytes, since the seed decides everything random."""

    def interrupt(progress: TrainProgress) -> None:
        if progress.epoch == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        fitted(work_dir=tmp_path, on_progress=interrupt)
    steps: list[TrainProgress] = []
    resumed = fitted(work_dir=tmp_path, on_progress=steps.append)
    assert 2 == next(step.epoch for step in steps if step.stage == "training")
    assert model.export(temperature=1.0) == resumed.export(temperature=1.0)


def test_a_loss_that_is_not_finite_stops_the_training() -> None:
    """No model is returned."""
    pictures = np.full((8, 1, SIDE, SIDE), np.inf, np.float32)
    loader = SmallPictureLoader(
        pictures, np.zeros(8, np.int64), batch=4, seed=0, augmentation=Augmentation(hidden=0, shift=0)
    )
    with pytest.raises(TrainingDiverged):
        fit(CompactNetwork(channels=1, classes=2), loader, Schedule(epochs=1, peak_rate=0.1))


def test_an_epoch_number_always_gives_the_same_batches() -> None:
    """A resumed training depends on it."""
    random = np.random.default_rng(0)
    pictures, labels = random.normal(size=(20, 1, SIDE, SIDE)).astype(np.float32), np.arange(20)
    loader = SmallPictureLoader(pictures, labels, batch=8, seed=1, augmentation=Augmentation(small_epochs=1))
    first, again, later = (list(loader.batches(epoch)) for epoch in (3, 3, 4))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(first, again, strict=True))
    assert not torch.equal(first[0][0], later[0][0])
    assert (8, 1, 20, 20) == next(iter(loader.batches(0)))[0].shape
