"""Temperature scaling and the expected calibration error.

Method: Guo et al., "On Calibration of Modern Neural Networks" (2017), with 15 bins of equal width. One number is
fitted, and no prediction changes its first label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

BINS: Final = 15
_MIN_TEMPERATURE, _MAX_TEMPERATURE = 0.05, 20.0

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFitted:
    """The calibration error with temperatures that were fitted on the other half of the samples."""

    ece: float
    temperatures: tuple[float, float]


def softmax(logits: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """(n, classes) scores that sum to one."""
    return np.asarray(scipy_softmax(np.asarray(logits, np.float64) / temperature, axis=1), np.float64)


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The temperature from 0.05 to 20 that maximises the likelihood of `labels` (n,), given `logits` (n, classes).

    It is 1 if every prediction is correct, because any lower temperature would then be more likely.
    """
    if not len(labels) or (logits.argmax(axis=1) == labels).all():
        return 1.0
    values, rows = np.asarray(logits, np.float64), np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(values / np.exp(log_temperature), axis=1)[rows, labels].mean())

    bounds = (np.log(_MIN_TEMPERATURE), np.log(_MAX_TEMPERATURE))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, options={"xatol": 1e-8}).x))


def calibration_error(scores: Floats, labels: Labels) -> float:
    """The expected calibration error of the first labels: the mean difference of their score and accuracy by bin."""
    if not len(labels):
        return 0.0
    best = scores.max(axis=1)
    correct = scores.argmax(axis=1) == labels
    bins = np.clip(np.ceil(best * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, correct - best, BINS)
    return float(np.abs(gaps).sum() / len(labels))


def cross_fitted_error(logits: Floats, labels: Labels, *, seed: int) -> CrossFitted:
    """Scale each random half with the temperature of the other, so that no sample is judged by a fit to itself."""
    order = np.random.default_rng(seed).permutation(len(labels))
    one, other = order[::2], order[1::2]
    temperatures = fit_temperature(logits[other], labels[other]), fit_temperature(logits[one], labels[one])
    scores = np.concatenate([softmax(logits[one], temperatures[0]), softmax(logits[other], temperatures[1])])
    return CrossFitted(ece=calibration_error(scores, labels[np.concatenate([one, other])]), temperatures=temperatures)
