"""The charts of the page Monitoring."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import humanize

from shoplens.messages import gettext, localised, short_day
from shoplens.monitoring.series.entities import DAY_S, Counts, ServerState
from shoplens.monitoring.series.service import ModelChange, RunFigures, SeriesView, Volume
from shoplens.web.charts import (
    SMALL,
    Chart,
    Mark,
    Series,
    Tone,
    bar_chart,
    line_chart,
    slots_axis,
    times_axis,
)


def count(value: float) -> str:
    """A number of requests; fractions only stand on an axis."""
    return localised(f"{value:,.0f}" if value == int(value) else f"{value:,.1f}")


def duration(seconds: float) -> str:
    """A latency: 0.0123 is "12 ms"."""
    if seconds >= 0.9995:
        return localised(f"{seconds:.1f} s")
    return f"{seconds * 1000:.0f} ms"


def long_duration(seconds: float) -> str:
    """How long a run took."""
    if seconds < 60:
        return localised(f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s")
    return f"{seconds / 60:.0f} min" if seconds < 5_400 else localised(f"{seconds / 3_600:.1f} h")


def room(bytes_: float) -> str:
    """Bytes in decimal units."""
    if not bytes_:
        return "0"
    return localised(humanize.naturalsize(bytes_, format="%.3g"))


def share(value: float) -> str:
    """A share in percent."""
    return localised(f"{value:.0%}" if value in (0, 1) or 0.1 <= value <= 0.9 else f"{value:.1%}")


def series_charts(view: SeriesView, changes: Sequence[ModelChange], *, has_workers: bool) -> dict[str, Chart]:
    """Requests, latency, queue and workers over the parts of a range."""
    facts = view.range.value
    begins = [part.begins_s for part in view.parts]
    axis = replace(
        times_axis([_moment(at) for at in begins], step=timedelta(seconds=facts.bucket_s)),
        known=tuple(part.counts is not None for part in view.parts),
    )
    end = begins[-1] + facts.bucket_s
    marks = [
        Mark(
            at=(each.at.timestamp() - begins[0]) / (end - begins[0]),
            name=gettext("%(model)s %(version)s went live", model=each.model, version=each.version),
        )
        for each in changes
    ]

    def counted(name: str, read: Callable[[Counts], float | None], tone: Tone = "accent") -> Series:
        return Series(
            name=name, values=[None if part.counts is None else read(part.counts) for part in view.parts], tone=tone
        )

    def stated(name: str, read: Callable[[ServerState], float | None], tone: Tone = "accent") -> Series:
        return Series(
            name=name, values=[None if part.state is None else read(part.state) for part in view.parts], tone=tone
        )

    charts = {
        "requests": bar_chart(
            gettext("Requests"),
            axis,
            [
                counted(gettext("Answered"), lambda each: each.answered),
                counted(gettext("Refused: the photo or the request was at fault"), lambda each: each.refused, "quiet"),
                counted(gettext("Busy: no room or no time"), lambda each: each.busy, "amber"),
                counted(gettext("Failed: Shoplens was at fault"), lambda each: each.failed, "red"),
            ],
            words=count,
        ),
        "latency": line_chart(
            gettext("Latency of answered requests"),
            axis,
            [
                counted("p50", lambda each: each.latency_s(0.5)),
                counted("p95", lambda each: each.latency_s(0.95), "amber"),
                counted("p99", lambda each: each.latency_s(0.99), "red"),
            ],
            words=duration,
            marks=marks,
        ),
        "queue": line_chart(
            gettext("Photos that wait, whole server"),
            axis,
            [stated(gettext("Longest queue"), lambda each: each.queue)],
            words=count,
            height=SMALL,
        ),
    }
    if has_workers:
        workers = stated(gettext("Fewest workers"), lambda each: each.workers)
        charts["workers"] = line_chart(gettext("Workers"), axis, [workers], words=count, height=SMALL)
    if any(part.state is not None and part.state.disk_free_bytes is not None for part in view.parts):
        free = stated(gettext("Free on the disk"), lambda each: each.disk_free_bytes)
        charts["disk"] = line_chart(gettext("Free room"), axis, [free], words=room, height=SMALL)
    sizes = [
        stated(gettext("Photos"), lambda each: each.storage_bytes),
        stated(gettext("Database"), lambda each: each.database_bytes, "amber"),
    ]
    known = [each for each in sizes if any(value is not None for value in each.values)]
    if known:
        charts["room"] = line_chart(gettext("Room that is used"), axis, known, words=room, height=SMALL)
    return charts


def day_charts(days: Sequence[Volume]) -> dict[str, Chart]:
    """Volumes per day, and what people had to do with them."""
    if not days:
        return {}
    axis = times_axis([_moment(each.begins_s) for each in days], step=timedelta(seconds=DAY_S))
    return {
        "volumes": bar_chart(
            gettext("Decisions per day, runs included"),
            axis,
            [
                Series(name=gettext("Accepted"), values=[each.counts.accepted for each in days]),
                Series(name=gettext("For a person"), values=[each.counts.to_review for each in days], tone="amber"),
                Series(name=gettext("Rejected"), values=[each.counts.rejected for each in days], tone="red"),
            ],
            words=count,
        ),
        "people": line_chart(
            gettext("People"),
            axis,
            [
                Series(name=gettext("Needed a person"), values=[each.needed_person for each in days], tone="amber"),
                Series(name=gettext("People agreed with the model"), values=[each.agreement for each in days]),
            ],
            words=share,
            top=1.0,
        ),
    }


def run_charts(runs: Sequence[RunFigures]) -> dict[str, Chart]:
    """How long the runs of the last nights took, and how many photos a second they did; oldest first."""
    shown = list(reversed(runs[:30]))
    if len(shown) < 2:
        return {}
    begun = [each.run.created_at.astimezone(UTC) for each in shown]
    axis = slots_axis([f"{each:%Y-%m-%d %H:%M}" for each in begun], name=gettext("Run (UTC)"))
    dates = {at: short_day(each) for at, each in zip(axis.at, begun, strict=True)}
    axis = replace(axis, ticks=tuple((at, dates[at]) for at, _ in axis.ticks))
    return {
        "took": bar_chart(
            gettext("Duration of runs"),
            axis,
            [
                Series(
                    name=gettext("Minutes"),
                    values=[None if each.took_s is None else each.took_s / 60 for each in shown],
                )
            ],
            words=lambda minutes: localised(f"{minutes:.3g} min"),
            height=SMALL,
        ),
        "rate": bar_chart(
            gettext("Photos per second"),
            axis,
            [Series(name=gettext("Photos per second"), values=[each.per_second for each in shown])],
            words=lambda value: localised(f"{value:.3g}"),
            height=SMALL,
        ),
    }


def _moment(at_s: int) -> datetime:
    return datetime.fromtimestamp(at_s, UTC)
