"""Charts and words of the pages Drift and Accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from shoplens.monitoring.accuracy_service import AccuracyReport
from shoplens.monitoring.drift import Finding
from shoplens.monitoring.drift_repository import DriftDay, start_of
from shoplens.monitoring.drift_service import DriftReport
from shoplens.monitoring.profile import NAMED, SCALED, Measure, bin_edges
from shoplens.monitoring.threshold import ThresholdPoint
from shoplens.web.charts import SMALL, Chart, Mark, Series, histogram, line_chart, numbers_axis, times_axis

_MOST_NAMES: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureWords:
    """What a measure is called, what it says when it alarms, and what to do then."""

    name: str
    means: str
    do: str


WORDS: Final[Mapping[Measure, MeasureWords]] = {
    Measure.CLASSES: MeasureWords(
        name="Classes",
        means="The model answers other labels than before.",
        do="Look at the strangest photos and the labels below: is it the season, a campaign, or an error of the model?",
    ),
    Measure.CONFIDENCE: MeasureWords(
        name="Confidence",
        means="The model is more or less sure than before.",
        do="Check the accuracy; if it fell, label some of these photos and retrain.",
    ),
    Measure.EMBEDDING_MEAN: MeasureWords(
        name="Photos on average",
        means="The average photo looks different to the model.",
        do="Look at the strangest photos: a new supplier, another background, another kind of goods?",
    ),
    Measure.EMBEDDING_MMD: MeasureWords(
        name="Kinds of photos",
        means="There are kinds of photos that were rare before, or some are missing.",
        do="Look at the strangest photos; label some of the new kind and retrain.",
    ),
    Measure.BRIGHTNESS: MeasureWords(
        name="Brightness",
        means="Photos are darker or brighter than before.",
        do="Check the lamp and the camera where photos are taken.",
    ),
    Measure.CONTRAST: MeasureWords(
        name="Contrast",
        means="Photos have more or less contrast than before.",
        do="Check the light, the background and the camera's settings.",
    ),
    Measure.SHARPNESS: MeasureWords(
        name="Sharpness",
        means="Photos are more blurred or sharper than before.",
        do="Clean the lens and check the focus; check whether somebody compresses the photos.",
    ),
    Measure.SIZE: MeasureWords(
        name="Size",
        means="Photos have more or fewer pixels than before.",
        do="Ask who sends the photos whether an app or an export has changed.",
    ),
    Measure.FORMAT: MeasureWords(
        name="Format",
        means="The files have other formats than before.",
        do="Ask who sends the photos whether an app or an export has changed.",
    ),
}
"""In the order in which pages show them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureView:
    """One measure as the page shows it. `finding` is that of the shown day, `since` the first day of its alarm."""

    measure: Measure
    words: MeasureWords
    finding: Finding | None
    since: date | None
    chart: Chart | None
    detail: Chart | None


