"""When the disk will be full, from how its free room fell until now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import combinations
from statistics import median
from typing import Final

from shoplens.messages import marked
from shoplens.monitoring.series.entities import DAY_S, HOUR_S

LOOKED_AT_S: Final = 14 * DAY_S
PART_S: Final = 6 * HOUR_S
"""How far back it looks, and how long the parts are of which each counts once."""
LEAST_SPAN_S: Final = 3 * DAY_S
LEAST_PARTS: Final = 10
_FARTHEST_DAYS: Final = 730.0


class DiskTrend(StrEnum):
    """What can be said of a disk."""

    UNKNOWN = "unknown"
    """Photos and database lie on other machines, or nobody has looked yet."""
    TOO_EARLY = "too_early"
    STEADY = "steady"
    """It does not fill up within two years at this rate."""
    FILLING = "filling"


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskForecast:
    """`days_left` and `full_at` are there while it fills up; `bytes_per_day` once there is enough to look at."""

    trend: DiskTrend
    free_bytes: int | None = None
    total_bytes: int | None = None
    bytes_per_day: float | None = None
    days_left: float | None = None
    full_at: datetime | None = None

    @property
    def sentence(self) -> str:
        """For people, in English."""
        match self.trend:
            case DiskTrend.UNKNOWN:
                return marked(
                    "Nothing is known of a disk: photos and database lie on other machines, or nobody looked yet."
                )
            case DiskTrend.TOO_EARLY:
                return marked("A forecast for the disk needs three days of figures; there are fewer.")
            case DiskTrend.STEADY:
                return marked("At the rate of the last two weeks the disk lasts for more than two years.")
        days = max(1, round(self.days_left or 0))
        per_day, date = (self.bytes_per_day or 0) / 1e9, f"{self.full_at:%d %B %Y}"
        rate = marked(f"at the {per_day:.3g} GB a day of the last two weeks")
        if days == 1:
            return marked(f"The disk is full in about {days} day ({date}), {rate}.")
        return marked(f"The disk is full in about {days} days ({date}), {rate}.")


def forecast(free: Sequence[tuple[int, int]], *, total_bytes: int | None, now: datetime) -> DiskForecast:
    """From the least free bytes of each part that somebody watched, with the Unix second at which it began.

    The rate is the median of the slopes between all pairs of parts (Theil-Sen): a clean-up, or one large import, moves
    it little. Parts that nobody watched are not there, and change nothing.
    """
    if not free:
        return DiskForecast(trend=DiskTrend.UNKNOWN)
    points = sorted(free)
    now_free = points[-1][1]
    if len(points) < LEAST_PARTS or points[-1][0] - points[0][0] < LEAST_SPAN_S:
        return DiskForecast(trend=DiskTrend.TOO_EARLY, free_bytes=now_free, total_bytes=total_bytes)
    rate = median((later[1] - first[1]) / (later[0] - first[0]) for first, later in combinations(points, 2)) * DAY_S
    days_left = now_free / -rate if rate < 0 else None
    if days_left is None or days_left > _FARTHEST_DAYS:
        return DiskForecast(trend=DiskTrend.STEADY, free_bytes=now_free, total_bytes=total_bytes, bytes_per_day=-rate)
    return DiskForecast(
        trend=DiskTrend.FILLING,
        free_bytes=now_free,
        total_bytes=total_bytes,
        bytes_per_day=-rate,
        days_left=days_left,
        full_at=datetime.fromtimestamp(now.timestamp() + days_left * DAY_S, UTC),
    )
