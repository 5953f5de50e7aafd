"""The accuracy of a channel in production, and the threshold for a goal, from what people said."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from shoplens.db import Database
from shoplens.errors import ChannelNotFound
from shoplens.monitoring.accuracy import Estimate, accuracy, naive
from shoplens.monitoring.accuracy_repository import AccuracyRepository, Production
from shoplens.monitoring.threshold import ThresholdChoice, ThresholdPoint, choose, curve
from shoplens.predictions.entities import Channel

DAYS: Final = 28
_KEPT_FOR: Final = timedelta(minutes=10)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AccuracyReport:
    """What is known of one channel. `model` is None without any prediction.

    `automatic` is the accuracy of what the thresholds accept, `overall` that of all labels but of rejected samples,
    `reviewed` that of what thresholds sent to people; each None while too few answers are there. `naive` is the share
    of right answers among all, which shows mostly doubtful samples.
    """

    channel: str
    since: datetime
    until: datetime
    model: str | None
    audit_share: float
    accept_at: float | None
    production: Production | None
    automatic: Estimate | None = None
    reviewed: Estimate | None = None
    overall: Estimate | None = None
    naive: float | None = None
    points: tuple[ThresholdPoint, ...] = ()

    def choose(self, goal: float) -> ThresholdChoice:
        """The threshold for at most this share wrong."""
        return choose(self.points, goal)


class AccuracyService:
    """Reports of all channels. Each is computed at most every ten minutes. Blocks; raises DatabaseUnavailable."""

    def __init__(self, database: Database, *, channels: Mapping[str, Channel], clock: Callable[[], datetime]) -> None:
        self._database = database
        self._channels = channels
        self._clock = clock
        self._kept: dict[tuple[str, int], AccuracyReport] = {}
        self._lock = threading.Lock()

    @property
    def channels(self) -> Mapping[str, Channel]:
        """By name."""
        return self._channels

    def channel(self, name: str | None) -> Channel:
        """The channel of this name, else the first. Raises ChannelNotFound."""
        if name is None:
            return next(iter(self._channels.values()))
        if name not in self._channels:
            known = ", ".join(sorted(self._channels))
            raise ChannelNotFound(f"There is no channel {name[:100]!r}; the channels are: {known}.")
        return self._channels[name]

    def of(self, name: str, *, days: int = DAYS) -> AccuracyReport:
        """The report over the last days. Raises ChannelNotFound."""
        channel = self.channel(name)
        with self._lock:  # several people who open the page together wait for one computation
            kept = self._kept.get((name, days))
            if kept is None or self._clock() - kept.until >= _KEPT_FOR:
                kept = self._kept[name, days] = self._computed(channel, days)
            return kept

    def _computed(self, channel: Channel, days: int) -> AccuracyReport:
        now = self._clock()
        since = now - timedelta(days=days)
        with self._database.reading() as tx:
            repository = AccuracyRepository(tx)
            model = repository.newest_model(channel.name)
            found = None if model is None else repository.production(channel.name, model, since, now)
        policy = channel.policy
        if model is None or found is None:
            return AccuracyReport(
                channel=channel.name, since=since, until=now, model=None, audit_share=policy.audit_share,
                accept_at=policy.accept_at, production=None,
            )  # fmt: skip
        strata = [found.checked, found.reviewed]
        return AccuracyReport(
            channel=channel.name,
            since=since,
            until=now,
            model="@".join(model),
            audit_share=policy.audit_share,
            accept_at=policy.accept_at,
            production=found,
            automatic=accuracy([found.checked]),
            reviewed=accuracy([found.reviewed]),
            overall=accuracy(strata) if found.checked.samples else None,
            naive=naive(strata),
            points=curve(strata) if found.checked.samples else (),
        )
