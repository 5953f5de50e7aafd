"""What pages and programs read of drift: the days of a channel, and its model's test photos beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

import numpy as np

from shoplens.accounts.audit import AuditLog
from shoplens.accounts.entities import Principal
from shoplens.bundles.bundle import Bundle
from shoplens.db import Database
from shoplens.db.tables import new_id
from shoplens.errors import ModelNotFound, RequestInvalid
from shoplens.monitoring.drift.baseline_repository import Baseline, BaselineRepository, expected
from shoplens.monitoring.drift.comparison import LEAST_DAYS, LEAST_ROWS, squared_distance
from shoplens.monitoring.drift.job import LOOK_BACK, reference
from shoplens.monitoring.drift.profile import BINS, Measure, Profile, pooled
from shoplens.monitoring.drift.repository import DriftDay, DriftRepository, seconds_of
from shoplens.predictions.entities import Channel, channel_of

DAYS: Final = 90
MOST_DAYS: Final = 365
MOST_REASON: Final = 300
_RECENT: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleComparison:
    """The last days beside the test photos with which the model was measured. None where its bundle does not say.

    `classes` is a Jensen-Shannon distance of predicted labels, `confidence` the greatest difference of the shares of
    samples with at least some score. A shop's own mix is not that of test photos, so these alarm nobody.
    """

    data: str
    samples: int
    classes: float | None
    confidence: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DriftReport:
    """The days of a channel, oldest first. `shown` is the day that was asked for, else the last one; None without any.

    `reference` are the days together that its measures of photos are compared with, None where there are none.
    `normal` is the change that a person said is normal, up to the shown day.
    """

    channel: str
    since: date
    until: date
    days: tuple[DriftDay, ...]
    shown: DriftDay | None
    reference: Profile | None
    reference_days: int
    tests: BundleComparison | None
    normal: Baseline | None = None

    @property
    def usable_days(self) -> int:
        """Days with enough samples to be part of a reference."""
        since = date.min if self.normal is None else self.normal.day
        return sum(day.profile.rows >= LEAST_ROWS for day in self.days if day.day >= since)

    def expected(self, day: DriftDay) -> bool:
        """Whether a person said of a day, after it was compared, that it is normal."""
        return expected(day, self.normal)

    @property
    def alarms(self) -> Mapping[Measure, date]:
        """What alarms on the shown day, and since when without a day in between that did not."""
        found: dict[Measure, date] = {}
        if self.shown is None or self.expected(self.shown):
            return found
        for finding in self.shown.alarms:
            since = self.shown.day
            for day in reversed([each for each in self.days if each.day < self.shown.day]):
                earlier = day.finding(finding.measure)
                if earlier is not None and not earlier.alarm:
                    break
                if earlier is not None:
                    since = day.day
            found[finding.measure] = since
        return found


class DriftService:
    """Blocks; raises DatabaseUnavailable. `find_bundle` gives an installed model, or raises ModelNotFound."""

    def __init__(
        self,
        database: Database,
        *,
        channels: Mapping[str, Channel],
        find_bundle: Callable[[str], Bundle],
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._audit = AuditLog(database, clock=clock)
        self._channels = channels
        self._find_bundle = find_bundle
        self._clock = clock

    @property
    def channels(self) -> Mapping[str, Channel]:
        """By name."""
        return self._channels

    def channel(self, name: str | None) -> Channel:
        """The channel of this name, else the first. Raises ChannelNotFound."""
        return channel_of(self._channels, name, default=next(iter(self._channels)))

    def of(self, name: str, *, days: int = DAYS, day: date | None = None) -> DriftReport:
        """The last `days` days, or as many up to `day`. Raises ChannelNotFound."""
        channel = self.channel(name)
        until = self._clock().date() if day is None else day + timedelta(days=1)
        since = until - timedelta(days=days)
        with self._database.reading() as tx:
            found = DriftRepository(tx).days(channel.name, min(since, until - LOOK_BACK), until)
            normal = BaselineRepository(tx).of_day(channel.name, until - timedelta(days=1))
        listed = tuple(each for each in found if each.day >= since)
        shown = listed[-1] if listed else None
        earlier = [] if shown is None else [each for each in found if each.day < shown.day]
        before = [] if shown is None else reference(shown, earlier, _COMPARED, normal)
        return DriftReport(
            channel=channel.name,
            since=since,
            until=until,
            days=listed,
            shown=shown,
            reference=pooled(before) if len(before) >= LEAST_DAYS else None,
            reference_days=len(before),
            tests=self._tests(listed[-_RECENT:]),
            normal=normal,
        )

    def accept_change(self, name: str, day: date, *, reason: str, by: Principal) -> Baseline:
        """From `day` on the channel is normal: days are compared with those from then on. It is kept in the audit log.

        Raises ChannelNotFound, and RequestInvalid for a day that is not within LOOK_BACK, or without a reason.
        """
        channel, now = self.channel(name), self._clock()
        reason = " ".join(reason.split())
        if not 0 < len(reason) <= MOST_REASON:
            raise RequestInvalid(f"Say why it is normal, in 1 to {MOST_REASON} characters.")
        if not now.date() - LOOK_BACK <= day <= now.date():
            raise RequestInvalid(f"Name a day from {now.date() - LOOK_BACK} to today (UTC), not {day}.")
        normal = Baseline(
            id=new_id(now),
            channel=channel.name,
            begins_s=seconds_of(day),
            created_at=now,
            created_by=by.name,
            reason=reason,
        )
        with self._database.transaction() as tx:
            BaselineRepository(tx).add(normal)
            details = {"since": day.isoformat(), "reason": reason}
            self._audit.record(tx, by, "drift.accepted", target=channel.name, details=details)
        return normal

    def withdraw_change(self, name: str, *, by: Principal) -> Baseline | None:
        """Take the last one back: days are compared as before. None where none stands. Raises ChannelNotFound."""
        channel = self.channel(name)
        with self._database.transaction() as tx:
            repository = BaselineRepository(tx)
            normal = next(iter(sorted(repository.standing(channel.name), key=lambda each: each.id, reverse=True)), None)
            if normal is None or not repository.withdraw(normal.id, by=by.name, now=self._clock()):
                return None
            details = {"since": normal.day.isoformat(), "reason": normal.reason}
            self._audit.record(tx, by, "drift.accept_withdrawn", target=channel.name, details=details)
        return normal

    def _tests(self, recent: Sequence[DriftDay]) -> BundleComparison | None:
        days = [day for day in recent if day.model == recent[-1].model and day.profile.rows]
        if not days:
            return None
        try:
            bundle = self._find_bundle(days[-1].model)
        except ModelNotFound:
            return None
        return beside_tests(pooled([day.profile for day in days]), bundle)


_COMPARED: Final = Measure.CLASSES


def beside_tests(profile: Profile, bundle: Bundle) -> BundleComparison | None:
    """A profile beside the measurements in the bundle; None where the bundle has none."""
    if bundle.evaluation is None:
        return None
    part = bundle.evaluation.headline
    classes = None
    if part.confusion and Measure.CLASSES in profile.names:
        predicted = np.sum(part.confusion, axis=0)
        names = {label.name: int(count) for label, count in zip(bundle.labels, predicted, strict=True) if count}
        tested = Profile(rows=0, photos=0, names={Measure.CLASSES: names}, scales={}, vectors={})
        classes = math.sqrt(squared_distance(profile, tested, Measure.CLASSES))
    confidence = None
    if part.thresholds and Measure.CONFIDENCE in profile.scales:
        counts = profile.scales[Measure.CONFIDENCE]
        from_here = np.cumsum(counts[::-1])[::-1] / counts.sum()
        confidence = max(
            abs(each.share - float(from_here[min(BINS - 1, round(each.at * BINS))])) for each in part.thresholds
        )
    return BundleComparison(
        data=bundle.evaluation.data.name, samples=part.samples, classes=classes, confidence=confidence
    )
