"""Charts as inline SVG without a script: what the macro `chart` in `_charts.html` draws.

The plot is 1,000 units wide and as high as the chart, and is stretched to the width of the page; texts stand outside of
it and keep their size. A missing value (None) is a gap: a line is broken there, and the table says "no data".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby, pairwise
from typing import Final, Literal

from shoplens.messages import gettext, marked, short_day

WIDTH: Final = 1_000.0
HEIGHT: Final = 180
SMALL: Final = 120
MOST_TICKS: Final = 4
"""Texts below a chart: so many have room at a width of 320 pixels."""
_NOTHING: Final = "–"
_STEPS: Final = (1.0, 2.0, 2.5, 5.0, 10.0)

Tone = Literal["accent", "amber", "red", "quiet", "ink"]
"""The colour and the dashes of a series, by its job: `accent` for what is good or usual, `red` for what is wrong."""
_ROUND_TIMES: Final[tuple[tuple[Callable[[datetime], bool], bool], ...]] = (
    (lambda at: at.minute % 5 == 0, False),
    (lambda at: at.minute % 15 == 0, False),
    (lambda at: at.minute == 0, False),
    (lambda at: at.minute == 0 and at.hour % 6 == 0, False),
    (lambda at: at.minute == 0 == at.hour, True),
    (lambda at: at.minute == 0 == at.hour and at.toordinal() % 2 == 0, True),
    (lambda at: at.minute == 0 == at.hour and at.toordinal() % 7 == 1, True),
    (lambda at: at.minute == 0 == at.hour and at.day in (1, 15), True),
    (lambda at: at.minute == 0 == at.hour and at.day == 1, True),
    (lambda at: at.minute == 0 == at.hour and at.day == 1 and at.month % 6 == 1, True),
)
"""Which times have a text below, ever fewer, and whether it is their date."""
Words = Callable[[float], str]
"""A value as people read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The points along the bottom: `at` from 0 (left) to 1 (right) in rising order, and what each is called.

    `ticks` are the texts below. Points share the width: each has the part that is nearest to it. `known` says at which
    points somebody looked, so that a value which is missing there is no gap (there was no answer whose time could be
    drawn); None: wherever a series has a value. `gap` is what all others are called.
    """

    at: tuple[float, ...]
    labels: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]
    name: str
    known: tuple[bool, ...] | None = None
    gap: str = marked("no data")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One value for each point of the axis; None where there is none."""

    name: str
    values: Sequence[float | None]
    tone: Tone = "accent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """An upright line at `at` (0 to 1) with its meaning, such as a threshold, or the moment of a change."""

    at: float
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """A rectangle in units of the plot. `words` are shown where the pointer rests on it."""

    x: float
    width: float
    y: float = 0.0
    height: float = 0.0
    tone: str = ""
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart, ready to be drawn. `summary` is its text alternative; `columns` and `rows` are its table."""

    title: str
    summary: str
    height: int
    up: tuple[str, ...]
    """The texts at the left, from the top down, with the same distance between them."""
    across: tuple[tuple[float, str, str], ...]
    """The texts below: percent of the width, text, and how it is anchored."""
    lines: tuple[tuple[str, Tone], ...]
    """Paths in the form of SVG."""
    boxes: tuple[Box, ...]
    gaps: tuple[Box, ...]
    hovers: tuple[Box, ...]
    marks: tuple[tuple[float, str], ...]
    legend: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def numbers_axis(values: Sequence[float], *, words: Words, name: str, low: float, high: float) -> Axis:
    """An axis of numbers from `low` to `high`, with texts at some of the values."""
    every = max(1, math.ceil((len(values) - 1) / MOST_TICKS))
    ticks = sorted(values)[::every]
    return Axis(
        at=tuple((value - low) / (high - low) for value in values),
        labels=tuple(words(value) for value in values),
        ticks=tuple(((tick - low) / (high - low), words(tick)) for tick in ticks),
        name=name,
    )


