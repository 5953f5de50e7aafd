"""Counts of products and decisions by confidence and by day, over a transaction that the caller opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Integer, case, cast, func, select

from shoplens.catalogue.entities import DecisionKind, ProductState
from shoplens.catalogue.tables import decisions, products

STEPS: Final = 100
_STANDING: Final = (
    decisions.c.undone_at.is_(None),
    decisions.c.kind != DecisionKind.UNDONE,
    decisions.c.suggested.is_not(None),
    decisions.c.bulk_id.is_(None),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCount:
    """Products whose score is at least `step` hundredths and below the next: all, and those that nobody decided."""

    step: int
    products: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionCount:
    """Decisions of people on suggestions with such a score, and how many agreed with the suggestion."""

    step: int
    decided: int
    right: int


class NumbersRepository:
    """Every method raises DatabaseUnavailable through the transaction."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def states(self, channel: str) -> dict[ProductState, int]:
        """How many products are in each state."""
        query = select(products.c.state, func.count()).where(products.c.channel == channel).group_by(products.c.state)
        return {ProductState(state): int(count) for state, count in self._tx.execute(query)}

    def by_score(self, channel: str) -> list[ScoreCount]:
        """Products with a suggestion, by its score."""
        step = _step(products.c.score)
        waiting = func.sum(case((products.c.state == ProductState.SUGGESTED, 1), else_=0))
        query = select(step.label("step"), func.count().label("products"), waiting.label("waiting")).where(
            products.c.channel == channel, products.c.score.is_not(None)
        )
        rows = self._tx.execute(query.group_by("step"))
        return [ScoreCount(step=int(row.step), products=int(row.products), waiting=int(row.waiting)) for row in rows]

    def decided_by_score(self, channel: str) -> list[DecisionCount]:
        """Decisions of people that stand, one by one, on products that had a suggestion."""
        right = func.sum(case((decisions.c.category == decisions.c.suggested, 1), else_=0))
        query = select(_step(decisions.c.score).label("step"), func.count().label("decided"), right.label("right"))
        found = query.where(decisions.c.channel == channel, decisions.c.score.is_not(None), *_STANDING)
        rows = self._tx.execute(found.group_by("step"))
        return [DecisionCount(step=int(row.step), decided=int(row.decided), right=int(row.right)) for row in rows]

    def decided_since(self, channel: str, since: datetime) -> Iterator[tuple[datetime, bool]]:
        """When each of those decisions was made, and whether it agreed with the suggestion."""
        agreed = case((decisions.c.category == decisions.c.suggested, 1), else_=0)
        query = select(decisions.c.created_at, agreed).where(
            decisions.c.channel == channel, decisions.c.created_at >= since, *_STANDING
        )
        for at, right in self._tx.execute(query):
            yield at, bool(right)


def _step(score: ColumnElement[Any]) -> ColumnElement[int]:
    """The whole hundredths of a score. The small addition keeps 0.29, which is a little less in binary, in its own."""
    return cast(func.floor(score * STEPS + 1e-9), Integer)
