"""What the history of a model answers."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from shoplens.registry.entities import HistoryEntry, live_at, previous_champion


def entry(day: int, after: str | None, alias: str = "champion") -> HistoryEntry:
    """On a day of March."""
    return HistoryEntry(
        at=datetime(2026, 3, day, 12, tzinfo=UTC),
        by="ann",
        name="fruit",
        alias="champion" if alias == "champion" else "challenger",
        before=None,
        after=after,
        why="a test",
        figures={},
    )


@pytest.mark.parametrize(
    ("line", "before"),
    [
        ("", None),
        ("1", None),
        ("12", "1"),
        ("123", "2"),
        ("1232", "1"),  # rolled back from 3 to 2: the next one back is 1, not 3
        ("12321", None),
        ("12323", "2"),  # 3 was promoted again
        ("123-", "3"),  # taken away: nothing is live
        ("121", None),
    ],
)
def test_a_roll_back_goes_one_version_further_back_each_time(line: str, before: str | None) -> None:
    """Not back and forth between two."""
    history = [entry(1 + day, None if version == "-" else version) for day, version in enumerate(line)]
    assert before == previous_champion(history)


def test_what_was_live_at_a_moment_is_the_last_change_before_it() -> None:
    """Of this alias."""
    history = [entry(1, "1"), entry(2, "2"), entry(3, "9", "challenger"), entry(4, None)]
    found = [live_at(history, datetime(2026, 3, day, 13, tzinfo=UTC)) for day in (1, 2, 3, 4)]
    assert ["1", "2", "2", None] == [each.after if each else "nothing" for each in found]
    assert live_at(history, datetime(2026, 3, 1, 11, tzinfo=UTC)) is None
    assert live_at(history, datetime(2026, 3, 2, tzinfo=UTC), "challenger") is None
