"""The accuracy of a channel in production, and the threshold for a goal, from what people said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, Protocol

from sqlalchemy import Connection

from shoplens.db import Database
from shoplens.errors import RequestInvalid
from shoplens.monitoring.accuracy.catalogue_repository import CatalogueAccuracy
from shoplens.monitoring.accuracy.estimates import Estimate, accuracy, naive
from shoplens.monitoring.accuracy.moderation_repository import ModerationAccuracy
from shoplens.monitoring.accuracy.production import Production
from shoplens.monitoring.accuracy.repository import PredictionAccuracy
from shoplens.monitoring.accuracy.threshold import ThresholdChoice, ThresholdPoint, choose, curve
from shoplens.monitoring.series.entities import Job
from shoplens.predictions.entities import Channel, channel_of
from shoplens.predictions.policy import Policy

DAYS: Final = 28
PERIODS: Final = (7, 28, 90, 365)
"""Days of a report. Other numbers are refused: each would cost a computation of its own."""
_KEPT_FOR: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AccuracyReport:
    """What is known of one channel. `model` is what decided: a model, or the newest version of a moderation policy;
    None without any decision.

    `automatic` is the accuracy of what needs no person, `by_state` that of its parts (in moderation), `overall` that of
    all labels but of rejected samples, `reviewed` that of what thresholds sent to people; each None while too few
    answers are there. `naive` is the share of right answers among all, which shows mostly doubtful samples.
    """

    channel: str
    job: Job
    since: datetime
    until: datetime
    model: str | None
    audit_share: float
    accept_at: float | None
    production: Production | None
    automatic: Estimate | None = None
    by_state: Mapping[str, Estimate | None] = field(default_factory=dict)
    reviewed: Estimate | None = None
    overall: Estimate | None = None
    naive: float | None = None
    points: tuple[ThresholdPoint, ...] = ()

    def choose(self, goal: float) -> ThresholdChoice:
        """The threshold for at most this share wrong."""
        return choose(self.points, goal)


class Source(Protocol):
    """What was decided in a channel, and what people said of it."""

    def production(self, channel: str, since: datetime, until: datetime) -> Production | None:
        """From `since` until before `until`; None without any decision."""


class AccuracyService:
    """Reports of all channels. Each is computed at most every ten minutes. Blocks; raises DatabaseUnavailable.

    `jobs` says for each channel whose decisions its report is of, `policy_of` its thresholds as they are now.
    """

    def __init__(
        self,
        database: Database,
        *,
        channels: Mapping[str, Channel],
        jobs: Mapping[str, Job],
        policy_of: Callable[[str], Policy],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._policy_of = policy_of
        self._channels = channels
        self._jobs = jobs
        self._clock = clock
        # As many as there are channels and PERIODS; those who ask for one channel wait for one computation.
        self._kept: dict[tuple[str, int], AccuracyReport] = {}
        self._locks = {name: threading.Lock() for name in channels}

    @property
    def channels(self) -> Mapping[str, Channel]:
        """By name."""
        return self._channels

    def channel(self, name: str | None) -> Channel:
        """The channel of this name, else the first. Raises ChannelNotFound."""
        return channel_of(self._channels, name, default=next(iter(self._channels)))

    def of(self, name: str, *, days: int = DAYS) -> AccuracyReport:
        """The report over the last days, one of PERIODS. Raises ChannelNotFound and RequestInvalid."""
        channel = self.channel(name)
        if days not in PERIODS:
            raise RequestInvalid(
                f"{days} is not a period of accuracy. Use one of: {', '.join(map(str, PERIODS))} days."
            )
        with self._locks[name]:
            kept = self._kept.get((name, days))
            if kept is None or self._clock() - kept.until >= _KEPT_FOR:
                kept = self._kept[name, days] = self._computed(channel, days)
        policy = self._policy_of(channel.name)  # people may have edited it since
        accept_at = None if kept.job is Job.MODERATION else policy.accept_at
        if (accept_at, policy.audit_share) == (kept.accept_at, kept.audit_share):
            return kept
        return replace(kept, accept_at=accept_at, audit_share=policy.audit_share)

    def _computed(self, channel: Channel, days: int) -> AccuracyReport:
        now, job = self._clock(), self._jobs.get(channel.name, Job.PREDICTIONS)
        since = now - timedelta(days=days)
        with self._database.reading() as tx:
            found = _SOURCES[job](tx).production(channel.name, since, now)
            if found is None and job is not Job.PREDICTIONS:  # the channel's model may answer single photos alone
                found = PredictionAccuracy(tx).production(channel.name, since, now)
                job = job if found is None else Job.PREDICTIONS
        report = AccuracyReport(
            channel=channel.name,
            job=job,
            since=since,
            until=now,
            model=None if found is None else found.model,
            audit_share=channel.policy.audit_share,
            accept_at=None if job is Job.MODERATION else channel.policy.accept_at,
            production=found,
        )
        if found is None:
            return report
        strata = [found.checked, found.reviewed]
        has_threshold = job is not Job.MODERATION and found.checked.samples > 0
        return replace(
            report,
            automatic=accuracy([found.checked]),
            by_state={state: accuracy([stratum]) for state, stratum in found.by_state.items()},
            reviewed=accuracy([found.reviewed]),
            overall=accuracy(strata) if has_threshold else None,
            naive=naive(strata),
            points=curve(strata) if has_threshold else (),
        )


_SOURCES: Final[Mapping[Job, Callable[[Connection], Source]]] = {
    Job.PREDICTIONS: PredictionAccuracy,
    Job.MODERATION: ModerationAccuracy,
    Job.CATALOGUE: CatalogueAccuracy,
}
