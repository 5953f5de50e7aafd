"""Charts and words of the page Drift."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Final

from shoplens.messages import gettext, localised, marked
from shoplens.monitoring.drift.baseline_repository import Baseline
from shoplens.monitoring.drift.comparison import Finding
from shoplens.monitoring.drift.profile import NAMED, SCALED, Measure, bin_edges
from shoplens.monitoring.drift.repository import DriftDay, start_of
from shoplens.monitoring.drift.service import DriftReport
from shoplens.web.charts import SMALL, Chart, Mark, Series, histogram, line_chart, times_axis

_MOST_NAMES: Final = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureWords:
    """What a measure is called, what it says when it alarms, and what to do then."""

    name: str
    means: str
    do: str


WORDS: Final[Mapping[Measure, MeasureWords]] = {
    Measure.CLASSES: MeasureWords(
        name=marked("Classes"),
        means=marked("The model answers other labels than before."),
        do=marked(
            "Look at the strangest photos and the labels below: is it the season, a campaign, or an error of the model?"
        ),
    ),
    Measure.CONFIDENCE: MeasureWords(
        name=marked("Confidence"),
        means=marked("The model is more or less sure than before."),
        do=marked("Check the accuracy; if it fell, label some of these photos and retrain."),
    ),
    Measure.EMBEDDING_MEAN: MeasureWords(
        name=marked("Photos on average"),
        means=marked("The average photo looks different to the model."),
        do=marked("Look at the strangest photos: a new supplier, another background, another kind of goods?"),
    ),
    Measure.EMBEDDING_MMD: MeasureWords(
        name=marked("Kinds of photos"),
        means=marked("There are kinds of photos that were rare before, or some are missing."),
        do=marked("Look at the strangest photos; label some of the new kind and retrain."),
    ),
    Measure.BRIGHTNESS: MeasureWords(
        name=marked("Brightness"),
        means=marked("Photos are darker or brighter than before."),
        do=marked("Check the lamp and the camera where photos are taken."),
    ),
    Measure.CONTRAST: MeasureWords(
        name=marked("Contrast"),
        means=marked("Photos have more or less contrast than before."),
        do=marked("Check the light, the background and the camera's settings."),
    ),
    Measure.SHARPNESS: MeasureWords(
        name=marked("Sharpness"),
        means=marked("Photos are more blurred or sharper than before."),
        do=marked("Clean the lens and check the focus; check whether somebody compresses the photos."),
    ),
    Measure.SIZE: MeasureWords(
        name=marked("Size"),
        means=marked("Photos have more or fewer pixels than before."),
        do=marked("Ask who sends the photos whether an app or an export has changed."),
    ),
    Measure.FORMAT: MeasureWords(
        name=marked("Format"),
        means=marked("The files have other formats than before."),
        do=marked("Ask who sends the photos whether an app or an export has changed."),
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
            chart=_distance_chart(report, measure, gettext(words.name)),
            detail=_distribution(report, measure, gettext(words.name)),
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
    axis = replace(times_axis([start_of(day) for day in listed], step=timedelta(days=1)), gap=marked("not compared"))

    def values(read: str) -> list[float | None]:
        return [getattr(found[day], read) if day in found else None for day in listed]

    alarms = sum(finding.alarm for finding in found.values())
    return line_chart(
        name,
        axis,
        [
            Series(name=gettext("Distance"), values=values("distance")),
            Series(name=gettext("Usual without a change"), values=values("usual"), tone="quiet"),
            Series(name=gettext("Limit"), values=values("limit"), tone="red"),
        ],
        words=lambda value: localised(f"{value:.2f}"),
        height=SMALL,
        marks=_normal_since(report.normal, first, len(listed)),
        summary=gettext(
            "%(name)s: distance from the month before on %(len)s days, above the limit on %(alarms)s.",
            name=name,
            len=len(found),
            alarms=alarms,
        ),
    )


def _normal_since(normal: Baseline | None, first: date, days: int) -> list[Mark]:
    """The day from which on a person said that the channel is normal."""
    if normal is None or normal.day < first:
        return []
    name = gettext("Normal since %(day)s: %(reason)s", day=normal.day, reason=normal.reason)
    return [Mark(at=(normal.day - first).days / days, name=name)]


def _distribution(report: DriftReport, measure: Measure, name: str) -> Chart | None:
    """The shown day and its reference over the scale of the measure."""
    if report.shown is None or report.reference is None or measure not in SCALED:
        return None
    now, before = report.shown.profile.scales.get(measure), report.reference.scales.get(measure)
    if now is None or before is None or not before.sum():
        return None
    edges = bin_edges(measure)
    return histogram(
        gettext("%(name)s on %(day)s and before", name=name, day=report.shown.day),
        [float(edge) for edge in edges],
        [
            Series(name=f"{report.shown.day}", values=[float(each) for each in now / now.sum()]),
            Series(name=gettext("Before"), values=[float(each) for each in before / before.sum()], tone="quiet"),
        ],
        words=lambda share: localised(f"{share:.0%}"),
        edge_words=lambda edge: localised(f"{edge:.2g}" if edge < 10 else f"{edge:,.0f}"),
        name=gettext(_UNITS[measure]),
    )


_UNITS: Final[Mapping[Measure, str]] = {
    Measure.CONFIDENCE: marked("Score of the best label"),
    Measure.SIZE: marked("Megapixels"),
    Measure.BRIGHTNESS: marked("Mean brightness, 0 to 255"),
    Measure.CONTRAST: marked("Standard deviation of the brightness"),
    Measure.SHARPNESS: marked("Variance of the Laplacian"),
}
