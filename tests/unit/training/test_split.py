"""What is held out is a fair share of every class, never a part of a group, and always the same."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from shoplens.training.split import held_out

SAMPLES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 12)), max_size=80)
FRACTIONS = st.sampled_from([0.1, 0.25, 0.5])


@given(samples=SAMPLES, fraction=FRACTIONS, seed=st.integers(0, 5))
def test_a_group_is_never_divided(samples: list[tuple[int, int]], fraction: float, seed: int) -> None:
    """Whatever its labels are."""
    labels, groups = [label for label, _ in samples], [group for _, group in samples]
    mask = held_out(labels, groups, fraction=fraction, seed=seed)
    sides = defaultdict(set)
    for group, held in zip(groups, mask.tolist(), strict=True):
        sides[group].add(held)
    assert all(len(side) == 1 for side in sides.values())


@given(samples=SAMPLES, fraction=FRACTIONS, seed=st.integers(0, 5))
def test_something_of_every_class_is_left_to_train(samples: list[tuple[int, int]], fraction: float, seed: int) -> None:
    """A group counts for the class of its first sample."""
    labels, groups = [label for label, _ in samples], [group for _, group in samples]
    mask = held_out(labels, groups, fraction=fraction, seed=seed)
    leaders = {group: labels[groups.index(group)] for group in groups}
    kept = {leaders[group] for group, held in zip(groups, mask.tolist(), strict=True) if not held}
    assert set(leaders.values()) == kept


@given(samples=SAMPLES, fraction=FRACTIONS)
def test_the_same_seed_gives_the_same_mask(samples: list[tuple[int, int]], fraction: float) -> None:
    """Today and tomorrow."""
    labels, groups = [label for label, _ in samples], [group for _, group in samples]
    masks = [held_out(labels, groups, fraction=fraction, seed=3).tolist() for _ in range(2)]
    assert masks[0] == masks[1]


@given(sizes=st.lists(st.integers(2, 60), min_size=1, max_size=4), fraction=FRACTIONS)
def test_the_share_holds_in_every_class_where_groups_are_single(sizes: list[int], fraction: float) -> None:
    """Rounded up, and at least one."""
    labels = [label for label, size in enumerate(sizes) for _ in range(size)]
    mask = held_out(labels, list(range(len(labels))), fraction=fraction, seed=0)
    held = np.bincount(np.array(labels)[mask], minlength=len(sizes)).tolist()
    assert [min(size - 1, int(np.ceil(fraction * size))) for size in sizes] == held


def test_another_seed_holds_others_out() -> None:
    """Otherwise the seed would mean nothing."""
    masks = [held_out([0] * 100, range(100), fraction=0.2, seed=seed).tolist() for seed in range(2)]
    assert masks[0] != masks[1]
