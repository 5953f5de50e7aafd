"""Predictions: how many there are by way of decision and score, and what people said of them."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Any, Final

import numpy as np
from sqlalchemy import ColumnElement, Connection, Integer, cast, func, select

from shoplens.monitoring.accuracy.estimates import STEPS, Answered, Floats, Stratum
from shoplens.monitoring.accuracy.production import Production
from shoplens.monitoring.drift.sample_repository import first_id
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.policy import Outcome
from shoplens.predictions.tables import feedback, predictions

_rows: Final = predictions.c


class PredictionAccuracy:
    """Over a transaction that the caller opened; it raises DatabaseUnavailable."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def production(self, channel: str, since: datetime, until: datetime) -> Production | None:
        """From `since` until before `until`, of the model that answered last; None without predictions."""
        model = self._newest_model(channel)
        return None if model is None else self._of(channel, model, since, until)

    def _newest_model(self, channel: str) -> tuple[str, str] | None:
        newest: list[Any] = []
        for outcome in Outcome:  # one range of the index each
            query = select(_rows.id, _rows.model_name, _rows.model_version).where(
                _rows.channel == channel, _rows.decision_outcome == outcome
            )
            newest += self._tx.execute(query.order_by(_rows.id.desc()).limit(1)).all()
        if not newest:
            return None
        last = max(newest, key=lambda row: str(row.id))
        return last.model_name, last.model_version

    def _of(self, channel: str, model: tuple[str, str], since: datetime, until: datetime) -> Production:
        """With the last word of people on each prediction."""
        within = _within(channel, model, since, until)
        step = _step(_rows.top_score)
        ways = (_rows.decision_policy_version, _rows.decision_outcome, _rows.decision_check_share.is_not(None))
        query = select(
            ways[0].label("policy"),
            ways[1].label("outcome"),
            ways[2].label("check"),
            step.label("step"),
            func.count().label("count"),
        )
        counts: defaultdict[tuple[str, str, bool], Floats] = defaultdict(lambda: np.zeros(STEPS + 1))
        for row in self._tx.execute(query.where(*within).group_by(*ways, step)):
            counts[row.policy, row.outcome, bool(row.check)][min(STEPS, max(0, row.step))] += row.count
        with_checks = {policy for policy, _, check in counts if check}
        accepted = {policy: found for (policy, outcome, _), found in counts.items() if outcome == Outcome.ACCEPT}
        checks = [found for (_, _, check), found in counts.items() if check]
        reviewed = [found for (_, outcome, check), found in counts.items() if outcome == Outcome.REVIEW and not check]
        of_checks, of_reviews = self._answers(within)
        return Production(
            model="@".join(model),
            checked=Stratum(
                scores=_sum([*checks, *(found for policy, found in accepted.items() if policy in with_checks)]),
                answers=of_checks,
                at_random=True,
            ),
            reviewed=Stratum(scores=_sum(reviewed), answers=of_reviews),
            checks=int(_sum(checks).sum()),
            unchecked=int(_sum([found for policy, found in accepted.items() if policy not in with_checks]).sum()),
            rejected=int(_sum([found for (_, outcome, _), found in counts.items() if outcome == Outcome.REJECT]).sum()),
        )

    def _answers(self, within: tuple[ColumnElement[bool], ...]) -> tuple[tuple[Answered, ...], tuple[Answered, ...]]:
        """Those on random checks, and those on what a threshold sent to people."""
        query = (
            select(
                feedback.c.prediction_id,
                feedback.c.verdict,
                feedback.c.label,
                _rows.top_label,
                _rows.top_score,
                _rows.decision_check_share,
            )
            .join(predictions, _rows.id == feedback.c.prediction_id)
            .where(*within, _rows.decision_outcome == Outcome.REVIEW, feedback.c.withdrawn_at.is_(None))
            .order_by(feedback.c.id)
        )
        checks: dict[str, Answered] = {}
        reviews: dict[str, Answered] = {}
        for row in self._tx.execute(query):  # a later word replaces an earlier one
            right = row.verdict == FeedbackValue.RIGHT or (row.label is not None and row.label == row.top_label)
            if row.decision_check_share is None:
                reviews[row.prediction_id] = Answered(score=row.top_score, right=right)
            else:
                checks[row.prediction_id] = Answered(score=row.top_score, right=right, chance=row.decision_check_share)
        return tuple(checks.values()), tuple(reviews.values())


def _within(channel: str, model: tuple[str, str], since: datetime, until: datetime) -> tuple[ColumnElement[bool], ...]:
    return (
        _rows.channel == channel,
        _rows.decision_outcome.in_([outcome.value for outcome in Outcome]),
        _rows.id >= first_id(since),
        _rows.id < first_id(until),
        _rows.model_name == model[0],
        _rows.model_version == model[1],
    )


def _step(score: ColumnElement[Any]) -> ColumnElement[int]:
    """The hundredth in which a score counts, as `accuracy.place` has it."""
    return cast(func.floor(score * STEPS + 1e-9), Integer)


def _sum(parts: list[Floats]) -> Floats:
    return np.sum(parts, axis=0) if parts else np.zeros(STEPS + 1)
