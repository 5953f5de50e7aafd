"""What is called unusual, and what is only chance."""

from __future__ import annotations

import pytest

from shoplens.batch.report import CategoryShare, compare


def share_of(label: str, current: dict[str, int], before: list[dict[str, int]]) -> CategoryShare:
    """One category of the comparison."""
    return next(each for each in compare(current, before) if each.label == label)


def test_shares_are_of_all_classified_items_current_and_usually() -> None:
    """The average is over all items of the earlier runs; the most frequent category comes first."""
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
def test_a_category_is_highlighted_only_beyond_chance(count: int, unusual: bool) -> None:
    """In either direction."""
    found = share_of("dress", {"dress": count, "hat": 100 - count}, [{"dress": 300, "hat": 700}])
    assert unusual is found.unusual


def test_few_items_are_never_highlighted() -> None:
    """Neither in the run nor in the earlier runs."""
    assert not share_of("dress", {"dress": 29}, [{"hat": 1000}]).unusual
    assert not share_of("dress", {"dress": 1000}, [{"hat": 29}]).unusual
    assert share_of("dress", {"dress": 30}, [{"hat": 1000}]).unusual


def test_runs_that_differ_among_themselves_raise_the_threshold() -> None:
    """With 100,000 items chance alone is tiny; a share that varies by ten points per run is not unusual at five."""
    swinging = [{"dress": dresses, "hat": 100_000 - dresses} for dresses in (25_000, 35_000, 28_000, 32_000)]
    steady = [{"dress": 30_000, "hat": 70_000}] * 4
    current = {"dress": 35_000, "hat": 65_000}
    assert not share_of("dress", current, swinging).unusual
    assert share_of("dress", current, steady).unusual


def test_a_missing_category_is_highlighted() -> None:
    """Its share is zero."""
    found = share_of("hat", {"dress": 500}, [{"dress": 500, "hat": 500}])
    assert (0, 0.0, 0.5, True) == (found.count, found.share, found.usual, found.unusual)


def test_without_earlier_runs_nothing_is_compared() -> None:
    """Runs without items do not count."""
    found = share_of("dress", {"dress": 500}, [{}])
    assert (None, None, False) == (found.usual, found.z, found.unusual)


def test_an_empty_run_has_shares_of_zero() -> None:
    """Without a division by zero."""
    assert [] == compare({}, [])
    assert 0.0 == share_of("dress", {}, [{"dress": 5}]).share


def test_equal_shares_have_a_z_value_of_zero() -> None:
    """Also with a variance of zero."""
    assert 0.0 == share_of("dress", {"dress": 50}, [{"dress": 100}]).z
