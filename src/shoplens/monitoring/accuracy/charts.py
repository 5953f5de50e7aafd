"""The chart of the page Accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from shoplens.messages import gettext, localised
from shoplens.monitoring.accuracy.service import AccuracyReport
from shoplens.monitoring.accuracy.threshold import ThresholdPoint
from shoplens.web.charts import Chart, Mark, Series, line_chart, numbers_axis


def threshold_chart(report: AccuracyReport, chosen: ThresholdPoint | None) -> Chart | None:
    """Coverage and accuracy over the threshold, with the current one and the choice; None without any answer."""
    points: Sequence[ThresholdPoint] = sorted(report.points, key=lambda point: point.at)
    if not any(point.wrong is not None for point in points):
        return None
    marks = (
        []
        if report.accept_at is None
        else [
            Mark(
                at=report.accept_at, name=gettext("Now: %(accept_at)s", accept_at=localised(f"{report.accept_at:.0%}"))
            )
        ]
    )
    if chosen is not None:
        marks.append(Mark(at=chosen.at, name=gettext("For the goal: %(at)s", at=localised(f"{chosen.at:.0%}"))))
    axis = numbers_axis([point.at for point in points], words=_percent, name=gettext("Threshold"), low=0.0, high=1.0)
    known = [point for point in points if point.wrong is not None]
    return line_chart(
        gettext("Coverage and accuracy by threshold"),
        axis,
        [
            Series(
                name=gettext("Automatic: share of samples without a person"),
                values=[point.automatic for point in points],
            ),
            Series(
                name=gettext("Right among these"),
                values=[None if point.wrong is None else 1 - point.wrong for point in points],
                tone="amber",
            ),
            Series(
                name=gettext("At least so many right (95 %% sure)"),
                values=[None if point.wrong is None else 1 - point.at_most for point in points],
                tone="quiet",
            ),
        ],
        words=_percent,
        top=1.0,
        marks=marks,
        summary=gettext(
            "Coverage and accuracy for thresholds from %(known)s to %(known_2)s.",
            known=localised(f"{known[0].at:.0%}"),
            known_2=localised(f"{known[-1].at:.0%}"),
        ),
    )


def _percent(share: float) -> str:
    return localised(f"{share:.0%}")
