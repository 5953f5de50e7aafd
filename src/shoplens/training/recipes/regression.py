"""Multinomial logistic regression with numpy: features in, a matrix and an offset out. Deterministic.

Method: accelerated gradient descent (Nesterov 1983) on centred features, with the step that the curvature allows. The
strength of the penalty is the one that predicts held-out parts best (cross-validation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

PENALTIES: Final = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
_STEPS: Final = 200
_PARTS: Final = 3
_ROUNDS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """`weight` is (classes, features), `bias` (classes,): logits are features @ weight.T + bias."""

    weight: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """(n, classes)."""
        return np.asarray(features @ self.weight.T + self.bias, np.float32)


def fit_regression(features: Floats, labels: Sequence[int], classes: int, *, penalty: float) -> Regression:
    """The regression that fits `features` (n, f) to `labels` with `penalty` on the squared weights."""
    mean = features.mean(axis=0)
    # One scale for all: what hardly varies hardly matters, and would be noise if it were blown up.
    spread = np.float32(max(float((features - mean).std()), 1e-6))
    known = np.asarray((features - mean) / spread, np.float32)
    targets = np.eye(classes, dtype=np.float32)[np.asarray(labels)]
    weight, bias = _descend(known, targets, penalty)
    scaled = np.asarray(weight / spread, np.float32)
    return Regression(weight=scaled, bias=np.asarray(bias - scaled @ mean, np.float32))


def choose_penalty(features: Floats, labels: Sequence[int], classes: int, *, seed: int) -> float:
    """The one of `PENALTIES` under which held-out parts are most likely."""
    truth = np.asarray(labels)
    part = np.random.default_rng(seed).permutation(len(truth)) % _PARTS

    def loss(penalty: float) -> float:
        total = 0.0
        for held in range(_PARTS):
            model = fit_regression(features[part != held], truth[part != held].tolist(), classes, penalty=penalty)
            total += negative_log_likelihood(model.logits(features[part == held]), truth[part == held])
        return total

    return min(PENALTIES, key=loss)


def negative_log_likelihood(logits: Floats, labels: NDArray[np.int64]) -> float:
    """Summed over the samples, in nats."""
    return float(-_log_softmax(logits)[np.arange(len(labels)), labels].sum())


def _descend(known: Floats, targets: Floats, penalty: float) -> tuple[Floats, Floats]:
    count, width = known.shape
    # The softmax loss bends at most half as much as the squared features do.
    bend = 0.5 * _stretch(known) / count + penalty
    weight = np.zeros((targets.shape[1], width), np.float32)
    bias = np.zeros(targets.shape[1], np.float32)
    ahead, offset = weight, bias
    for step in range(_STEPS):
        missed = (_softmax(known @ ahead.T + offset) - targets) / count
        new_weight = ahead - np.float32(1 / bend) * (missed.T @ known + np.float32(penalty) * ahead)
        new_bias = offset - np.float32(1 / bend) * missed.sum(axis=0)
        momentum = np.float32(step / (step + 3))
        ahead, offset = new_weight + momentum * (new_weight - weight), new_bias + momentum * (new_bias - bias)
        weight, bias = new_weight, new_bias
    return weight, bias


def _stretch(known: Floats) -> float:
    """The square of the greatest singular value, by power iteration, with a margin for what that misses."""
    direction = np.ones(known.shape[1], np.float32) / np.sqrt(np.float32(known.shape[1]))
    length = 1.0
    for _ in range(_ROUNDS):
        turned = (known @ direction) @ known
        length = float(np.linalg.norm(turned))
        direction = np.asarray(turned / np.float32(max(length, 1e-12)), np.float32)
    return 1.05 * length


def _softmax(logits: Floats) -> Floats:
    return np.asarray(np.exp(_log_softmax(logits)), np.float32)


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), np.float32)
