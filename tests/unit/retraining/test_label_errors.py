"""Labels that are probably wrong are found, and hard classes are not suspected as a whole."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from shoplens.retraining.label_errors import doubts, out_of_fold

EACH = 60


def clouds(seed: int, *, apart: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Three normal clouds in six dimensions."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), EACH)
    points = random.normal(size=(3 * EACH, 6))
    points[np.arange(3 * EACH), labels] += apart
    return points, labels


def test_swapped_labels_are_found_and_right_ones_are_not() -> None:
    """Nine of ten that were swapped, and hardly another one."""
    points, truth = clouds(1, apart=5.0)
    swapped = np.random.default_rng(2).choice(3 * EACH, 12, replace=False)
    given = truth.copy()
    given[swapped] = (truth[swapped] + 1) % 3
    found = doubts(out_of_fold(points, given.tolist(), list(range(3 * EACH))), given.tolist())
    indices = [each.index for each in found]
    assert len(set(indices) & set(swapped.tolist())) >= 11
    assert len(set(indices) - set(swapped.tolist())) <= 2
    assert all(each.suggested == truth[each.index] for each in found if each.index in swapped)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


def test_a_copy_of_a_sample_does_not_vouch_for_its_label() -> None:
    """Near-duplicates are on the same side of each fold."""
    points, truth = clouds(3, apart=5.0)
    copies = np.concatenate([points, np.repeat(points[:1], 10, axis=0)])
    given = np.concatenate([truth, np.full(10, 1)])
    given[0] = 1
    groups = [*range(3 * EACH), *([0] * 10)]
    found = {each.index for each in doubts(out_of_fold(copies, given.tolist(), groups), given.tolist())}
    assert {0, *range(3 * EACH, 3 * EACH + 10)} <= found


def test_where_a_class_is_hard_its_own_samples_set_the_threshold() -> None:
    """Of a class that the model gives 0.4 at best, a sample with 0.4 is no suspect for another class with 0.5."""
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.95, 0.05]])
    assert [4] == [each.index for each in doubts(probabilities, [0, 0, 1, 1, 1])]


def test_a_class_that_no_sample_has_is_never_suggested() -> None:
    """Nothing is known of it."""
    probabilities = np.array([[0.2, 0.1, 0.7], [0.1, 0.2, 0.7]])
    assert [] == doubts(probabilities, [0, 1])
