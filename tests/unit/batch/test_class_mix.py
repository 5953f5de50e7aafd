"""What is called unusual, and what is only chance."""

from __future__ import annotations

import pytest

from shoplens.batch.class_mix import CategoryShare, compare


def share_of(label: str, tonight: dict[str, int], before: list[dict[str, int]]) -> CategoryShare:
    """One category of the comparison."""
    return next(each for each in compare(tonight, before) if each.label == label)


def test_shares_are_of_all_classified_items_tonight_and_usually() -> None:
    """The usual one is over all items of the nights before, the most frequent category comes first."""
    found = compare({"dress": 30, "hat": 10}, [{"dress": 10, "hat": 10}, {"dress": 70, "hat": 10}])
    assert ["dress", "hat"] == [each.label for each in found]
    assert [0.75, 0.25] == [each.share for each in found]
    assert [0.8, 0.2] == [each.usual for each in found]


def test_the_z_value_is_that_of_two_proportions() -> None:
    """50 of 100 against 300 of 1000: pooled 350 / 1100, so z = 0.2 / 0.04885 = 4.09."""
    found = share_of("dress", {"dress": 50, "hat": 50}, [{"dress": 300, "hat": 700}])
    assert 4.0942 == pytest.approx(found.z, abs=1e-3)
    assert found.unusual


@pytest.mark.parametrize(("count", "unusual"), [(30, False), (39, False), (46, True), (15, True)])
def test_a_category_is_marked_only_beyond_chance(count: int, unusual: bool) -> None:
    """Either more or less than usual."""
    found = share_of("dress", {"dress": count, "hat": 100 - count}, [{"dress": 300, "hat": 700}])
    assert unusual is found.unusual


def test_few_items_are_never_called_unusual() -> None:
    """29 of one kind prove nothing; neither do nights before with 29 items in all."""
    assert not share_of("dress", {"dress": 29}, [{"hat": 1000}]).unusual
    assert not share_of("dress", {"dress": 1000}, [{"hat": 29}]).unusual
    assert share_of("dress", {"dress": 30}, [{"hat": 1000}]).unusual


def test_nights_that_differ_among_themselves_set_the_measure() -> None:
    """With 100,000 items a night, chance alone is tiny; what swings by ten points each night is no news at five."""
    swinging = [{"dress": dresses, "hat": 100_000 - dresses} for dresses in (25_000, 35_000, 28_000, 32_000)]
    steady = [{"dress": 30_000, "hat": 70_000}] * 4
    tonight = {"dress": 35_000, "hat": 65_000}
    assert not share_of("dress", tonight, swinging).unusual
    assert share_of("dress", tonight, steady).unusual


def test_a_category_that_is_gone_is_told() -> None:
    """Zero tonight is a fact too."""
    found = share_of("hat", {"dress": 500}, [{"dress": 500, "hat": 500}])
    assert (0, 0.0, 0.5, True) == (found.count, found.share, found.usual, found.unusual)


def test_without_nights_before_nothing_is_compared() -> None:
    """The first night has no usual shares; nights without items count as none."""
    found = share_of("dress", {"dress": 500}, [{}])
    assert (None, None, False) == (found.usual, found.z, found.unusual)


def test_an_empty_night_has_shares_of_zero() -> None:
    """Nothing is divided by nothing."""
    assert [] == compare({}, [])
    assert 0.0 == share_of("dress", {}, [{"dress": 5}]).share


def test_the_same_everywhere_differs_by_nothing() -> None:
    """A variance of zero is no division by zero."""
    assert 0.0 == share_of("dress", {"dress": 50}, [{"dress": 100}]).z
