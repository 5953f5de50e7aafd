"""The logistic regression of the recipe `head`."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from shoplens.training.recipes.head import PENALTIES, choose_penalty, fit_regression

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]


def clouds(seed: int, *, apart: float, each: int = 60, classes: int = 3) -> tuple[Floats, Labels]:
    """Normal clouds of points in twenty dimensions whose centres are `apart` along one dimension per class."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    points = random.normal(size=(classes * each, 20)).astype(np.float32)
    points[np.arange(classes * each), labels] += apart
    return points, labels


@pytest.mark.parametrize("classes", [2, 3])
def test_separable_classes_are_separated(classes: int) -> None:
    """Points that it was not trained on get the right class."""
    features, labels = clouds(1, apart=8.0, classes=classes)
    new, truth = clouds(2, apart=8.0, classes=classes)
    head = fit_regression(features, labels, classes, penalty=1e-3)
    assert ((classes, 20), (classes,)) == (head.weight.shape, head.bias.shape)
    assert truth.tolist() == head.logits(new).argmax(axis=1).tolist()


def test_noise_gets_the_strongest_penalty() -> None:
    """If nothing separates the classes, the strongest penalty predicts best."""
    features, labels = clouds(4, apart=0.0)
    assert max(PENALTIES) == choose_penalty(features, labels, seed=0)


def test_tiny_classes_do_not_prevent_the_choice_of_a_penalty() -> None:
    """A class of one sample cannot be in every fold; with too few samples the penalty is the middle one."""
    features, labels = clouds(4, apart=0.0)
    labels[0] = 3
    assert max(PENALTIES) == choose_penalty(features, labels, seed=0)
    assert 1e-2 == choose_penalty(features[:4], np.arange(4), seed=0)


def test_the_same_data_gives_the_same_weights() -> None:
    """Nothing in the fit is random."""
    features, labels = clouds(5, apart=2.0)
    first, second = (fit_regression(features, labels, 3, penalty=0.01) for _ in range(2))
    assert first.weight.tobytes() == second.weight.tobytes()


def test_an_offset_of_all_features_changes_no_logit() -> None:
    """Features are centred."""
    features, labels = clouds(6, apart=2.0)
    plain = fit_regression(features, labels, 3, penalty=0.01).logits(features)
    moved = fit_regression(features + 100, labels, 3, penalty=0.01).logits(features + 100)
    assert np.allclose(plain, moved, atol=2e-2)
