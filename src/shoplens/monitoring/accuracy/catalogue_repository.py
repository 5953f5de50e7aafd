"""Suggestions of the catalogue: how many there are by score, and what people decided on them."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any, Final

import numpy as np
from sqlalchemy import ColumnElement, Connection, Integer, case, cast, func, or_, select

from shoplens.catalogue.numbers.repository import by_people, needed_person
from shoplens.catalogue.tables import decisions, products
from shoplens.monitoring.accuracy.estimates import STEPS, Answered, Floats, Stratum
from shoplens.monitoring.accuracy.production import Production

_rows: Final = products.c
_CHECKED, _REVIEWED, _UNCHECKED = "checked", "reviewed", "unchecked"


class CatalogueAccuracy:
    """Over a transaction that the caller opened; it raises DatabaseUnavailable."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def production(self, channel: str, since: datetime, until: datetime) -> Production | None:
        """Suggestions from `since` until before `until` of the model that suggested last; None without any.

        What counts is the last suggestion of each product. People see the suggestion when they decide.
        """
        newest = select(_rows.model).where(_rows.channel == channel, _rows.suggested_at.is_not(None))
        model = self._tx.execute(newest.order_by(_rows.suggested_at.desc()).limit(1)).scalar()
        if model is None:
            return None
        within = (
            _rows.channel == channel,
            _rows.model == model,
            _rows.score.is_not(None),
            _rows.suggested_at >= since,
            _rows.suggested_at < until,
        )
        way, step = _way(), cast(func.floor(_rows.score * STEPS + 1e-9), Integer)
        scores: defaultdict[str, Floats] = defaultdict(lambda: np.zeros(STEPS + 1))
        query = select(way.label("way"), step.label("step"), func.count().label("number")).where(*within)
        for row in self._tx.execute(query.group_by("way", "step")):
            scores[row.way][min(STEPS, max(0, row.step))] += row.number
        answers = self._answers(within)
        drawn = select(func.count()).select_from(products).where(*within, _rows.check_drawn.is_(True))
        return Production(
            model=model,
            checked=Stratum(scores=scores[_CHECKED], answers=tuple(answers[_CHECKED]), at_random=True),
            reviewed=Stratum(scores=scores[_REVIEWED], answers=tuple(answers[_REVIEWED])),
            checks=self._tx.execute(drawn).scalar_one(),
            unchecked=int(scores[_UNCHECKED].sum()),
        )

    def _answers(self, within: tuple[ColumnElement[bool], ...]) -> dict[str, list[Answered]]:
        """The last word of people, one by one, on checks and on what needed review."""
        query = (
            select(
                _rows.id,
                _way().label("way"),
                _rows.score,
                _rows.check_share,
                decisions.c.category,
                decisions.c.suggested,
            )
            .join(decisions, decisions.c.product_id == _rows.id)
            .where(
                *within,
                *by_people(),
                decisions.c.created_at >= _rows.suggested_at,
                or_(_rows.check_drawn.is_(True), _rows.check_share.is_(None)),
            )
            .order_by(decisions.c.id)
        )
        last: dict[str, tuple[str, Answered]] = {}
        for row in self._tx.execute(query):
            chance = 1.0 if row.check_share is None else row.check_share
            last[row.id] = row.way, Answered(score=row.score, right=row.category == row.suggested, chance=chance)
        found: dict[str, list[Answered]] = {_CHECKED: [], _REVIEWED: [], _UNCHECKED: []}
        for way, answer in last.values():
            found[way].append(answer)
        return found


def _way() -> ColumnElement[Any]:
    """How a suggestion reaches people: at random, because the model was not sure, or not at all."""
    return case((_rows.check_share.is_not(None), _CHECKED), (needed_person(), _REVIEWED), else_=_UNCHECKED)