def slots_axis(labels: Sequence[str], *, name: str) -> Axis:
    """An axis of as many equal slots as there are labels, which also stand below where there is room."""
    count = len(labels)
    at = tuple((index + 0.5) / count for index in range(count))
    every = max(1, math.ceil(count / MOST_TICKS))
    first = (count - 1) % every  # the last slot, the newest one, always has its text
    ticks = tuple((at[index], labels[index]) for index in range(first, count, every))
    return Axis(at=at, labels=tuple(labels), ticks=ticks, name=name)


def times_axis(begins: Sequence[datetime], *, step: timedelta) -> Axis:
    """An axis of equal steps in UTC, with texts at round times: the time of day, or the date where days are shown."""
    days = step >= timedelta(days=1)
    labels = [f"{each:%Y-%m-%d}" if days else f"{each:%Y-%m-%d %H:%M}" for each in begins]
    axis = slots_axis(labels, name=gettext("Day (UTC)") if days else gettext("From (UTC)"))
    shown = list(range(len(begins)))
    dated = False
    for is_round, has_dates in _ROUND_TIMES:
        if len(shown) <= MOST_TICKS:
            break
        shown, dated = [index for index, each in enumerate(begins) if is_round(each)], has_dates
    dated = dated or days
    texts = ((axis.at[i], short_day(begins[i]) if dated else f"{begins[i]:%H:%M}") for i in shown)
    return replace(axis, ticks=tuple(texts))


def line_chart(
    title: str,
    axis: Axis,
    series: Sequence[Series],
    *,
    words: Words,
    top: float | None = None,
    height: int = HEIGHT,
    marks: Sequence[Mark] = (),
    summary: str = "",
) -> Chart:
    """Values over the axis as lines from zero up. `top` is the highest value of the scale; None: as the data need."""
    ticks = _ticks([value for each in series for value in each.values if value is not None], top)
    chart = _frame(title, axis, series, ticks, words=words, height=height, marks=marks, summary=summary)
    paths = [
        (path, each.tone) for each in series if (path := _path(axis, each.values, highest=ticks[-1], height=height))
    ]
    return replace(chart, lines=tuple(paths))


def bar_chart(
    title: str,
    axis: Axis,
    series: Sequence[Series],
    *,
    words: Words,
    height: int = HEIGHT,
    summary: str = "",
) -> Chart:
    """A column for each point of the axis, in which the series are stacked from the bottom up."""
    totals = [sum(each.values[index] or 0.0 for each in series) for index in range(len(axis.at))]
    ticks = _ticks(totals, None)
    chart = _frame(title, axis, series, ticks, words=words, height=height, summary=summary)
    boxes: list[Box] = []
    for index, slot in enumerate(_slots(axis)):
        below, inset = 0.0, min(slot.width * 0.12, 3.0)
        for each in series:
            value = each.values[index] or 0.0
            if value <= 0:
                continue
            tall = value / ticks[-1] * height
            boxes.append(
                Box(
                    x=round(slot.x + inset, 2),
                    width=round(slot.width - 2 * inset, 2),
                    y=round(height - below - tall, 2),
                    height=round(max(tall, 1.0), 2),
                    tone=each.tone,
                )
            )
            below += tall
    return replace(chart, boxes=tuple(boxes))


def histogram(
    title: str, edges: Sequence[float], series: Sequence[Series], *, words: Words, edge_words: Words, name: str
) -> Chart:
    """Counts between `edges`, of which there is one more than values. Several series are lines over each other."""
    labels = [
        gettext("%(low)s to %(high)s", low=edge_words(low), high=edge_words(high)) for low, high in pairwise(edges)
    ]
    axis = slots_axis(labels, name=name)
    count = len(labels)
    every = max(1, math.ceil(count / MOST_TICKS))
    axis = replace(axis, ticks=tuple((index / count, edge_words(edges[index])) for index in range(0, count + 1, every)))
    return (bar_chart if len(series) == 1 else line_chart)(title, axis, series, words=words)


