"""The numbers of a channel's catalogue: coverage and accuracy together, and how often people accept suggestions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from shoplens.catalogue.entities import ProductState
from shoplens.catalogue.numbers.repository import STEPS, NumbersRepository
from shoplens.db import Database

WEEKS: Final = 26


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidencePoint:
    """What holds for suggestions with a score of at least `at_least`.

    `products` have such a suggestion, `waiting` of them nobody has decided. `decided` such suggestions were decided by
    people one by one, and `right` of these agreed with the suggestion.
    """

    at_least: float
    products: int
    waiting: int
    decided: int
    right: int

    @property
    def accuracy(self) -> float | None:
        """The share of the decided ones that were right; None where nobody decided."""
        return self.right / self.decided if self.decided else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """The decisions of people on suggestions in a week from Monday on, in UTC."""

    start: date
    decided: int
    accepted: int

    @property
    def rate(self) -> float:
        """The share of suggestions that people accepted."""
        return self.accepted / self.decided


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueNumbers:
    """All numbers of one channel. `curve` has a point for each hundredth from 0 to 1, in this order."""

    states: Mapping[ProductState, int]
    curve: tuple[ConfidencePoint, ...]
    weeks: tuple[Week, ...]

    @property
    def total(self) -> int:
        """All products."""
        return sum(self.states.values())

    def at(self, at_least: float) -> ConfidencePoint:
        """The point of the curve for a score from 0 to 1, rounded to hundredths."""
        return self.curve[min(STEPS, max(0, round(at_least * STEPS)))]


class NumberService:
    """The numbers of all channels. Blocks; raises DatabaseUnavailable."""

    def __init__(self, database: Database, *, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._clock = clock

    def of(self, channel: str) -> CatalogueNumbers:
        """The numbers as they are now; of weeks, the last half year."""
        today = self._clock().date()
        first = today - timedelta(days=today.weekday(), weeks=WEEKS - 1)
        since = self._clock().replace(year=first.year, month=first.month, day=first.day, hour=0, minute=0, second=0)
        with self._database.reading() as tx:
            repository = NumbersRepository(tx)
            states = repository.states(channel)
            by_score = {each.step: each for each in repository.by_score(channel)}
            decided = {each.step: each for each in repository.decided_by_score(channel)}
            weeks: dict[date, list[int]] = {}
            for at, agreed in repository.decided_between(channel, since):
                week = weeks.setdefault(at.date() - timedelta(days=at.weekday()), [0, 0])
                week[0] += 1
                week[1] += agreed
        curve: list[ConfidencePoint] = []
        products = waiting = judged = right = 0
        for step in range(STEPS, -1, -1):
            if step in by_score:
                products, waiting = products + by_score[step].products, waiting + by_score[step].waiting
            if step in decided:
                judged, right = judged + decided[step].decided, right + decided[step].right
            curve.append(
                ConfidencePoint(at_least=step / STEPS, products=products, waiting=waiting, decided=judged, right=right)
            )
        return CatalogueNumbers(
            states={state: states.get(state, 0) for state in ProductState},
            curve=tuple(reversed(curve)),
            weeks=tuple(
                Week(start=start, decided=count, accepted=accepted)
                for start, (count, accepted) in sorted(weeks.items(), reverse=True)
            ),
        )