def measures_of(report: DriftReport) -> list[MeasureView]:
    """Those that alarm first, then the others, in the order of WORDS."""
    alarms = report.alarms
    views = [
        MeasureView(
            measure=measure,
            words=words,
            finding=None if report.shown is None else report.shown.finding(measure),
            since=alarms.get(measure),
            chart=_distance_chart(report, measure, words.name),
            detail=_distribution(report, measure, words.name),
        )
        for measure, words in WORDS.items()
    ]
    return sorted(views, key=lambda view: view.since is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class NameShare:
    """A label or a format: its share on the shown day and in the reference."""

    name: str
    share: float
    before: float


def changed_names(report: DriftReport, measure: Measure) -> list[NameShare]:
    """The names whose shares changed most; empty without a reference. Only for NAMED."""
    if report.shown is None or report.reference is None or measure not in NAMED:
        return []
    now, before = report.shown.profile.names.get(measure), report.reference.names.get(measure)
    if not now or not before:
        return []
    of_now, of_before = sum(now.values()), sum(before.values())
    shares = [
        NameShare(name=name, share=now.get(name, 0) / of_now, before=before.get(name, 0) / of_before)
        for name in {*now, *before}
    ]
    return sorted(shares, key=lambda each: (-abs(each.share - each.before), each.name))[:_MOST_NAMES]


def _distance_chart(report: DriftReport, measure: Measure, name: str) -> Chart | None:
    """The distance day by day with what is usual and the limit; days without a figure are gaps."""
    by_day: dict[date, DriftDay] = {day.day: day for day in report.days}
    found = {day: finding for day, each in by_day.items() if (finding := each.finding(measure)) is not None}
    if not found or not report.days:
        return None
    first, last = report.days[0].day, report.days[-1].day
    listed = [first + timedelta(days=ahead) for ahead in range((last - first).days + 1)]
    axis = times_axis([start_of(day) for day in listed], step=timedelta(days=1))

    def values(read: str) -> list[float | None]:
        return [getattr(found[day], read) if day in found else None for day in listed]

    alarms = sum(finding.alarm for finding in found.values())
    return line_chart(
        name,
        axis,
        [
            Series(name="Distance", values=values("distance")),
            Series(name="Usual without a change", values=values("usual"), tone="quiet"),
            Series(name="Limit", values=values("limit"), tone="red"),
        ],
        words=lambda value: f"{value:.2f}",
        height=SMALL,
        summary=f"{name}: distance from the month before on {len(found)} days, above the limit on {alarms}.",
    )


def _distribution(report: DriftReport, measure: Measure, name: str) -> Chart | None:
    """The shown day and its reference over the scale of the measure."""
    if report.shown is None or report.reference is None or measure not in SCALED:
        return None
    now, before = report.shown.profile.scales.get(measure), report.reference.scales.get(measure)
    if now is None or before is None or not before.sum():
        return None
    edges = bin_edges(measure)
    return histogram(
        f"{name} on {report.shown.day} and before",
        [float(edge) for edge in edges],
        [
            Series(name=f"{report.shown.day}", values=[float(each) for each in now / now.sum()]),
            Series(name="Before", values=[float(each) for each in before / before.sum()], tone="quiet"),
        ],
        words=lambda share: f"{share:.0%}",
        edge_words=lambda edge: f"{edge:.2g}" if edge < 10 else f"{edge:,.0f}",
        name=_UNITS[measure],
    )


_UNITS: Final[Mapping[Measure, str]] = {
    Measure.CONFIDENCE: "Score of the best label",
    Measure.SIZE: "Megapixels",
    Measure.BRIGHTNESS: "Mean brightness, 0 to 255",
    Measure.CONTRAST: "Standard deviation of the brightness",
    Measure.SHARPNESS: "Variance of the Laplacian",
}


def threshold_chart(report: AccuracyReport, chosen: ThresholdPoint | None) -> Chart | None:
    """Coverage and accuracy over the threshold, with the current one and the choice; None without any answer."""
    points: Sequence[ThresholdPoint] = sorted(report.points, key=lambda point: point.at)
    if not any(point.wrong is not None for point in points):
        return None
    marks = [] if report.accept_at is None else [Mark(at=report.accept_at, name=f"Now: {report.accept_at:.0%}")]
    if chosen is not None:
        marks.append(Mark(at=chosen.at, name=f"For the goal: {chosen.at:.0%}"))
    axis = numbers_axis([point.at for point in points], words=_percent, name="Threshold", low=0.0, high=1.0)
    known = [point for point in points if point.wrong is not None]
    return line_chart(
        "Coverage and accuracy by threshold",
        axis,
        [
            Series(name="Automatic: share of samples without a person", values=[point.automatic for point in points]),
            Series(
                name="Right among these",
                values=[None if point.wrong is None else 1 - point.wrong for point in points],
                tone="amber",
            ),
            Series(
                name="At least so many right (95 % sure)",
                values=[None if point.wrong is None else 1 - point.at_most for point in points],
                tone="quiet",
            ),
        ],
        words=_percent,
        top=1.0,
        marks=marks,
        summary=f"Coverage and accuracy for thresholds from {known[0].at:.0%} to {known[-1].at:.0%}.",
    )


def _percent(share: float) -> str:
    return f"{share:.0%}"
