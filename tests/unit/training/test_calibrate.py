"""Temperature scaling finds the likeliest temperature; the calibration error is that of the literature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shoplens.training.calibrate import calibration_error, cross_fitted_error, fit_temperature, softmax


def drawn(count: int, classes: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits, and labels drawn with the probabilities of their softmax."""
    random = np.random.default_rng(seed)
    logits = 2 * random.normal(size=(count, classes))
    chances = softmax(logits).cumsum(axis=1)
    return logits, (random.random((count, 1)) > chances).sum(axis=1)


def likelihood(logits: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> float:
    """The mean negative log likelihood of the labels."""
    return float(-np.log(softmax(logits, temperature)[np.arange(len(labels)), labels]).mean())


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5, 6.0])
def test_a_known_temperature_is_recovered(temperature: float) -> None:
    """The logits are scaled by it; 40,000 labels leave little to chance."""
    logits, labels = drawn(40_000, 5, seed=1)
    assert temperature == pytest.approx(fit_temperature(temperature * logits, labels), rel=0.03)


@given(seed=st.integers(0, 50), factor=st.sampled_from([0.2, 1.0, 5.0]))
def test_no_other_temperature_is_likelier(seed: int, factor: float) -> None:
    """Neither a slightly higher nor a slightly lower one, nor 1."""
    logits, labels = drawn(60, 4, seed)
    found = fit_temperature(factor * logits, labels)
    least = likelihood(factor * logits, labels, found)
    for other in (0.97 * found, 1.03 * found, 1.0):
        if 0.05 <= other <= 20:
            assert least <= likelihood(factor * logits, labels, other) + 1e-9


def test_the_temperature_is_one_if_every_prediction_is_correct() -> None:
    """Any lower one would be likelier, down to absolute certainty."""
    assert 1.0 == fit_temperature(np.eye(3), np.arange(3))
    assert 1.0 == fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64))


def test_a_model_that_is_worse_than_guessing_gets_the_greatest_temperature() -> None:
    """The likelihood has no maximum below it."""
    assert 20.0 == pytest.approx(fit_temperature(50 * np.eye(3), np.array([1, 2, 0])), rel=1e-6)


def test_huge_logits_do_not_overflow() -> None:
    """Their softmax is still a row of probabilities."""
    assert [1.0, 0.0] == softmax(np.array([[1e6, -1e6]]))[0].tolist()
    assert np.isfinite(fit_temperature(np.array([[1e5, 0.0], [1e5, 0.0]]), np.array([0, 1])))


def test_the_calibration_error_is_as_computed_by_hand() -> None:
    """Two bins: (0.6, 2/3] with half right, and (14/15, 1] with all right; the mean gap weighs their samples."""
    scores = np.array([[0.64, 0.36], [0.62, 0.38], [0.98, 0.02], [0.06, 0.94]])
    labels = np.array([0, 1, 0, 1])
    expected = 0.5 * abs(0.5 - 0.63) + 0.5 * abs(1.0 - 0.96)
    assert expected == pytest.approx(calibration_error(scores, labels))


def test_the_edge_of_a_bin_belongs_to_the_lower_bin() -> None:
    """As in the paper: a score of 1 is in the last bin, one of exactly 0.2 in the third of fifteen."""
    assert 0.0 == calibration_error(np.array([[1.0, 0.0]]), np.array([0]))
    fifth = np.full((1, 5), 0.2)
    assert 0.8 == pytest.approx(calibration_error(fifth, np.array([0])))
    assert 0.0 == calibration_error(np.zeros((0, 5)), np.zeros(0, np.int64))


def test_calibration_lowers_the_error_of_an_overconfident_model() -> None:
    """From a fifth to almost zero."""
    logits, labels = drawn(20_000, 6, seed=4)
    before = calibration_error(softmax(4 * logits), labels)
    after = calibration_error(softmax(4 * logits, fit_temperature(4 * logits, labels)), labels)
    assert (True, True) == (before > 0.15, after < 0.02)


def test_the_cross_fitted_error_uses_the_temperature_of_the_other_half() -> None:
    """Both temperatures are near the true one and not the same; the seed decides the halves."""
    logits, labels = drawn(4_000, 6, seed=5)
    crossed = cross_fitted_error(3 * logits, labels, seed=0)
    assert [pytest.approx(3.0, rel=0.1)] * 2 == list(crossed.temperatures)
    assert crossed.temperatures[0] != crossed.temperatures[1]
    assert crossed == cross_fitted_error(3 * logits, labels, seed=0)
    assert crossed.temperatures != cross_fitted_error(3 * logits, labels, seed=1).temperatures
    assert crossed.ece < calibration_error(softmax(3 * logits), labels)
