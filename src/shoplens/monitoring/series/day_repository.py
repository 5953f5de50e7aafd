"""What each job decided on each day, and what people said, over a transaction that the caller opened.

Every method raises DatabaseUnavailable through the transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, delete, func, select

from shoplens.catalogue.numbers.repository import NumbersRepository
from shoplens.catalogue.tables import products
from shoplens.db.database import hold_monitoring
from shoplens.db.tables import distinct, from_row, make_id, time_of, to_row
from shoplens.moderation.entities import PhotoState
from shoplens.moderation.repository import DecisionRepository
from shoplens.moderation.tables import moderation_decisions
from shoplens.monitoring.series.entities import DAY_S, DayCounts, Job
from shoplens.monitoring.tables import monitoring_days
from shoplens.predictions.entities import FeedbackValue
from shoplens.predictions.policy import Outcome
from shoplens.predictions.tables import feedback, predictions

_days: Final = monitoring_days.c
_OUTCOMES: Final = {Outcome.ACCEPT: "accepted", Outcome.REVIEW: "to_review", Outcome.REJECT: "rejected"}
_SIDES: Final = {
    FeedbackValue.RIGHT.value: "confirmed",
    FeedbackValue.WRONG.value: "corrected",
    FeedbackValue.NONE.value: "corrected",
}
"""What each verdict says of the prediction; a photo that is not usable says nothing."""


class DayRepository:
    """The table `monitoring_days`, and the counts that fill it: those of each job are the job's own."""

    def __init__(self, tx: Connection) -> None:
        self._tx = tx

    def count(self, begins_s: int) -> list[DayCounts]:
        """Count what each job decided on a day, and what people said on it, by channel. Uses ranges of indexes."""
        return [*self._predictions(begins_s), *self._moderation(begins_s), *self._catalogue(begins_s)]

    def replace(self, begins_s: int, counts: Sequence[DayCounts], *, now: datetime) -> None:
        """Let these be the counts of a day. Several processes may do it at once."""
        hold_monitoring(self._tx)
        self._tx.execute(delete(monitoring_days).where(_days.begins_s == begins_s))
        rows = [to_row(each) | {"counted_at": now} for each in counts]
        if rows:
            self._tx.execute(monitoring_days.insert(), rows)

    def between(self, since_s: int, until_s: int, *, channel: str = "") -> list[DayCounts]:
        """The counted days of all channels, or of one, oldest first."""
        found = select(monitoring_days).where(_days.begins_s >= since_s, _days.begins_s < until_s)
        if channel:
            found = found.where(_days.channel == channel)
        return [
            from_row(DayCounts, row)
            for row in self._tx.execute(found.order_by(_days.begins_s, _days.channel, _days.job))
        ]

    def newest_s(self) -> int | None:
        """When the newest counted day begins; None before the first."""
        newest = self._tx.execute(select(func.max(_days.begins_s))).scalar()
        return None if newest is None else int(newest)

    def first_record_s(self) -> int | None:
        """The Unix second of the oldest record; None where there is none."""
        ids = (predictions.c.id, moderation_decisions.c.id, products.c.id)
        oldest = [self._tx.execute(select(func.min(each))).scalar() for each in ids]
        return min((int(time_of(each).timestamp()) for each in oldest if each is not None), default=None)

    def prune(self, *, keep: int) -> None:
        """Remove the oldest days until `keep` are left."""
        newest = select(_days.begins_s).distinct().order_by(_days.begins_s.desc())
        last = self._tx.execute(newest.limit(1).offset(keep)).scalar()
        if last is not None:
            self._tx.execute(delete(monitoring_days).where(_days.begins_s <= last))

    def _predictions(self, begins_s: int) -> list[DayCounts]:
        first, end = _ids(begins_s)
        channels: dict[str, dict[str, int]] = {}
        for row in self._tx.execute(distinct(predictions.c.channel)).all():
            channel = str(row[0])
            for outcome, name in _OUTCOMES.items():
                wanted = (predictions.c.channel == channel, predictions.c.decision_outcome == outcome.value)
                of_day = (predictions.c.id >= first, predictions.c.id < end)
                number = self._tx.execute(select(func.count()).select_from(predictions).where(*wanted, *of_day))
                if count := number.scalar_one():
                    channels.setdefault(channel, {})[name] = count
        said = (
            select(predictions.c.channel, feedback.c.verdict, func.count())
            .join(predictions, predictions.c.id == feedback.c.prediction_id)
            .where(feedback.c.id >= first, feedback.c.id < end, feedback.c.withdrawn_at.is_(None))
            .group_by(predictions.c.channel, feedback.c.verdict)
        )
        for channel, verdict, count in self._tx.execute(said):
            if side := _SIDES.get(verdict):
                of = channels.setdefault(channel, {})
                of[side] = of.get(side, 0) + count
        return [_day(begins_s, channel, Job.PREDICTIONS, of) for channel, of in sorted(channels.items())]

    def _moderation(self, begins_s: int) -> list[DayCounts]:
        first, end = _ids(begins_s)
        decided = DecisionRepository(self._tx)
        found = []
        for row in self._tx.execute(distinct(moderation_decisions.c.channel)).all():
            channel = str(row[0])
            by_policy = decided.by_policy(channel, first=first, end=end)
            agreed, differed = decided.agreement_with_policy(channel, first=first, end=end)
            counts = {
                "accepted": by_policy.get(PhotoState.PUBLISHED, 0),
                "to_review": by_policy.get(PhotoState.HELD, 0),
                "rejected": by_policy.get(PhotoState.REFUSED, 0),
                "confirmed": agreed,
                "corrected": differed,
            }
            found.append(_day(begins_s, channel, Job.MODERATION, counts))
        return [each for each in found if each != _day(begins_s, each.channel, Job.MODERATION, {})]

    def _catalogue(self, begins_s: int) -> list[DayCounts]:
        since, until = (datetime.fromtimestamp(at, UTC) for at in (begins_s, begins_s + DAY_S))
        numbers = NumbersRepository(self._tx)
        found = []
        for row in self._tx.execute(distinct(products.c.channel)).all():
            channel = str(row[0])
            sure, doubtful = numbers.suggested_between(channel, since, until)
            agreed = [right for _, right in numbers.decided_between(channel, since, until)]
            counts = {
                "accepted": sure,
                "to_review": doubtful,
                "confirmed": sum(agreed),
                "corrected": len(agreed) - sum(agreed),
            }
            found.append(_day(begins_s, channel, Job.CATALOGUE, counts))
        return [each for each in found if each != _day(begins_s, each.channel, Job.CATALOGUE, {})]


def _ids(begins_s: int) -> tuple[str, str]:
    """The least ids of the day and of the one after it."""
    return make_id(begins_s * 1000, bytes(10)), make_id((begins_s + DAY_S) * 1000, bytes(10))


def _day(begins_s: int, channel: str, job: Job, counts: Mapping[str, int]) -> DayCounts:
    decided = sum(counts.get(each, 0) for each in _OUTCOMES.values())
    return DayCounts(begins_s=begins_s, channel=channel, job=job, predictions=decided, **counts)
