"""Counts of products and decisions by confidence and by day, over a transaction that the caller opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Integer, and_, case, cast, func, or_, select

from shoplens.catalogue.entities import CategoryDecisionKind, Product, ProductState
from shoplens.catalogue.repository import waits_for_check
from shoplens.catalogue.tables import decisions, products
from shoplens.db.tables import from_row

STEPS: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCount:
    """Products whose score is at least `step` hundredths and below the next: all, and those of them that a bulk
    acceptance takes: nobody decided them, and they wait for no random check.
    """

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
        accepted_next = and_(products.c.state == ProductState.SUGGESTED, ~waits_for_check())
        waiting = func.sum(case((accepted_next, 1), else_=0))
        query = select(step.label("step"), func.count().label("products"), waiting.label("waiting")).where(
            products.c.channel == channel, products.c.score.is_not(None)
        )
        rows = self._tx.execute(query.group_by("step"))
        return [ScoreCount(step=int(row.step), products=int(row.products), waiting=int(row.waiting)) for row in rows]

    def decided_by_score(self, channel: str) -> list[DecisionCount]:
        """Decisions of people that stand, one by one, on products that had a suggestion."""
        right = func.sum(case((decisions.c.category == decisions.c.suggested, 1), else_=0))
        query = select(_step(decisions.c.score).label("step"), func.count().label("decided"), right.label("right"))
        found = query.where(decisions.c.channel == channel, decisions.c.score.is_not(None), *by_people())
        rows = self._tx.execute(found.group_by("step"))
        return [DecisionCount(step=int(row.step), decided=int(row.decided), right=int(row.right)) for row in rows]

    def newest_judged(self, channel: str, *, limit: int, before: str | None) -> list[tuple[Product, bool | None]]:
        """The newest products with a suggestion, older than the id `before`, and whether the person who decided one by
        itself agreed with the suggestion; None where nobody did.
        """
        query = select(products).where(products.c.channel == channel, products.c.score.is_not(None))
        if before is not None:
            query = query.where(products.c.id < before)
        found = [from_row(Product, row) for row in self._tx.execute(query.order_by(products.c.id.desc()).limit(limit))]
        said = select(decisions.c.product_id, decisions.c.category == decisions.c.suggested).where(
            decisions.c.product_id.in_([each.id for each in found]), *by_people()
        )
        right = {
            str(product_id): bool(agreed) for product_id, agreed in self._tx.execute(said.order_by(decisions.c.id))
        }
        return [(each, right.get(each.id)) for each in found]

    def suggested_between(self, channel: str, since: datetime, until: datetime) -> tuple[int, int]:
        """How many products got their last suggestion then: those that needed no person, and those that did."""
        doubtful = func.sum(case((needed_person(), 1), else_=0))
        query = select(func.count().label("all"), doubtful.label("doubtful")).where(
            products.c.channel == channel,
            products.c.suggested_at >= since,
            products.c.suggested_at < until,
        )
        row = self._tx.execute(query).one()
        return int(row.all) - int(row.doubtful or 0), int(row.doubtful or 0)

    def decided_between(
        self, channel: str, since: datetime, until: datetime | None = None
    ) -> Iterator[tuple[datetime, bool]]:
        """When each of those decisions was made, and whether it agreed with the suggestion."""
        agreed = case((decisions.c.category == decisions.c.suggested, 1), else_=0)
        query = select(decisions.c.created_at, agreed).where(
            decisions.c.channel == channel, decisions.c.created_at >= since, *by_people()
        )
        if until is not None:
            query = query.where(decisions.c.created_at < until)
        for at, right in self._tx.execute(query):
            yield at, bool(right)


def by_people() -> tuple[ColumnElement[bool], ...]:
    """Decisions that count as a word of a person on a suggestion: made one by one, and not undone."""
    made = decisions.c
    return (
        made.undone_at.is_(None),
        made.kind != CategoryDecisionKind.UNDONE,
        made.suggested.is_not(None),
        made.bulk_id.is_(None),
    )


def needed_person() -> ColumnElement[bool]:
    """Whether the model was not sure of a product's suggestion. A random check is of one of which it was."""
    decided_so = (
        select(decisions.c.id)
        .where(decisions.c.product_id == products.c.id, decisions.c.review_before, *by_people())
        .correlate(products)
        .exists()
    )
    return and_(products.c.check_share.is_(None), or_(products.c.needs_review, decided_so))


def _step(score: ColumnElement[Any]) -> ColumnElement[int]:
    """The whole hundredths of a score. The small addition keeps 0.29, which is a little less in binary, in its own."""
    return cast(func.floor(score * STEPS + 1e-9), Integer)
