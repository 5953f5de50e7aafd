"""Charts: scales, gaps, and the table beside them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shoplens.web.charts import (
    Mark,
    Series,
    bar_chart,
    histogram,
    line_chart,
    nice_ticks,
    numbers_axis,
    slots_axis,
    times_axis,
)

START = datetime(2026, 1, 31, 22, 0, tzinfo=UTC)
HOURS = times_axis([START + timedelta(hours=each) for each in range(5)], step=timedelta(hours=1))


def count(value: float) -> str:
    """As on a page."""
    return f"{value:,.0f}"


@pytest.mark.parametrize(
    ("highest", "expected"),
    [
        (0.0, (0.0, 1.0)),
        (float("nan"), (0.0, 1.0)),
        (1.0, (0.0, 0.25, 0.5, 0.75, 1.0)),
        (7.0, (0.0, 2.0, 4.0, 6.0, 8.0)),
        (999.0, (0.0, 250.0, 500.0, 750.0, 1000.0)),
    ],
)
def test_the_scale_has_round_numbers_up_to_the_highest_value(highest: float, expected: tuple[float, ...]) -> None:
    """It begins at zero, so that heights can be compared."""
    assert expected == nice_ticks(highest)


def test_a_missing_value_breaks_the_line_and_is_no_zero() -> None:
    """A value alone between two gaps is as wide as its slot; the table and the pointer say "no data"."""
    chart = line_chart("Photos", HOURS, [Series(name="Photos", values=[4, 4, None, 2, None])], words=count)
    ((path, _),) = chart.lines
    assert "M100.0 0.0L300.0 0.0M600.0 90.0H800.0" == path
    assert [(400.0, 200.0), (800.0, 200.0)] == [(gap.x, gap.width) for gap in chart.gaps]
    assert ("2026-02-01 00:00", "no data") == chart.rows[2]
    assert "2026-02-01 00:00: no data" == chart.hovers[2].words
    assert ("no data", "gap") in chart.legend


def test_a_value_that_cannot_be_is_no_gap_where_somebody_looked() -> None:
    """An hour without an answer has no latency, and was seen all the same."""
    axis = replace(HOURS, known=(True, True, True, False, True))
    chart = line_chart("Latency", axis, [Series(name="p50", values=[4, None, 4, None, None])], words=count)
    assert [600.0] == [gap.x for gap in chart.gaps]
    assert ["4", "–", "4", "no data", "–"] == [row[1] for row in chart.rows]


def test_a_zero_is_drawn_on_the_ground() -> None:
    """Nothing was asked for is another statement than nobody looked."""
    chart = line_chart("Photos", HOURS, [Series(name="Photos", values=[0, 0, 0, 0, 4])], words=count)
    assert ((), f"M100.0 {chart.height}.0") == (chart.gaps, chart.lines[0][0].partition("L")[0])
    assert ("2026-01-31 22:00", "0") == chart.rows[0]


def test_columns_are_stacked_in_the_order_of_their_series() -> None:
    """Together they are as high as their sum on the scale."""
    good = Series(name="Answered", values=[3, 0, None, 1, 4])
    bad = Series(name="Failed", values=[1, 0, None, 0, 0], tone="red")
    chart = bar_chart("Requests", HOURS, [good, bad], words=count, height=100)
    below, above = chart.boxes[:2]
    assert (("accent", 25.0, 75.0), ("red", 0.0, 25.0)) == tuple(
        (box.tone, box.y, box.height) for box in (below, above)
    )
    assert 4 == len(chart.boxes)
    assert 1 == len(chart.gaps)


def test_few_texts_stand_below_many_points_at_round_times() -> None:
    """They have room on a phone."""
    midnight = START + timedelta(hours=2)
    axis = times_axis([midnight + timedelta(days=each) for each in range(90)], step=timedelta(days=1))
    assert ["1 Feb", "1 Mar", "1 Apr", "1 May"] == [text for _, text in axis.ticks]
    assert "2026-05-01" == axis.labels[-1]
    quarters = times_axis([START + timedelta(minutes=15 * each) for each in range(96)], step=timedelta(minutes=15))
    assert ["00:00", "06:00", "12:00", "18:00"] == [text for _, text in quarters.ticks]


def test_a_threshold_outside_of_the_plot_is_not_drawn() -> None:
    """A model change before the range shown is no mark at its edge."""
    marks = [Mark(at=0.5, name="clothing@2"), Mark(at=-0.1, name="clothing@1")]
    chart = line_chart("Latency", HOURS, [Series(name="p50", values=[1.0] * 5)], words=count, marks=marks)
    assert (((500.0, "clothing@2"),), ("clothing@2", "mark")) == (chart.marks, chart.legend[-1])


def test_a_histogram_has_the_edges_below_its_columns() -> None:
    """Its points are the ranges between them."""
    chart = histogram(
        "Scores",
        [0.0, 0.5, 1.0],
        [Series(name="Photos", values=[1, 3])],
        words=count,
        edge_words=lambda edge: f"{edge:.1f}",
        name="Score",
    )
    assert [(0.0, "0.0"), (50.0, "0.5"), (100.0, "1.0")] == [(x, text) for x, text, _ in chart.across]
    assert (("0.0 to 0.5", "1"), ("0.5 to 1.0", "3")) == chart.rows


def test_an_axis_of_one_slot_fills_the_width() -> None:
    """The first minute of a new installation."""
    chart = bar_chart("Requests", slots_axis(["now"], name="At"), [Series(name="Photos", values=[1])], words=count)
    assert (1000.0, 994.0) == (chart.hovers[0].width, chart.boxes[0].width)


def test_texts_below_numbers_are_at_points_and_at_nothing_between_them() -> None:
    """A slider over the points can stand at each of them."""
    values = [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    axis = numbers_axis(values, words=lambda value: f"{value:.2f}", name="at", low=0.5, high=0.95)
    assert ["0.50", "0.65", "0.80", "0.95"] == [text for _, text in axis.ticks]