def nice_ticks(highest: float) -> tuple[float, ...]:
    """Round numbers with equal distances from 0 to at least `highest`: three to six of them."""
    if not highest > 0 or not math.isfinite(highest):
        return (0.0, 1.0)
    rough = highest / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(each * magnitude for each in _STEPS if each * magnitude >= rough * 0.999_999)
    count = max(1, math.ceil(highest / step - 1e-9))
    return tuple(step * index for index in range(count + 1))


def _ticks(values: Sequence[float], top: float | None) -> tuple[float, ...]:
    if top is not None:
        return tuple(top * index / 4 for index in range(5))
    return nice_ticks(max(values, default=0.0))


def _frame(
    title: str,
    axis: Axis,
    series: Sequence[Series],
    ticks: Sequence[float],
    *,
    words: Words,
    height: int,
    marks: Sequence[Mark] = (),
    summary: str,
) -> Chart:
    """Everything but lines and boxes."""
    known = axis.known or [any(each.values[index] is not None for each in series) for index in range(len(axis.at))]
    texts = [
        [
            (_NOTHING if seen else gettext(axis.gap)) if value is None else words(value)
            for value, seen in zip(each.values, known, strict=True)
        ]
        for each in series
    ]
    slots = _slots(axis)
    hovers = [
        replace(
            slot,
            height=height,
            words=f"{axis.labels[index]}: "
            + (
                ", ".join(f"{each.name} {texts[of][index]}" for of, each in enumerate(series))
                if known[index]
                else gettext(axis.gap)
            ),
        )
        for index, slot in enumerate(slots)
    ]
    return Chart(
        title=title,
        summary=summary or title,
        height=height,
        up=tuple(words(tick) for tick in reversed(ticks)),
        across=tuple((round(100 * at, 2), text, _anchor(at)) for at, text in axis.ticks),
        lines=(),
        boxes=(),
        gaps=tuple(_runs(slots, known, height)),
        hovers=tuple(hovers),
        marks=tuple((round(WIDTH * each.at, 1), each.name) for each in marks if 0 <= each.at <= 1),
        legend=(
            *((each.name, each.tone) for each in series),
            *([] if all(known) else [(gettext(axis.gap), "gap")]),
            *((each.name, "mark") for each in marks if 0 <= each.at <= 1),
        ),
        columns=(axis.name, *(each.name for each in series)),
        rows=tuple((label, *(column[index] for column in texts)) for index, label in enumerate(axis.labels)),
    )


def _slots(axis: Axis) -> list[Box]:
    """The part of the width that each point has: up to the middle between it and the next one."""
    middles = [(left + right) / 2 for left, right in zip(axis.at, axis.at[1:], strict=False)]
    edges = [0.0, *middles, 1.0]
    return [Box(x=round(WIDTH * left, 2), width=round(WIDTH * (right - left), 2)) for left, right in pairwise(edges)]


def _runs(slots: Sequence[Box], known: Sequence[bool], height: int) -> list[Box]:
    """A box for each run of points without any value."""
    found = []
    for has_values, group in groupby(zip(slots, known, strict=True), key=lambda pair: pair[1]):
        if not has_values:
            run = [slot for slot, _ in group]
            end = run[-1].x + run[-1].width
            found.append(Box(x=run[0].x, width=round(end - run[0].x, 2), height=height))
    return found


def _path(axis: Axis, values: Sequence[float | None], *, highest: float, height: int) -> str:
    """A line that is broken where values are missing; a value alone between gaps is as wide as its slot."""
    pieces: list[str] = []
    for known, group in groupby(enumerate(values), key=lambda pair: pair[1] is not None):
        run = [(index, height * (1 - min(value, highest) / highest)) for index, value in group if value is not None]
        if not known:
            continue
        if len(run) == 1:
            index, y = run[0]
            slot = _slots(axis)[index]
            pieces.append(f"M{slot.x:.1f} {y:.1f}H{slot.x + slot.width:.1f}")
        else:
            first, *others = (f"{WIDTH * axis.at[index]:.1f} {y:.1f}" for index, y in run)
            pieces.append(f"M{first}L{' '.join(others)}")
    return "".join(pieces)


def _anchor(at: float) -> str:
    return "start" if at < 0.01 else "end" if at > 0.97 else "middle"
