"""Embeddings as short vectors whose means can be compared day by day.

A random projection keeps distances (Johnson and Lindenstrauss 1984). Random Fourier features turn the mean embedding
of a Gaussian kernel into a plain mean vector (Rahimi and Recht 2007), so the distance of two means is an estimate of
the maximum mean discrepancy (MMD; Gretton et al. 2012), without any photo of the other days.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np

from shoplens.monitoring.drift.profile import Floats, MeanVector, Measure

DIMENSIONS: Final = 64
_WAVES: Final = 128
_BANDWIDTHS: Final = (0.3, 0.6, 1.2)
"""For vectors of length 1, whose distances are 0 to 2: near, middle and far neighbours count alike."""


def reduced(embeddings: Floats) -> Floats:
    """(n, DIMENSIONS) from (n, any number of dimensions): each of length 1, then projected if it is longer."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = np.divide(embeddings, lengths, out=np.zeros_like(embeddings, dtype=float), where=lengths > 0)
    if unit.shape[1] <= DIMENSIONS:
        return np.pad(unit, ((0, 0), (0, DIMENSIONS - unit.shape[1])))
    points: Floats = unit @ _projection(unit.shape[1])
    return points


def kernel_features(points: Floats) -> Floats:
    """(n, 2 x waves) from (n, DIMENSIONS): the scalar product of two rows is about the kernel of the two points."""
    angles = points @ _waves()
    features: Floats = np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(_WAVES)
    return features


def vectors_of(points: Floats, features: Floats) -> dict[Measure, MeanVector]:
    """What a profile keeps of the points of a day and of their kernel features."""
    return {Measure.EMBEDDING_MEAN: MeanVector.of(points), Measure.EMBEDDING_MMD: MeanVector.of(features)}


def strangeness(features: Floats, reference: MeanVector) -> Floats:
    """(n,): how far each row lies from the reference, 0 to about 1: 1 minus its density under the kernel."""
    distances: Floats = 1.0 - features @ reference.mean
    return distances


# The stream of RandomState is the same in every version of numpy, unlike that of its successor. The vectors of days
# are compared over months, so they have to be made with the same numbers.
@cache
def _projection(dimensions: int) -> Floats:
    normal = np.random.RandomState(dimensions).standard_normal((dimensions, DIMENSIONS))
    return np.asarray(normal / np.sqrt(DIMENSIONS), float)


@cache
def _waves() -> Floats:
    widths = np.resize(_BANDWIDTHS, _WAVES)
    return np.asarray(np.random.RandomState(1).standard_normal((DIMENSIONS, _WAVES)) / widths, float)
