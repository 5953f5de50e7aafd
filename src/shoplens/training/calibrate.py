"""Make scores mean what they say: logits and labels in, a temperature and calibration errors out. Pure.

Method: temperature scaling and the expected calibration error with 15 equally wide bins, both from Guo et al., "On
Calibration of Modern Neural Networks" (2017). One number is fitted, and no answer changes its first label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 15
_LEAST, _MOST = 0.05, 20.0
_HALVINGS: Final = 50

Floats = NDArray[np.floating]
Labels = NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossFitted:
    """The calibration error with temperatures that were fitted on the other half of the samples."""

    ece: float
    temperatures: tuple[float, float]


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """The temperature from 0.05 to 20 under which `labels` (n,) are likeliest, given `logits` (n, classes).

    Where no answer is wrong, any lower temperature would be likelier still; then it stays 1.
    """
    values = np.asarray(logits, np.float64)
    values = values - values.max(axis=1, keepdims=True)
    truth = values[np.arange(len(labels)), labels]
    if not len(labels) or (values.argmax(axis=1) == labels).all():
        return 1.0
    low, high = 1 / _MOST, 1 / _LEAST
    for _ in range(_HALVINGS):
        middle = (low * high) ** 0.5
        if _slope(values, truth, middle) > 0:
            high = middle
        else:
            low = middle
    return float(1 / (low * high) ** 0.5)


def softmax(logits: Floats, temperature: float = 1.0) -> NDArray[np.float64]:
    """(n, classes) scores that sum to one."""
    scaled = np.asarray(logits, np.float64) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)


def calibration_error(scores: Floats, labels: Labels) -> float:
    """The expected calibration error of the first labels: by how much their scores differ from their accuracy."""
    if not len(labels):
        return 0.0
    best = scores.max(axis=1)
    right = scores.argmax(axis=1) == labels
    bins = np.clip(np.ceil(best * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, right - best, BINS)
    return float(np.abs(gaps).sum() / len(labels))


def cross_fitted_error(logits: Floats, labels: Labels, *, seed: int) -> CrossFitted:
    """Each half is scaled with the temperature of the other, so that nothing is judged by what it was fitted to."""
    order = np.random.default_rng(seed).permutation(len(labels))
    halves = order[::2], order[1::2]
    temperatures = (
        fit_temperature(logits[halves[1]], labels[halves[1]]),
        fit_temperature(logits[halves[0]], labels[halves[0]]),
    )
    scores = np.concatenate([softmax(logits[half], t) for half, t in zip(halves, temperatures, strict=True)])
    return CrossFitted(ece=calibration_error(scores, labels[np.concatenate(halves)]), temperatures=temperatures)


def _slope(values: NDArray[np.float64], truth: NDArray[np.float64], inverse: float) -> float:
    """How the negative log likelihood grows with the inverse temperature, in which it is convex."""
    powers = np.exp(inverse * values)
    expected = (powers * values).sum(axis=1) / powers.sum(axis=1)
    return float((expected - truth).mean())
