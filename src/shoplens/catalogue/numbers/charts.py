"""The chart of coverage and accuracy over the confidence of suggestions."""

from __future__ import annotations

from typing import Final

from shoplens.catalogue.numbers.service import CatalogueNumbers
from shoplens.messages import gettext, localised, whole_number
from shoplens.web.charts import Chart, Mark, Series, line_chart, numbers_axis

LEAST_DECIDED: Final = 5
"""Accuracies of fewer decisions are not shown: one wrong product would be a cliff."""


def coverage_chart(numbers: CatalogueNumbers, accept_at: float) -> Chart:
    """Both over the confidence; `accept_at` is the least one that needs no person."""
    with_suggestion = numbers.curve[0].products or 1
    coverage = Series(
        name=gettext("Coverage: share of the products with a suggestion"),
        values=[each.products / with_suggestion for each in numbers.curve],
    )
    accuracy = Series(
        name=gettext("Accuracy: share of decided ones that were right"),
        values=[each.accuracy if each.decided >= LEAST_DECIDED else None for each in numbers.curve],
        tone="amber",
    )
    point = numbers.at(accept_at)
    said = gettext(
        "%(products)s products from %(at_least)s on",
        products=whole_number(point.products),
        at_least=localised(f"{point.at_least:.0%}"),
    )
    right = (
        ""
        if point.accuracy is None
        else gettext(
            ", and of %(decided)s decided ones %(accuracy)s were right",
            decided=whole_number(point.decided),
            accuracy=localised(f"{point.accuracy:.1%}"),
        )
    )
    axis = numbers_axis(
        [each.at_least for each in numbers.curve], words=_percent, name=gettext("Confidence from"), low=0.0, high=1.0
    )
    return line_chart(
        gettext("Coverage and accuracy by confidence"),
        axis,
        [coverage, accuracy],
        words=_percent,
        top=1.0,
        marks=(
            Mark(
                at=accept_at,
                name=gettext("Needs no person from %(accept_at)s", accept_at=localised(f"{accept_at:.1%}")),
            ),
        ),
        summary=gettext("Coverage and accuracy by confidence. %(said)s%(right)s.", said=said, right=right),
    )


def _percent(share: float) -> str:
    return localised(f"{share:.0%}")
