"""The chart of coverage and accuracy: what the template draws as an SVG, so that it needs no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from shoplens.catalogue.numbers import CatalogueNumbers

WIDTH: Final = 720
HEIGHT: Final = 300
_LEFT: Final = 48
_RIGHT: Final = 24
_TOP: Final = 14
_BOTTOM: Final = 38
_LEAST_DECIDED: Final = 5
"""Accuracies of fewer decisions are not drawn: one wrong product would be a cliff."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageChart:
    """Lines as points "x,y x,y …" in a picture of WIDTH by HEIGHT; `words` say the most important of it.

    `across` and `up` are the places of the marks on the axes, with their shares. `now` is the x of `accept_at`.
    """

    coverage: str
    accuracy: str
    now: float | None
    across: tuple[tuple[float, float], ...]
    up: tuple[tuple[float, float], ...]
    words: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


def coverage_chart(numbers: CatalogueNumbers, accept_at: float | None) -> CoverageChart:
    """Both over the confidence; `accept_at` is the least one that needs no person."""
    with_suggestion = numbers.curve[0].products or 1
    shares = [share / 10 for share in range(0, 11, 2)]
    point = numbers.at(0.8 if accept_at is None else accept_at)
    right = "" if point.accuracy is None else f", and of {point.decided:,} decided ones {point.accuracy:.1%} were right"
    return CoverageChart(
        coverage=_line([(each.at_least, each.products / with_suggestion) for each in numbers.curve]),
        accuracy=_line(
            [
                (each.at_least, each.accuracy)
                for each in numbers.curve
                if each.accuracy is not None and each.decided >= _LEAST_DECIDED
            ]
        ),
        now=None if accept_at is None else _x(accept_at),
        across=tuple((_x(share), share) for share in shares),
        up=tuple((_y(share), share) for share in shares),
        words=f"Coverage and accuracy by confidence. {point.products:,} products from {point.at_least:.0%} on{right}.",
    )


def _line(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_x(across)},{_y(up)}" for across, up in points)


def _x(share: float) -> float:
    return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)


def _y(share: float) -> float:
    return round(_TOP + (1 - share) * (HEIGHT - _TOP - _BOTTOM), 1)
