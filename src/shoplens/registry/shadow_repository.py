"""What challengers answered beside champions, in the database, over a transaction that the caller opened.

Every method raises DatabaseUnavailable through that transaction.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, case, delete, func, insert, select

from shoplens.db.tables import from_row, to_row
from shoplens.registry.tables import shadow_answers

SHOWN_DIFFERENCES: Final = 20
_columns: Final = shadow_answers.c


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowAnswer:
    """What the champion and the challenger of `model` said of one sample.

    One of `prediction_id`, `photo_id` (of moderation) and `product_id` names what is stored of the sample; all are None
    for a suggestion on a product that is not stored. A challenger that could not answer has no label and a
    `failure_code`.
    """

    id: str
    created_at: datetime
    channel: str
    prediction_id: str | None = None
    photo_id: str | None = None
    product_id: str | None = None
    model: str
    champion: str
    challenger: str
    champion_label: str
    champion_score: float
    challenger_label: str | None
    challenger_score: float | None
    agrees: bool
    failure_code: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowReport:
    """How often a challenger agreed with a champion, and the newest samples on which it did not.

    `compared` counts the samples that both answered, `failed` those that the challenger could not answer.
    """

    model: str
    champion: str
    challenger: str
    compared: int
    agreed: int
    failed: int
    differences: tuple[ShadowAnswer, ...]


class ShadowRepository:
    """The table `shadow_answers`."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def add(self, answer: ShadowAnswer) -> None:
        """Raises RecordRefused if the record was deleted meanwhile."""
        self._tx.execute(insert(shadow_answers), to_row(answer))

    def prune(self, most: int) -> None:
        """Remove the oldest answers until `most` are left."""
        newest = select(_columns.id).order_by(_columns.id.desc()).limit(1).offset(most - 1).scalar_subquery()
        self._tx.execute(delete(shadow_answers).where(_columns.id < newest))

    def reports(self) -> list[ShadowReport]:
        """One for each pair of versions that were compared, the newest pair first."""
        pair = (_columns.model, _columns.champion, _columns.challenger)
        agreed = func.sum(case((_columns.agrees, 1), else_=0))
        counted = select(*pair, func.count(_columns.challenger_label), agreed, func.count(_columns.failure_code))
        rows = self._tx.execute(counted.group_by(*pair).order_by(func.max(_columns.id).desc()))
        return [
            ShadowReport(
                model=model,
                champion=champion,
                challenger=challenger,
                compared=compared,
                agreed=int(same),
                failed=failed,
                differences=self._differences(model, champion, challenger),
            )
            for model, champion, challenger, compared, same, failed in rows
        ]

    def of_pair(self, model: str, champion: str, challenger: str) -> list[ShadowAnswer]:
        """Every answer of one pair of versions, from old to new."""
        these = (_columns.model == model, _columns.champion == champion, _columns.challenger == challenger)
        rows = self._tx.execute(select(shadow_answers).where(*these).order_by(_columns.id))
        return [from_row(ShadowAnswer, row) for row in rows]

    def _differences(self, model: str, champion: str, challenger: str) -> tuple[ShadowAnswer, ...]:
        these: tuple[Any, ...] = (
            _columns.model == model,
            _columns.champion == champion,
            _columns.challenger == challenger,
            _columns.agrees.is_(False),
            _columns.challenger_label.is_not(None),
        )
        found = select(shadow_answers).where(*these).order_by(_columns.id.desc()).limit(SHOWN_DIFFERENCES)
        return tuple(from_row(ShadowAnswer, row) for row in self._tx.execute(found))
