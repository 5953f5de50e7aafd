"""The chart of coverage and accuracy over the confidence of suggestions."""

from __future__ import annotations

from typing import Final

from shoplens.catalogue.numbers import CatalogueNumbers
from shoplens.web.charts import Chart, Mark, Series, line_chart, numbers_axis

_LEAST_DECIDED: Final = 5
"""Accuracies of fewer decisions are not drawn: one wrong product would be a cliff."""


def coverage_chart(numbers: CatalogueNumbers, accept_at: float | None) -> Chart:
    """Both over the confidence; `accept_at` is the least one that needs no person."""
    with_suggestion = numbers.curve[0].products or 1
    coverage = Series(
        name="Coverage: share of the products with a suggestion",
        values=[each.products / with_suggestion for each in numbers.curve],
    )
    accuracy = Series(
        name="Accuracy: share of decided ones that were right",
        values=[each.accuracy if each.decided >= _LEAST_DECIDED else None for each in numbers.curve],
        tone="amber",
    )
    point = numbers.at(0.8 if accept_at is None else accept_at)
    said = f"{point.products:,} products from {point.at_least:.0%} on"
    right = "" if point.accuracy is None else f", and of {point.decided:,} decided ones {point.accuracy:.1%} were right"
    axis = numbers_axis(
        [each.at_least for each in numbers.curve], words=_percent, name="Confidence from", low=0.0, high=1.0
    )
    return line_chart(
        "Coverage and accuracy by confidence",
        axis,
        [coverage, accuracy],
        words=_percent,
        top=1.0,
        marks=() if accept_at is None else (Mark(at=accept_at, name=f"Needs no person from {accept_at:.1%}"),),
        summary=f"Coverage and accuracy by confidence. {said}{right}.",
    )


def _percent(share: float) -> str:
    return f"{share:.0%}"
