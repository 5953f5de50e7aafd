"""Logistic regression without torch: it finds what separates, and holds back where there is nothing to find."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shoplens.training.recipes.regression import (
    PENALTIES,
    choose_penalty,
    fit_regression,
    negative_log_likelihood,
)

Floats = NDArray[np.float32]


def clouds(seed: int, *, apart: float, each: int = 60) -> tuple[Floats, list[int]]:
    """Three clouds of points in twenty dimensions whose middles lie `apart` along three of them."""
    random = np.random.default_rng(seed)
    labels = [label for label in range(3) for _ in range(each)]
    points = random.normal(size=(3 * each, 20)).astype(np.float32)
    points[np.arange(3 * each), labels] += apart
    return points, labels


def test_what_can_be_separated_is_separated() -> None:
    """Far clouds are told apart without a mistake, also ones that were not learned from."""
    known, labels = clouds(1, apart=8.0)
    other, truth = clouds(2, apart=8.0)
    model = fit_regression(known, labels, 3, penalty=1e-3)
    assert truth == model.logits(other).argmax(axis=1).tolist()


def test_the_loss_is_at_its_least() -> None:
    """Any small change of the weights makes the penalised loss greater."""
    known, labels = clouds(3, apart=1.0)
    penalty = 0.1
    model = fit_regression(known, labels, 3, penalty=penalty)
    scale = float((known - known.mean(axis=0)).std())

    def loss(weight: Floats, bias: Floats) -> float:
        missed = negative_log_likelihood(known @ weight.T + bias, np.asarray(labels)) / len(labels)
        return missed + 0.5 * penalty * float(np.square(weight * scale).sum())

    least, random = loss(model.weight, model.bias), np.random.default_rng(0)
    for _ in range(20):
        change = random.normal(scale=0.02, size=model.weight.shape).astype(np.float32)
        assert loss(model.weight + change, model.bias) > least


def test_noise_is_answered_with_a_great_penalty() -> None:
    """Where nothing separates the classes, the strongest penalty predicts best."""
    known, labels = clouds(4, apart=0.0)
    assert max(PENALTIES) == choose_penalty(known, labels, 3, seed=0)


def test_the_same_data_gives_the_same_weights() -> None:
    """Nothing in it is random."""
    known, labels = clouds(5, apart=2.0)
    first, second = (fit_regression(known, labels, 3, penalty=0.01) for _ in range(2))
    assert first.weight.tobytes() == second.weight.tobytes()


def test_an_offset_of_all_features_changes_nothing() -> None:
    """Features are centred, so where their zero lies does not matter."""
    known, labels = clouds(6, apart=2.0)
    plain = fit_regression(known, labels, 3, penalty=0.01).logits(known)
    moved = fit_regression(known + 100, labels, 3, penalty=0.01).logits(known + 100)
    assert np.allclose(plain, moved, atol=2e-2)
