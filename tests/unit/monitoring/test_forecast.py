"""When the disk will be full: only where there is enough to look at, and little moved by one clean-up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shoplens.monitoring.series.entities import HOUR_S
from shoplens.monitoring.series.forecast import PART_S, DiskTrend, forecast

NOW = datetime(2026, 5, 15, 12, 0, tzinfo=UTC)
GB = 1_000_000_000


def falling(parts: int, *, per_day: float = 4.0, free: float = 100.0) -> list[tuple[int, int]]:
    """Free bytes that fell by `per_day` GB until now, when `free` GB are left."""
    end = int(NOW.timestamp()) // PART_S * PART_S
    return [(end - PART_S * ago, int((free + per_day * ago / 4) * GB)) for ago in range(parts - 1, -1, -1)]


def test_a_disk_that_fills_up_says_when() -> None:
    """100 GB left at 4 GB a day."""
    found = forecast(falling(56), total_bytes=500 * GB, now=NOW)
    assert DiskTrend.FILLING is found.trend
    assert 25.0 == pytest.approx(found.days_left or 0)
    assert found.full_at == NOW + timedelta(days=25)
    assert (
        "The disk is full in about 25 days (09 June 2026), at the 4 GB a day of the last two weeks." == found.sentence
    )


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], DiskTrend.UNKNOWN),
        (falling(9), DiskTrend.TOO_EARLY),
        (falling(11), DiskTrend.TOO_EARLY),
        (falling(13), DiskTrend.FILLING),
        (falling(56, per_day=0), DiskTrend.STEADY),
        (falling(56, per_day=-3), DiskTrend.STEADY),
        (falling(56, per_day=0.1), DiskTrend.STEADY),
    ],
)
def test_without_enough_to_look_at_it_says_so(points: list[tuple[int, int]], expected: DiskTrend) -> None:
    """And a disk that would last for years, or becomes emptier, is not said to fill up."""
    found = forecast(points, total_bytes=None, now=NOW)
    assert expected is found.trend
    assert found.sentence.endswith(".")
    assert (found.days_left is None) == (expected is not DiskTrend.FILLING)


def test_one_clean_up_and_a_gap_move_the_forecast_little() -> None:
    """30 GB were deleted nine days ago, and two days were not seen."""
    points = [(at, free - (30 * GB if index < 20 else 0)) for index, (at, free) in enumerate(falling(56))]
    found = forecast(points[:30] + points[38:], total_bytes=None, now=NOW)
    assert 22 < (found.days_left or 0) < 40


def test_one_hour_alone_is_no_trend() -> None:
    """However much was written in it."""
    assert DiskTrend.TOO_EARLY is forecast([(0, 100), (HOUR_S, 10)], total_bytes=None, now=NOW).trend
