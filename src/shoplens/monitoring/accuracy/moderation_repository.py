"""What a policy published or refused by itself, and what people said in random checks of it."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from typing import Final

import numpy as np
from sqlalchemy import Connection, func, select

from shoplens.moderation.entities import DecisionKind, PhotoState
from shoplens.moderation.queue.repository import BY_PEOPLE
from shoplens.moderation.tables import moderation_decisions
from shoplens.monitoring.accuracy.estimates import STEPS, Answered, Floats, Stratum
from shoplens.monitoring.accuracy.production import Production
from shoplens.monitoring.drift.sample_repository import first_id

_made: Final = moderation_decisions.c
_NO_SCORE: Final = 1.0
"""A policy decides by many signals: its decisions have no score, and chance alone chose what people see of them."""


class ModerationAccuracy:
    """Over a transaction that the caller opened; it raises DatabaseUnavailable."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def production(self, channel: str, since: datetime, until: datetime) -> Production | None:
        """From `since` until before `until`, under all versions of the policy; None without any decision.

        Photos that the policy held are left out: it made no decision on them.
        """
        first = (
            _made.channel == channel,
            _made.kind == DecisionKind.POLICY,
            _made.from_state.is_(None),
            _made.id >= first_id(since),
            _made.id < first_id(until),
        )
        with_checks = _made.check_share.is_not(None)
        counts: defaultdict[tuple[str, bool], int] = defaultdict(int)
        query = select(_made.to_state, with_checks.label("checked"), func.count().label("number"))
        for row in self._tx.execute(query.where(*first).group_by(_made.to_state, with_checks)):
            counts[row.to_state, bool(row.checked)] += row.number
        if not counts:
            return None
        answers = self._answers(channel, since, until)
        drawn = select(func.count()).select_from(moderation_decisions).where(*first, _made.check_drawn.is_(True))
        by_state = {
            state.value: _stratum(counts[state, True], answers[state]) for state in PhotoState if state is not _HELD
        }
        return Production(
            model=self._newest_policy(channel),
            checked=_stratum(
                sum(of.samples for of in by_state.values()),
                [each for of in by_state.values() for each in of.answers],
            ),
            reviewed=Stratum(scores=np.zeros(STEPS + 1), answers=()),
            checks=self._tx.execute(drawn).scalar_one(),
            unchecked=sum(count for (state, checked), count in counts.items() if state != _HELD and not checked),
            by_state=by_state,
        )

    def _answers(self, channel: str, since: datetime, until: datetime) -> dict[str, list[Answered]]:
        """By what the policy had decided: the first decision of a person on each photo that chance chose."""
        later = moderation_decisions.alias().c
        query = (
            select(_made.photo_id, _made.to_state, _made.check_share, later.to_state.label("said"))
            .join(later.id.table, later.photo_id == _made.photo_id)
            .where(
                _made.channel == channel,
                _made.kind == DecisionKind.POLICY,
                _made.from_state.is_(None),
                _made.id >= first_id(since),
                _made.id < first_id(until),
                _made.check_drawn.is_(True),
                later.kind.in_([kind.value for kind in BY_PEOPLE]),
                later.undone_at.is_(None),
            )
            .order_by(later.revision)
        )
        found: dict[str, list[Answered]] = {state.value: [] for state in PhotoState}
        known: set[str] = set()
        for row in self._tx.execute(query):
            if row.photo_id not in known:
                known.add(row.photo_id)
                right = row.said == row.to_state
                found[row.to_state].append(Answered(score=_NO_SCORE, right=right, chance=row.check_share))
        return found

    def _newest_policy(self, channel: str) -> str:
        of_policy = (_made.channel == channel, _made.kind == DecisionKind.POLICY)
        newest = select(_made.policy_version).where(*of_policy).order_by(_made.id.desc()).limit(1)
        return f"policy {self._tx.execute(newest).scalar_one()}"


_HELD: Final = PhotoState.HELD


def _stratum(samples: int, answers: list[Answered]) -> Stratum:
    scores: Floats = np.zeros(STEPS + 1)
    scores[STEPS] = samples
    return Stratum(scores=scores, answers=tuple(answers), at_random=True)
